"""WMT'14 English-French from the official archives: some 36 million training pairs, newstest2013 as dev, newstest2014 as test.

    python prepare_wmt14.py --output_dir wmt14
    python train.py --data_dir wmt14 --languages en fr --model base --vocab_size 32000 --batch_size 25000 --warmup_steps 8000

Archives (some 4.5 GB) are kept in --archives_dir; those put there by hand are used as they are. Result:

    OUTPUT_DIR/train.tsv dev.tsv test.tsv     source, tab, target
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid.config import parse
from fluid.run import script
from neural_machine_translation.wmt import Wmt, write

WMT14 = Wmt(
    languages=("en", "fr"),
    archives={
        "europarl-v7.fr-en.tgz": "http://www.statmt.org/europarl/v7/fr-en.tgz",
        "commoncrawl.tgz": "http://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
        "un.tgz": "http://www.statmt.org/wmt13/training-parallel-un.tgz",
        "news-commentary-v9.tgz": "http://www.statmt.org/wmt14/training-parallel-nc-v9.tgz",
        "giga-fren.tar": "http://www.statmt.org/wmt10/training-giga-fren.tar",
        "dev.tgz": "http://www.statmt.org/wmt14/dev.tgz",
        "test-full.tgz": "http://www.statmt.org/wmt14/test-full.tgz",
    },
    training={
        "europarl-v7.fr-en.tgz": "europarl-v7.fr-en",
        "commoncrawl.tgz": "commoncrawl.fr-en",
        "un.tgz": "undoc.2000.fr-en",
        "news-commentary-v9.tgz": "news-commentary-v9.fr-en",
        "giga-fren.tar": "giga-fren.release2.fixed",
    },
    held_out={
        "dev": ("dev.tgz", "newstest2013-src.en.sgm", "newstest2013-ref.fr.sgm"),
        "test": ("test-full.tgz", "newstest2014-fren-src.en.sgm", "newstest2014-fren-ref.fr.sgm"),
    },
)


@dataclass
class Flags:
    """WMT'14 English-French from the official archives."""

    output_dir: Path = Path("wmt14")
    """Folder to write, which must not be there yet."""
    archives_dir: Path = Path("wmt14_archives")
    """Where the archives are, or are fetched to."""


def main(flags: Flags) -> None:
    """Write the data set, completely or not at all."""
    write(WMT14, flags.output_dir, flags.archives_dir)


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
