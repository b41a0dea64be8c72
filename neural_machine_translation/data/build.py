"""Make train.tsv, dev.tsv and test.tsv from 3,000 pairs of LibreOffice's help.

    python build.py lohelp_mini.tsv

The input is a random choice of what `prepare_debian.py` finds in the packages libreoffice-help-en-us and -de. No
sentence of one part resembles one of another (Dice overlap of the words above 0.8).
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from neural_machine_translation.reader import read_tsv
from neural_machine_translation.resemblance import Resemblance

FOLDER = Path(__file__).resolve().parent
HELD_OUT = 260


def main(path: str) -> None:
    """Write the three files beside this script."""
    rows = list(read_tsv(path))
    random.Random(0).shuffle(rows)
    held_out, train = rows[: 2 * HELD_OUT], rows[2 * HELD_OUT :]
    resembles = Resemblance([source for source, _ in train])
    distinct = [row for row in held_out if not resembles(row[0])]
    dev = distinct[: len(distinct) // 2]
    resembles = Resemblance([source for source, _ in dev])
    test = [row for row in distinct[len(dev) :] if not resembles(row[0])]
    resembles = Resemblance([source for source, _ in dev + test])
    train = [row for row in rows if not resembles(row[0])]
    for name, part in (("train", train), ("dev", dev), ("test", test)):
        text = "".join(f"{source}\t{target}\n" for source, target in part)
        (FOLDER / f"{name}.tsv").write_text(text, encoding="utf-8")
        print(f"{name}.tsv: {len(part)} pairs")


if __name__ == "__main__":
    main(*sys.argv[1:])
