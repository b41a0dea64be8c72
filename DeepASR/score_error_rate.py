"""Compare transcripts with what was said, both text files with a line `UTTERANCE WORD WORD ...`.

python score_error_rate.py --ref test.ref.txt --hyp decoding_result.txt --error_rate_type cer

An utterance that the hypotheses lack counts as deletions; in 2018 it was left out.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.kaldi.tables import read_text
from DeepASR.metrics import ErrorRates, error_rates
from DeepASR.report import print_worst, summary
from fluid import config as configuration
from fluid.config import Natural
from fluid.errors import UserError
from fluid.run import console, script
from fluid.text import number_of


@dataclass
class Flags:
    """Compare transcripts with what was said."""

    ref: Path | None = None
    """What was said."""
    hyp: Path | None = None
    """What was heard."""
    error_rate_type: Literal["cer", "wer"] = "cer"
    """Errors in characters or in words."""
    special_tokens: str = "<SPOKEN_NOISE>"
    """Words, with blanks between them, that count on neither side."""
    worst: Natural = 0
    """Utterances with most errors to show."""


def main(flags: Flags) -> ErrorRates:
    """Compare, print the line of 2018 and what the errors are; returns them."""
    if flags.ref is None or flags.hyp is None:
        raise UserError("--ref and --hyp are needed: what was said and what was heard")
    references, hypotheses = read_text(flags.ref), read_text(flags.hyp)
    unit = flags.error_rate_type
    rates = error_rates(references, hypotheses, unit=unit, ignored=flags.special_tokens.split())
    total = rates.total
    print_worst(rates, references, flags.worst)
    console.print(
        f"Error rate[{unit}] = {total.rate:f} ({total.errors}/{total.length}), total {len(hypotheses)} sentences in hyp, "
        f"{len(rates.unknown)} not presented in ref.",
    )
    if rates.missing:
        console.print(f"not in hyp, which counts as deletions: {number_of(len(rates.missing), 'sentence')} of ref")
    console.print(summary(rates, unit))
    return rates


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
