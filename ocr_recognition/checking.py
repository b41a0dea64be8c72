"""What is wrong with the words of a data set, and what they are like: `train.py --check_data`."""

from collections import Counter

from fluid.errors import DataError
from fluid.media import decode_image
from ocr_recognition.alphabet import describe
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.reader import Labelling, Words, bucket_edges, encode, unalignable, width_of

import numpy as np

_SHOWN = 20


def check(words: Words, preprocess: Preprocess, labelling: Labelling) -> list[str]:
    """What is printed: every word that cannot be read, encoded or aligned, and what the set is like."""
    faults: list[str] = []
    unknown: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    widths: list[int] = []
    for index in range(len(words)):
        problem, width = _fault(words, index, preprocess, labelling, unknown, characters)
        if problem:
            faults.append(f"{words.where(index)}: {problem}")
        if width:
            widths.append(width)
    lines = [*faults[:_SHOWN], *([f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else [])]
    lines.append(f"{len(words)} words, {len(faults)} faults")
    if unknown:
        shown = ", ".join(f"{describe(one)} {count} times" for one, count in unknown.most_common(_SHOWN))
        lines.append(f"  not in the alphabet: {shown}")
    if widths:
        edges = bucket_edges(np.array(widths))
        padded = sum(next(edge for edge in edges if edge >= width) for width in widths)
        lines.append(f"  widths at a height of {preprocess.height}: {min(widths)} to {max(widths)}, buckets {edges}")
        lines.append(f"  padding: {1 - sum(widths) / padded:.1%}")
    never = [one for one in labelling.alphabet.characters if not characters[one]]
    if never:
        lines.append(f"  characters of the alphabet that never come up: {len(never)}: {''.join(never)!r}")
    return lines


def _fault(
    words: Words,
    index: int,
    preprocess: Preprocess,
    labelling: Labelling,
    unknown: Counter[str],
    characters: Counter[str],
) -> tuple[str | None, int | None]:
    """What is wrong with a word, and its width."""
    try:
        picture = decode_image(words.content(index))
        width = width_of((picture.shape[0], picture.shape[1]), preprocess)
        if words.shapes[index] is not None and width_of(words.shapes[index], preprocess) != width:
            return f"is {picture.shape[1]} x {picture.shape[0]} pixels, not as the list says", width
        label = encode(words.texts[index], labelling, unknown)
    except DataError as error:
        return str(error), None
    characters.update(labelling.alphabet.decode(label.tolist()))
    return unalignable(label, width, labelling), width
