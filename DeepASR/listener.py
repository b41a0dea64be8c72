"""Recognising while sound comes in: the same words as of the whole recording, a moment after they were said.

    listener = Listener(network, decoder)
    for samples in pieces:
        listener.accept(samples)
        print(listener.partial())
    print(listener.finish())

The network answers five frames late and sees nine frames ahead, so an answer is 140 ms behind the sound, and the time that it takes
to compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from DeepASR.decoding.decoder import Decoder, Hypothesis
from DeepASR.decoding.lexicon import STATES
from DeepASR.features import FRAME_SHIFT
from DeepASR.posteriors import Network
from DeepASR.recogniser import REACH
from DeepASR.transforms import CONTEXT, DELAY
from fluid.errors import UserError

import numpy as np

LATE = (DELAY + REACH + CONTEXT) * FRAME_SHIFT
"""Seconds that an answer is behind the sound before it is computed."""
LONGEST_SILENCE = 30.0
"""Seconds without a word after which the search begins anew."""


@dataclass(frozen=True)
class Said:
    """An utterance that ended in silence."""

    hypothesis: Hypothesis
    start: float
    """Seconds from the beginning of the sound, of the silence before it."""
    end: float


class Listener:
    """One sound.

    Args:
        network: with rows of one.
        decoder: its search begins anew after each pause.
        pause: seconds of silence behind words that end an utterance; None: it is all one.

    Raises UserError for a recogniser that does not know how features are made.
    """

    def __init__(self, network: Network, decoder: Decoder, *, pause: float | None = None) -> None:
        frontend = network.recogniser.frontend
        if frontend is None:
            raise UserError(
                "these weights take Kaldi's features, and do not say how those are made: sound is of no use"
            )
        self._network, self._decoder, self._pause = network, decoder, pause
        self.sample_rate = frontend.sample_rate
        """Of the samples that it takes."""
        self._features = frontend.open()
        self._stream = network.open()
        self._listening = decoder.open()
        self._start = 0
        self.ended: list[Said] = []
        """Utterances that are over."""

    def accept(self, samples: np.ndarray) -> None:
        """Take the next samples [n], on the 16-bit scale, at `sample_rate`."""
        self._features.accept(samples)
        self._go_on(last=False)

    def partial(self) -> str:
        """The words of the utterance that goes on, so far."""
        return self._listening.partial().text

    def finish(self) -> list[Said]:
        """The sound has ended; all utterances."""
        self._go_on(last=True)
        self._end(self._listening.result())
        return self.ended

    def _go_on(self, last: bool) -> None:
        self._listening.accept(self._stream.accept(self._features.frames(last), last=last))
        if self._pause is not None and not last:
            self._end_at_pause(self._pause)

    def _end_at_pause(self, pause: float) -> None:
        best = self._listening.partial()
        frames = round(pause / FRAME_SHIFT)
        # Silence without a word makes paths longer, too, and each look at them slower.
        longest = frames if best.words else round(LONGEST_SILENCE / FRAME_SHIFT)
        if len(best.pdfs) > longest and (best.pdfs[-frames:] < STATES).all():
            self._end(self._listening.result())
            self._listening = self._decoder.open()

    def _end(self, hypothesis: Hypothesis) -> None:
        end = self._start + self._listening.frames
        if hypothesis.words:
            self.ended.append(Said(hypothesis, self._start * FRAME_SHIFT, end * FRAME_SHIFT))
        self._start = end
