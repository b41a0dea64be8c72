"""The data of 2018: English words of scenes, in lists `W H file l1,l2,...` with the numbers of 95 characters.

    python prepare_2018.py --output_dir words_2018
    python train.py --data_dir words_2018 --model crnn_ctc --recipe 2018

Result, as in the archive, whose checksum is that of 2018:

    OUTPUT_DIR/train.list test.list train_images/ test_images/
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import files
from fluid.config import parse
from fluid.errors import DataError, UserError
from fluid.formats.archive import unpack
from fluid.records import refuse_existing
from fluid.run import script
from fluid.text import number_of
from fluid.weights.download import download, file_digest
from ocr_recognition.reader import open_words

URL = "http://paddle-ocr-data.bj.bcebos.com/data.tar.gz"
MD5 = "7256b1d5420d8c3e74815196e58cdad5"
MOST_FILES = 5_000_000


@dataclass
class Flags:
    """Fetch and unpack the data of 2018."""

    output_dir: Path = Path("words_2018")
    """Folder to write, which must not be there yet."""
    archive: Path = Path("data.tar.gz")
    """Where the archive is, or is fetched to."""


def main(flags: Flags, *, url: str = URL, md5: str = MD5) -> None:
    """Fetch the archive unless it is there, check it, unpack it, completely or not at all. Raises UserError."""
    refuse_existing(flags.output_dir)
    if not flags.archive.is_file():
        try:
            download([url], flags.archive, md5=md5)
        except UserError as error:
            raise UserError(
                f"{error}\nFetch {url} elsewhere, put it here: {flags.archive}, and run this again"
            ) from None
    elif file_digest(flags.archive, "md5") != md5:
        raise DataError(
            f"{flags.archive}: is not the archive of 2018, whose md5 is {md5}; remove it and run this again"
        )
    with files.whole(flags.output_dir) as partial:
        unpack(flags.archive, partial / "unpacked", max_members=MOST_FILES)
        for path in (partial / "unpacked" / "data").iterdir():
            path.rename(partial / path.name)
        shutil.rmtree(partial / "unpacked")
        counts = {part: len(open_words(partial, part)) for part in ("train", "test")}
    print(f"{flags.output_dir}: {number_of(counts['train'], 'word')} to train on, {counts['test']:,} to test with")


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
