"""Markup, places for values, addresses, options and numbers: what a translation must hold as the sentence does.

A network makes of `%s` or of an address what it likes. It copies numbers well; so each such item is translated as a number
that the sentence does not hold, and put back afterwards. The mark before an item of a list is not translated at all, and a
sentence in capitals is translated in small letters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

ITEM = re.compile(
    r"""
    </?[a-zA-Z][^<>]*>                                                  # <b>, </a>, <a href="...">
    | &(?:\w+|\#\w+);                                                   # &amp;
    | (?:https?|ftp|file)://[^\s<>"]*[^\s<>".,;:!?)]                    # addresses
    | (?<!\w)www\.[^\s<>"]*[^\s<>".,;:!?)]
    | (?<!\w)[\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | %(?:\(\w+\)|\d+\$)?[-+\#0]*\d*(?:\.\d+)?(?:[hlL]{0,2}[diouxXeEfgGscp])\b    # %s, %1$d, %(name)s
    | \{\{.*?\}\} | \$\{[^{}]*\} | \{[^{}\s]*\} | \$\w+                 # {{ name }}, ${NAME}, {0}, $NAME
    | (?<!\w)[A-Za-z]:\\\S*[^\s.,;:!?]                                  # files
    | (?<![\w<])~?/[\w.-]*\w(?:/[\w.-]*\w)*/?
    | (?<!\S)--?[A-Za-z][\w-]*                                          # --option
    | \\[ntr"]                                                          # escapes
    | (?<!\w)[@\#]\w+                                                   # @name, #4711
    | \b\w+\(\) | \b\w*[^\W_]_\w+\b                                     # names in programs
    | \b(?=\w*\d)(?=\w*[A-Za-z])\w+\b                                   # F5, LH455
    | \d+(?:[.,]\d+)*\s?%                                               # 50 %
    | [\u2600-\u27bf\U0001f000-\U0001faff][\u2600-\u27bf\U0001f000-\U0001faff\ufe0f\u200d]*       # pictures
    """,
    re.VERBOSE,
)
MARK = re.compile(r" *(?:(?:[-*•·–]|\d{1,3}[.)]|\(?[a-z]\)) +)?(?=\S)")
"""The indentation of a line and the mark of a list's item: `- `, `2. `, `a) `."""
NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
"""A number, a time or a date."""
LONG_WORD = re.compile(r"[^\W\d_]{2,}")
STAND_INS = (4711, 2938, 6054, 8127, 3560, 9283, 1748, 5392, 7416, 2651, 4879, 6237, 8504, 3195, 9042, 1386)
"""Numbers that items are translated as."""


@dataclass(frozen=True)
class Item:
    """What must survive, and what stands for it."""

    text: str
    stand_in: str
    joined_before: bool
    """Whether a word precedes it without a blank."""
    joined_after: bool
    """Whether a word follows it without a blank."""


@dataclass(frozen=True)
class Protected:
    """A sentence with a number in place of each item."""

    text: str
    items: tuple[Item, ...]
    capitals: bool
    """Whether the sentence was in capitals, as its translation will be."""
    straight: bool
    """Whether it has straight quotation marks, as its translation will have."""

    def restore(self, translation: str) -> str | None:
        """The translation with the items in their places; None if one is missing or stands there twice."""
        translation = translation.upper() if self.capitals else translation
        translation = re.sub("[„“”]", '"', translation) if self.straight else translation
        for item in self.items:
            number = re.compile(rf"(?<![\d.,:/-]){item.stand_in}(?!\d|[.,:/-]\d)")
            if len(number.findall(translation)) != 1:
                return None
            before = r"[ -]?" if item.joined_before else ""
            after = r"[ -]?(?=\w)" if item.joined_after else ""
            pattern = rf"{before}(?<![\d]){item.stand_in}(?:{after})?" if after else rf"{before}{item.stand_in}"
            translation = item.text.join(re.split(pattern, translation, maxsplit=1))
        return translation


def protect(sentence: str, *, numbers: bool = False) -> Protected:
    """The sentence with a stand-in for each item, plain `numbers` among them if asked.

    Of more items than there are stand-ins the last ones stay as they are.
    """
    free = (str(number) for number in STAND_INS if str(number) not in sentence)
    text, items, end = "", [], 0
    for start, stop in _places(sentence, numbers):
        stand_in = next(free, None)
        if stand_in is None:
            break
        text += sentence[end:start]
        before, after = text[-1:].isalnum(), sentence[stop : stop + 1].isalnum()
        items.append(Item(sentence[start:stop], stand_in, before, after))
        text += f"{' ' * before}{stand_in}{' ' * after}"
        end = stop
    text += sentence[end:]
    capitals = text.isupper() and len(LONG_WORD.findall(text)) > 1
    if capitals:
        text = re.sub(r"\bi\b", "I", text.capitalize())
    return Protected(text, tuple(items), capitals, straight='"' in text)


def keeps_numbers(sentence: str, translation: str) -> bool:
    """Whether the translation holds the numbers of the sentence and no others, with a point or a comma in them."""
    wanted, found = (sorted(NUMBER.findall(text.replace(",", "."))) for text in (sentence, translation))
    return wanted == found


def pieces(sentence: str) -> list[str]:
    """The sentence cut at its items, numbers among them: text, item, text, item, ..., text."""
    cut, end = [], 0
    for start, stop in _places(sentence, numbers=True):
        cut += [sentence[end:start], sentence[start:stop]]
        end = stop
    return [*cut, sentence[end:]]


def _places(sentence: str, numbers: bool) -> Iterator[tuple[int, int]]:
    """Where the items are, from the left."""
    found = [match.span() for match in ITEM.finditer(sentence)]
    if numbers:
        taken = {place for start, stop in found for place in range(start, stop)}
        found += [match.span() for match in NUMBER.finditer(sentence) if not taken & set(range(*match.span()))]
    yield from sorted(found)
