"""What translations are measured by: perplexity, BLEU and chrF."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluid.data import Batch
from fluid.engine import Engine

import numpy as np


@dataclass
class Perplexity:
    """exp of the mean negative log-probability of the words (`<e>` counts) of known translations.

    Of a Program with the outputs `nll`, nats, and `words`, both [N].
    """

    nll: float = 0.0
    words: int = 0

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch of sentences."""
        self.nll += float(outputs["nll"][batch.mask].sum(dtype=np.float64))
        self.words += int(outputs["words"][batch.mask].sum(dtype=np.float64))

    def merge(self, engine: Engine) -> None:
        """Add up what the hosts of a distributed run have counted."""
        nll, words = engine.total(np.array([self.nll, self.words], np.float64))
        self.nll, self.words = float(nll), int(words)

    @property
    def loss(self) -> float:
        """Nats a word."""
        return self.nll / self.words

    @property
    def value(self) -> float:
        """The perplexity; infinite where it exceeds a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def result(self) -> dict[str, float]:
        """`loss`, nats a word, and `ppl`."""
        return {"loss": self.loss, "ppl": self.value}


@dataclass(frozen=True)
class Quality:
    """Corpus BLEU (Papineni et al., ACL 2002) and chrF (Popovic, WMT 2015), 0..100, with sacreBLEU's signatures."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str
    loss: float | None = None
    """Nats a word of the references, where that was measured too."""


def quality(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = "13a", lowercase: bool = False
) -> Quality:
    """Measure detokenised translations against one reference each, as sacreBLEU does (Post, WMT 2018).

    `tokenize` is sacreBLEU's: 13a cuts punctuation off, none takes words as they come.
    """
    from sacrebleu.metrics import BLEU, CHRF

    # `force` only silences the warning that text without blanks before full stops looks tokenised.
    bleu, chrf = BLEU(tokenize=tokenize, lowercase=lowercase, force=True), CHRF(lowercase=lowercase)
    scored = (
        bleu.corpus_score(list(hypotheses), [list(references)]),
        chrf.corpus_score(list(hypotheses), [list(references)]),
    )
    return Quality(scored[0].score, scored[1].score, str(bleu.get_signature()), str(chrf.get_signature()))
