"""N-gram language models: trained on a few sentences, and read from and written to ARPA files.

    model = train(sentences, order=3)           {("turn", "on"): (log10 probability, log10 weight of backing off), ...}
    text = to_arpa(model);  model = from_arpa(text)

A probability is that of Witten and Bell (IEEE Trans. Inf. Theory 37, 1991), interpolated: with c(h, w) the count of a word
behind a history, c(h) its sum and t(h) the number of different words there,

    p(w | h) = (c(h, w) + t(h) p(w | h')) / (c(h) + t(h)),  backing off from h to the shorter h' with t(h) / (c(h) + t(h)).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from fluid.errors import DataError
from fluid.text import number_of

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
Gram = tuple[str, ...]
Model = dict[Gram, tuple[float, float]]
"""Words -> log10 of the probability of the last behind the others, and of the weight of backing off from all of them."""
NEVER = -99.0
"""What ARPA files write for log10 of 0."""


def train(sentences: Iterable[Sequence[str]], order: int = 3) -> Model:
    """The model of sentences, each a sequence of words. Raises DataError without any."""
    counts: dict[Gram, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        words = [BEGIN, *sentence, END]
        for place in range(1, len(words)):
            for length in range(min(order, place + 1)):
                counts[tuple(words[place - length : place])][words[place]] += 1
    if not counts:
        raise DataError("there is no sentence to train a language model on")
    probabilities: dict[Gram, float] = {}
    total = counts[()].total()
    for history in sorted(counts, key=len):
        own = counts[history]
        kinds, size = len(own), own.total()
        for word, count in own.items():
            # Behind no history: as often as it came.
            below = probabilities[(*history[1:], word)] if history else count / total
            probabilities[(*history, word)] = (count + kinds * below) / (size + kinds)
    model = {gram: (math.log10(value), 0.0) for gram, value in probabilities.items()}
    model[(BEGIN,)] = (NEVER, 0.0)
    for history, own in counts.items():
        if history:
            weight = math.log10(len(own) / (own.total() + len(own)))
            model[history] = (model[history][0], weight)
    return model


def score(model: Mapping[Gram, tuple[float, float]], sentence: Sequence[str], order: int | None = None) -> float:
    """log10 of the probability of a sentence, its end included; -inf with a word that the model does not have.

    `order` is that of the model, which is looked for where it is not given.
    """
    order = order or order_of(model)
    words, total = [BEGIN, *sentence, END], 0.0
    for place in range(1, len(words)):
        history = tuple(words[max(0, place - order + 1) : place])
        while (*history, words[place]) not in model:
            if not history:
                return -math.inf
            total += model.get(history, (0.0, 0.0))[1]
            history = history[1:]
        total += model[(*history, words[place])][0]
    return total


def order_of(model: Mapping[Gram, tuple[float, float]]) -> int:
    """Words of the longest n-grams."""
    return max(map(len, model))


def vocabulary(model: Mapping[Gram, tuple[float, float]]) -> list[str]:
    """The words that it can say."""
    single = (gram[0] for gram, (value, _) in model.items() if len(gram) == 1 and value > NEVER)
    return [word for word in single if word not in (BEGIN, END, UNKNOWN)]


def to_arpa(model: Mapping[Gram, tuple[float, float]]) -> str:
    """The text of an ARPA file."""
    by_length: dict[int, list[Gram]] = defaultdict(list)
    for gram in sorted(model):
        by_length[len(gram)].append(gram)
    lines = ["\\data\\", *(f"ngram {length}={len(by_length[length])}" for length in sorted(by_length)), ""]
    for length in sorted(by_length):
        lines.append(f"\\{length}-grams:")
        for gram in by_length[length]:
            value, weight = model[gram]
            lines.append(f"{value:.4f}\t{' '.join(gram)}" + (f"\t{weight:.4f}" if weight else ""))
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def from_arpa(text: str, where: str = "language model") -> Model:
    """Read the text of an ARPA file; `<UNK>` is `<unk>`. Raises DataError (FILE:LINE)."""
    model: Model = {}
    length = 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("\\"):
            head, _, tail = line[1:].partition("-")
            length = int(head) if tail == "grams:" and re.fullmatch("[0-9]", head) else 0
            if line == "\\end\\":
                break
        elif length and line:
            fields = line.split()
            try:
                weight = float(fields[length + 1]) if len(fields) == length + 2 else 0.0
                if len(fields) not in (length + 1, length + 2):
                    raise ValueError(f"{number_of(len(fields), 'field')}")
                gram = tuple(UNKNOWN if word == UNKNOWN.upper() else word for word in fields[1 : length + 1])
                model[gram] = (float(fields[0]), weight)
            except ValueError as error:
                raise DataError(f"{where}:{number}: 'LOG10 {length} WORDS [LOG10]' is expected ({error})") from None
    else:
        raise DataError(f"{where}: not an ARPA language model, or cut off: it has no line \\end\\")
    if (END,) not in model:
        raise DataError(f"{where}: not an ARPA language model, or one without {END}")
    return model
