"""What is wrong with the words of a data set, and what they are like: `train.py --check_data`."""

from collections import Counter

from fluid.errors import DataError
from fluid.media import decode_image
from fluid.text import number_of
from ocr_recognition.alphabet import describe
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.reader import Labelling, Words, bucket_edges, encode, unalignable, width_of

import numpy as np

_SHOWN = 20


def check(words: Words, preprocess: Preprocess, labelling: Labelling) -> tuple[list[str], int]:
    """What is printed, every word that cannot be read, encoded or aligned, and what the set is like; and how many of these
    words are faults. With --skip_unalignable those that cannot be aligned are none."""
    faults: list[str] = []
    left_out: list[str] = []
    unknown: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    widths: list[int] = []
    blanks = [
        words.where(index) for index, text in enumerate(words.texts) if isinstance(text, str) and text != text.strip()
    ]
    for index in range(len(words)):
        problem, width, label = _looked_at(words, index, preprocess, labelling, unknown)
        if label is not None and width is not None:
            characters.update(labelling.alphabet.decode(label.tolist()))
            problem = unalignable(label, width, labelling)
        if problem:
            forgiven = label is not None and labelling.skip_unalignable
            (left_out if forgiven else faults).append(f"{words.where(index)}: {problem}")
        if width:
            widths.append(width)
    lines = [*_first(faults), *_first(left_out), f"{number_of(len(words), 'word')}, {number_of(len(faults), 'fault')}"]
    if left_out:
        lines.append(f"  left out, as they cannot be aligned: {len(left_out)}")
    if blanks:
        lines.append(f"  begin or end with a blank, which is a character: {len(blanks)}; the first: {blanks[0]}")
    if unknown:
        shown = ", ".join(f"{describe(one)} {number_of(count, 'time')}" for one, count in unknown.most_common(_SHOWN))
        lines.append(f"  not in the alphabet: {shown}")
    if widths:
        edges = bucket_edges(np.array(widths))
        padded = sum(next(edge for edge in edges if edge >= width) for width in widths)
        lines.append(f"  widths at a height of {preprocess.height}: {min(widths)} to {max(widths)}, buckets {edges}")
        lines.append(f"  padding: {1 - sum(widths) / padded:.1%}")
    never = [one for one in labelling.alphabet.characters if not characters[one]]
    if never:
        lines.append(f"  characters of the alphabet that never come up: {len(never)}: {''.join(never)!r}")
    return lines, len(faults)


def _first(lines: list[str]) -> list[str]:
    return [*lines[:_SHOWN], *([f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])]


def _looked_at(
    words: Words, index: int, preprocess: Preprocess, labelling: Labelling, unknown: Counter[str]
) -> tuple[str | None, int | None, np.ndarray | None]:
    """What is wrong with the picture or the text of a word, its width, and its label if nothing is."""
    try:
        picture = decode_image(words.content(index))
        width = width_of((picture.shape[0], picture.shape[1]), preprocess)
        declared = words.shapes[index]
        if declared is not None and width_of(declared, preprocess) != width:
            return f"is {picture.shape[1]} x {picture.shape[0]} pixels, not as the list says", width, None
        return None, width, encode(words.texts[index], labelling, unknown)
    except DataError as error:
        return str(error), None, None
