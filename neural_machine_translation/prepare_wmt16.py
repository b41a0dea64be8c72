"""WMT'16 English-German from the official archives: 4.5 million training pairs, newstest2013 as dev, newstest2014 as test.

    python prepare_wmt16.py --output_dir wmt16
    python train.py --data_dir wmt16 --model base --vocab_size 32000 --batch_size 25000 --warmup_steps 8000 --precision bf16
    python eval.py --checkpoint output --test_file_pattern wmt16/newstest2016.tsv

    python prepare_wmt16.py --form bpe_2019 --output_dir wmt16_bpe

The second form fetches the data that the released weights were trained on: tokenised, cut into byte pairs, with its
vocabulary. Archives (1.7 GB) are kept in --archives_dir; those put there by hand are used as they are. Result:

    raw         OUTPUT_DIR/train.tsv dev.tsv test.tsv newstest2015.tsv newstest2016.tsv     source, tab, target
    bpe_2019    OUTPUT_DIR/... as in the archive
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid.config import parse
from fluid.formats.archive import unpack
from fluid.records import refuse_existing
from fluid.run import script
from neural_machine_translation.wmt import Wmt, fetch, write

WMT16 = Wmt(
    languages=("en", "de"),
    archives={
        "europarl-v7.de-en.tgz": "http://www.statmt.org/europarl/v7/de-en.tgz",
        "commoncrawl.tgz": "http://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
        "news-commentary-v11.tgz": "http://data.statmt.org/wmt16/translation-task/training-parallel-nc-v11.tgz",
        "dev.tgz": "http://data.statmt.org/wmt16/translation-task/dev.tgz",
        "test.tgz": "http://data.statmt.org/wmt16/translation-task/test.tgz",
    },
    training={
        "europarl-v7.de-en.tgz": "europarl-v7.de-en",
        "commoncrawl.tgz": "commoncrawl.de-en",
        "news-commentary-v11.tgz": "news-commentary-v11.de-en",
    },
    held_out={
        "dev": ("dev.tgz", "newstest2013-src.en.sgm", "newstest2013-ref.de.sgm"),
        "test": ("dev.tgz", "newstest2014-deen-ref.en.sgm", "newstest2014-deen-src.de.sgm"),
        "newstest2015": ("dev.tgz", "newstest2015-ende-src.en.sgm", "newstest2015-ende-ref.de.sgm"),
        "newstest2016": ("test.tgz", "newstest2016-ende-src.en.sgm", "newstest2016-ende-ref.de.sgm"),
    },
)
BPE_ARCHIVE = "wmt16_ende_data_bpe_clean.tar.gz"
BPE_URL = f"https://transformer-res.bj.bcebos.com/{BPE_ARCHIVE}"


@dataclass
class Flags:
    """WMT'16 English-German from the official archives."""

    output_dir: Path = Path("wmt16")
    """Folder to write, which must not be there yet."""
    archives_dir: Path = Path("wmt16_archives")
    """Where the archives are, or are fetched to."""
    form: Literal["raw", "bpe_2019"] = "raw"
    """raw text, or the prepared byte pairs that belong to the released weights."""


def main(flags: Flags) -> None:
    """Write the data set, completely or not at all."""
    if flags.form == "raw":
        write(WMT16, flags.output_dir, flags.archives_dir)
        return
    refuse_existing(flags.output_dir)
    unpack(fetch(BPE_ARCHIVE, BPE_URL, flags.archives_dir), flags.output_dir)
    print(
        f"{flags.output_dir}: {', '.join(sorted(path.name for path in flags.output_dir.rglob('*') if path.is_file()))}"
    )


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
