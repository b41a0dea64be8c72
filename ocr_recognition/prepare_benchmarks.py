"""The benchmarks of word recognition, from the archives that their authors hand out, as lists that eval.py reads.

    python prepare_benchmarks.py --benchmark iiit5k --archive IIIT5K-Word_V3.0.tar.gz --output_dir iiit5k
    python prepare_benchmarks.py --benchmark svt --archive svt.zip --output_dir svt
    python prepare_benchmarks.py --benchmark ic13 --archive Challenge2_Test_Task3_Images.zip \\
        --ground_truth Challenge2_Test_Task3_GT.txt --output_dir ic13
    python prepare_benchmarks.py --benchmark ic15 --archive ch4_test_word_images_gt.zip \\
        --ground_truth Challenge4_Test_Task3_GT.txt --output_dir ic15
    python eval.py --data_dir iiit5k

IIIT 5K-word (Mishra et al., BMVC 2012) and Street View Text (Wang et al., ICCV 2011) are at their authors' pages, those of
the Robust Reading Competitions of 2013 and 2015 at https://rrc.cvc.uab.es after registration. Result:

    OUTPUT_DIR/test.txt      lines `file<TAB>text`
    OUTPUT_DIR/test_images/  one picture a word

Papers count IC13 by 1,015 or 857 words and IC15 by 2,077 or 1,811: the smaller numbers are without words that hold other
characters than letters and digits, those of IC13 also without words of fewer than three (`--only` says so).
"""

import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import files
from fluid.config import Was, parse
from fluid.errors import DataError
from fluid.formats.archive import unpack
from fluid.media import read_image
from fluid.records import refuse_existing
from fluid.run import script
from fluid.text import number_of, read_lines
from ocr_recognition.reader import Part

import cv2
import numpy as np
import scipy.io

Only = Literal["all", "alphanumeric", "alphanumeric3"]
UNPACKED = "unpacked"
"""Folder of the archive while the list is made."""
_TRUTH = re.compile(r'(.+?), "(.*)"')


@dataclass
class Flags:
    """Make lists of a benchmark of word recognition."""

    benchmark: Literal["iiit5k", "svt", "ic13", "ic15"]
    """Which."""
    archive: Path
    """Its archive."""
    ground_truth: Path | None = None
    """What the words of ic13 and ic15 say, where the archive does not hold it as gt.txt."""
    split: Annotated[Part, Was("part")] = "test"
    """Of iiit5k and svt, whose archives hold both."""
    only: Only = "all"
    """Words to take: all; those of letters and digits; those of three or more of them."""
    output_dir: Path = Path("benchmark")
    """Folder to write, which must not be there yet."""


Word = tuple[np.ndarray, str]


def main(flags: Flags) -> None:
    """Write the list and the pictures, completely or not at all. Raises UserError."""
    folder = flags.output_dir
    refuse_existing(folder)
    with files.whole(folder) as partial:
        unpack(flags.archive, partial / UNPACKED)
        (partial / f"{flags.split}_images").mkdir()
        found = (word for word in words(flags, partial / UNPACKED) if taken(word[1], flags.only))
        count = write(partial, flags.split, found)
        shutil.rmtree(partial / UNPACKED)
    print(f"{folder}: {number_of(count, 'word')}")


def write(folder: Path, part: Part, found: Iterator[Word]) -> int:
    """Write pictures and list; how many. Raises DataError if there are none, OSError for what cannot be written."""
    lines = []
    for number, (picture, text) in enumerate(found, 1):
        name = f"{number:05d}.png"
        _, packed = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        (folder / f"{part}_images" / name).write_bytes(packed.tobytes())
        lines.append(f"{name}\t{text}\n")
    if not lines:
        raise DataError("the archive holds no word that is to be taken")
    (folder / f"{part}.txt").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def taken(text: str, only: Only) -> bool:
    """Whether a word counts."""
    if only == "all":
        return True
    return text.isascii() and text.isalnum() and (only == "alphanumeric" or len(text) >= 3)


def words(flags: Flags, folder: Path) -> Iterator[Word]:
    """(picture [h, w, 3] uint8 RGB, text) of the unpacked archive. Raises DataError."""
    if flags.benchmark == "iiit5k":
        return iiit5k(folder, flags.split)
    if flags.benchmark == "svt":
        return svt(folder, flags.split)
    return robust_reading(folder, flags.ground_truth)


def iiit5k(folder: Path, part: Part) -> Iterator[Word]:
    """Words of IIIT5K/PART, named by PARTdata.mat."""
    table = _one(folder, f"{part}data.mat")
    try:
        rows = np.atleast_1d(scipy.io.loadmat(table, squeeze_me=True)[f"{part}data"])
        named = [(str(row["ImgName"]), str(row["GroundTruth"])) for row in rows]
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        OSError,
        MemoryError,
        zlib.error,
    ) as error:
        raise DataError(f"{table}: is not the table of IIIT 5K-word ({error!r})") from None
    for name, text in named:
        yield read_image(table.parent / name), text


def svt(folder: Path, part: Part) -> Iterator[Word]:
    """Words of the rectangles of PART.xml, as far as they lie in their pictures."""
    table = _one(folder, f"{part}.xml")
    try:
        images = ElementTree.parse(table).getroot().findall("image")
    except ElementTree.ParseError as error:
        raise DataError(f"{table}: is not XML ({error})") from None
    for image in images:
        picture = read_image(table.parent / str(image.findtext("imageName")))
        for rectangle in image.iter("taggedRectangle"):
            try:
                left, top, width, height = (int(rectangle.attrib[name]) for name in ("x", "y", "width", "height"))
            except (KeyError, ValueError) as error:
                raise DataError(f"{table}: a rectangle without whole numbers ({error!r})") from None
            word = picture[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
            if word.size:
                yield word, str(rectangle.findtext("tag"))


def robust_reading(folder: Path, ground_truth: Path | None) -> Iterator[Word]:
    """Words of a Robust Reading Competition: pictures and lines `word_1.png, "text"` with \\" and \\\\ for themselves."""
    table = ground_truth or _one(folder, "gt.txt")
    named = _files(folder)
    for number, line in enumerate(read_lines(table), 1):
        if not line.strip():
            continue
        found = _TRUTH.fullmatch(line.strip())
        if not found:
            raise DataError(f'{table}:{number}: must be `word_1.png, "text"`, not {line[:80]!r}')
        yield read_image(_only(named.get(found[1], []), found[1])), re.sub(r"\\(.)", r"\1", found[2])


def _files(folder: Path) -> dict[str, list[Path]]:
    """Those of a folder and of those below, by their names."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        found[path.name].append(path)
    return found


def _one(folder: Path, name: str) -> Path:
    """The only file of a name in a folder and those below. Raises DataError."""
    return _only(_files(folder).get(name, []), name)


def _only(found: Sequence[Path], name: str) -> Path:
    if len(found) != 1:
        raise DataError(f"the archive holds {len(found)} files {name}, where one belongs")
    return found[0]


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
