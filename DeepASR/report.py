"""Error rates for people."""

from collections.abc import Mapping

from DeepASR.corpus import Part
from DeepASR.metrics import Counts, ErrorRates, Unit
from fluid.run import console, show
from fluid.text import number_of

from rich.table import Table


def summary(rates: ErrorRates, unit: Unit) -> str:
    """The rate of all utterances, what the errors are, and the interval of 95 %."""
    total, (low, high) = rates.total, rates.interval()
    return (
        f"{unit.upper()} {100 * total.rate:.2f} % ({total.errors}/{total.length}: {total.substitutions} substituted, "
        f"{total.deletions} left out, {total.insertions} put in), 95 % interval {100 * low:.2f} to {100 * high:.2f}, "
        f"{number_of(len(rates.utterances), 'utterance')}"
    )


def print_rates(rates: ErrorRates, unit: Unit, part: Part, worst: int) -> None:
    """The rate of all, of each speaker, and the utterances with most errors."""
    if part.speakers:
        table = Table("speaker", unit.upper(), "errors", "length")
        for speaker, counts in rates.by_speaker(part.speakers).items():
            table.add_row(speaker, *_cells(counts))
        show(table)
    print_worst(rates, part.texts, worst)
    if rates.missing:
        console.print(f"without a hypothesis, which counts as deletions: {number_of(len(rates.missing), 'utterance')}")
    console.print(summary(rates, unit))


def print_worst(rates: ErrorRates, texts: Mapping[str, str], count: int) -> None:
    """So many utterances with most errors."""
    for name in rates.worst(count):
        counts = rates.utterances[name]
        console.print(f"{name}: {counts.errors}/{counts.length} of '{texts[name]}'")


def _cells(counts: Counts) -> tuple[str, str, str]:
    return f"{100 * counts.rate:.2f}", str(counts.errors), str(counts.length)
