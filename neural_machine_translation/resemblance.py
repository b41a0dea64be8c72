"""Whether sentences resemble each other: what keeps the parts of a corpus apart."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from neural_machine_translation.reader import Pair


def words_of(text: str) -> list[str]:
    """The words of a sentence in lower case, without digits and punctuation."""
    return re.findall(r"[^\W\d_]+", text.lower())


class Resemblance:
    """Finds whether a sentence resembles one of a set: Dice overlap of their words above `limit`."""

    def __init__(self, texts: Iterable[str], limit: float = 0.8):
        self.limit = limit
        self.bags = [Counter(words_of(text)) for text in texts]
        self.holders: dict[str, list[int]] = defaultdict(list)
        for number, bag in enumerate(self.bags):
            for word in bag:
                self.holders[word].append(number)

    def __call__(self, text: str) -> bool:
        """Whether `text` resembles one of the set."""
        bag = Counter(words_of(text))
        size = sum(bag.values())
        if not size:
            return False
        # The overlap is above the limit only if so many words are shared; so one of the rarest others is.
        shared = self.limit / (2 - self.limit) * size
        by_rarity = sorted(bag, key=lambda word: len(self.holders.get(word, ())))
        needed = by_rarity[: int(size - shared) + 1]
        for number in {number for word in needed for number in self.holders.get(word, ())}:
            other = self.bags[number]
            if 2 * sum((bag & other).values()) > self.limit * (size + sum(other.values())):
                return True
        return False


class Everyday:
    """Whether a pair resembles one of the everyday sentences, or says the same in other words.

    These are short, so that half of a paraphrase's words are another's: either side may share no more than 0.6 of its words
    with one of theirs, or five in a row.
    """

    RUN = 5

    def __init__(self, pairs: Iterable[Pair]):
        pairs = list(pairs)
        self.sides = [Resemblance(texts, limit=0.6) for texts in zip(*pairs, strict=True)]
        self.runs = {run for pair in pairs for text in pair for run in self._runs(text)}

    def __call__(self, pair: Pair) -> bool:
        alike = any(resembles(text) for resembles, text in zip(self.sides, pair, strict=True))
        return alike or any(run in self.runs for text in pair for run in self._runs(text))

    def _runs(self, text: str) -> Iterator[tuple[str, ...]]:
        return zip(*(words_of(text)[start:] for start in range(self.RUN)))
