"""Posteriors of features: what the network answers to whole utterances, and to one that is not over yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from DeepASR.recogniser import REACH, SURROUNDINGS, Recogniser, RunningMean
from DeepASR.sizes import Sizes, silence
from DeepASR.transforms import CONTEXT, DELAY, speaker_means, undo_delay
from fluid.config import EngineFlags
from fluid.engine import Engine
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.runner import Runner
from fluid.weights import Opened

import numpy as np

CHUNK = 64
"""Frames that the network is shown at a time: one shape for utterances of every length."""
PIECE = 16
"""Frames that a stream shows the network at a time."""
Named = tuple[str, np.ndarray]
"""What is called so, and its features or posteriors."""


def build_inference(sizes: Sizes) -> Interface:
    """The Program of --feed, built with Paddle."""
    from DeepASR import network

    return network.build_inference(sizes)


def build_stream(sizes: Sizes) -> Interface:
    """The Program that listens piece by piece, built with Paddle."""
    from DeepASR import network

    return network.build_stream(sizes)


class Network:
    """Posteriors of features, utterance by utterance, by the weights or the exported model that the flags name.

    Args:
        opened: from `open_recogniser`.
        flags: of the engine.
        rows: utterances that are computed side by side.
        runs: pieces to come, None: very many.
    """

    def __init__(self, opened: Opened[Recogniser], flags: EngineFlags, *, rows: int, runs: int | None) -> None:
        self.recogniser = opened.facts
        self._runner, sizes = Runner(opened, flags, runs=runs), self.recogniser.sizes
        # An exported model does not say what of its outputs goes into the next call.
        exported = opened.exported is not None
        self.program = build_stream(sizes) if exported else self._listening(sizes)
        self.how = self._runner.how
        self.engine: Engine = self._runner.engine
        self._rows = self.engine.shared_rows(rows)
        if opened.exported is not None and set(opened.exported.inputs) != set(self.program.inputs):
            raise UserError(f"{opened.source} takes whole utterances; export with --what stream to recognise with it")

    def _listening(self, sizes: Sizes) -> Interface:
        return self._runner.program("stream", lambda: build_stream(sizes), made_of=dataclasses.asdict(sizes))

    def open(self) -> PosteriorStream:
        """For one utterance that is not over yet."""
        return PosteriorStream(self)

    def posteriors(self, features: Iterable[Named], speakers: Mapping[str, str] | None = None) -> Iterator[Named]:
        """(name, posterior [T, classes]) of each (name, features [T, frame_dim]), in their order.

        `speakers` by name tell a network that takes off the mean of a speaker whose utterances belong together; all features
        are read first then. Raises DataError for features of another width.
        """
        means: dict[str, np.ndarray] = {}
        if self.recogniser.normalisation.by_speaker and speakers:
            known = dict(features)
            means = speaker_means(known, speakers)
            features = known.items()
        waiting: list[Named] = []
        for item in features:
            waiting.append(item)
            if len(waiting) == self._rows:
                yield from self._batch(waiting, means)
                waiting = []
        if waiting:
            yield from self._batch(waiting, means)

    def _batch(self, items: Sequence[Named], means: Mapping[str, np.ndarray]) -> Iterator[Named]:
        normalisation = self.recogniser.normalisation
        for name, array in items:
            self.recogniser.refuse_features(name, array)
        centred = [normalisation.centred(array, means.get(name)) for name, array in items]
        feeds, start = self._feeds(centred), silence(self.program, self._rows)
        outputs = self.engine.stream(self.program, feeds, start)
        posterior = np.concatenate([np.asarray(output["posterior"]) for output in outputs], axis=1)
        for row, ((name, _), array) in enumerate(zip(items, centred)):
            yield name, undo_delay(posterior[row, : len(array) + DELAY])

    def _feeds(self, centred: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Piece by piece: each frame among its neighbours takes as much as 33 frames."""
        frames = np.array([len(array) + DELAY for array in centred])
        shape = [size or 0 for size in self.program.inputs["feature"].shape[2:]]
        for start in range(0, int(frames.max()), CHUNK):
            lengths = np.clip(frames - start, 0, CHUNK)
            feature = np.zeros((self._rows, CHUNK, *shape), np.float32)
            for row, (array, length) in enumerate(zip(centred, lengths)):
                if length:
                    feature[row, :length] = self.recogniser.normalisation.piece(array, start, start + length, last=True)
            yield {"feature": feature, "length": np.pad(lengths, (0, self._rows - len(centred))).astype(np.int64)}


class PosteriorStream:
    """Answers of the network to one utterance whose features come in pieces; of these it keeps what it will need again."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._mean = RunningMean(network.recogniser.normalisation)
        self._centred = np.zeros((0, network.recogniser.sizes.frame_dim), np.float32)
        self._shown = 0
        """How many of these the network was shown."""
        self._early = DELAY
        """Answers to come that are answers to nothing."""
        self._carried: Mapping[str, np.ndarray] = silence(network.program, 1)

    def accept(self, features: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Answers [n, classes] to the frames whose surroundings are known after these features [T, frame_dim].

        `last`: nothing more comes, so all that have no answer yet get theirs.
        """
        self._centred = np.concatenate([self._centred, self._mean.taken_off(features)])
        known, start = len(self._centred), self._shown
        stop = known + DELAY if last else known - REACH - CONTEXT
        if not known or stop <= start:
            return np.zeros((0, self._network.recogniser.sizes.class_num), np.float32)
        x = self._network.recogniser.normalisation.piece(self._centred, start, stop, last=last)
        passed = max(stop - SURROUNDINGS, 0)
        self._centred, self._shown = self._centred[passed:], stop - passed
        answers = np.concatenate([*self._run(x)])
        early = min(self._early, len(answers))
        self._early -= early
        return answers[early:]

    def _run(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """Answers to the frames [T, 3, 11, frame_dim] that come next, some at a time."""
        program = self._network.program
        for first in range(0, len(x), PIECE):
            piece = x[first : first + PIECE]
            # One shape, whatever comes in.
            feature = np.zeros((1, PIECE, *x.shape[1:]), np.float32)
            feature[0, : len(piece)] = piece
            feed = {"feature": feature, "length": np.array([len(piece)])}
            (outputs,) = self._network.engine.stream(program, [feed], self._carried)
            self._carried = {taken_by: outputs[name] for name, taken_by in program.carry.items()}
            yield np.asarray(outputs["posterior"])[0, : len(piece)]
