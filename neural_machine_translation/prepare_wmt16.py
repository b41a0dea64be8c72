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

import html
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid.config import parse
from fluid.errors import DataError, UserError
from fluid.formats.archive import unpack
from fluid.run import script
from fluid.weights.download import download

ARCHIVES = {
    "europarl-v7.de-en.tgz": "http://www.statmt.org/europarl/v7/de-en.tgz",
    "commoncrawl.tgz": "http://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
    "news-commentary-v11.tgz": "http://data.statmt.org/wmt16/translation-task/training-parallel-nc-v11.tgz",
    "dev.tgz": "http://data.statmt.org/wmt16/translation-task/dev.tgz",
    "test.tgz": "http://data.statmt.org/wmt16/translation-task/test.tgz",
}
BPE_ARCHIVE = "wmt16_ende_data_bpe_clean.tar.gz"
BPE_URL = f"https://transformer-res.bj.bcebos.com/{BPE_ARCHIVE}"
TRAINING = {
    "europarl-v7.de-en.tgz": "europarl-v7.de-en",
    "commoncrawl.tgz": "commoncrawl.de-en",
    "news-commentary-v11.tgz": "news-commentary-v11.de-en",
}
"""Archive -> stem of its two files, STEM.en and STEM.de, in whatever folder of the archive."""
HELD_OUT = {
    "dev": ("dev.tgz", "newstest2013-src.en.sgm", "newstest2013-ref.de.sgm"),
    "test": ("dev.tgz", "newstest2014-deen-ref.en.sgm", "newstest2014-deen-src.de.sgm"),
    "newstest2015": ("dev.tgz", "newstest2015-ende-src.en.sgm", "newstest2015-ende-ref.de.sgm"),
    "newstest2016": ("test.tgz", "newstest2016-ende-src.en.sgm", "newstest2016-ende-ref.de.sgm"),
}
MOST_WORDS, LARGEST_RATIO = 80, 9
"""Limits of Moses' clean-corpus-n.perl as the original's script called it."""


@dataclass
class Config:
    """WMT'16 English-German from the official archives."""

    output_dir: Path = Path("wmt16")
    """New folder to write."""
    archives_dir: Path = Path("wmt16_archives")
    """Where the archives are, or are fetched to."""
    form: Literal["raw", "bpe_2019"] = "raw"
    """raw text, or the prepared byte pairs that belong to the released weights."""


def fetch(name: str, url: str, folder: Path) -> Path:
    """The archive in `folder`, downloaded if it is not there. Raises UserError."""
    path = folder / name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"fetching {url}")
        try:
            download([url], path)
        except UserError as error:
            raise UserError(f"{error}\nFetch {url} elsewhere, put it here: {path}, and run this again") from None
    return path


def read_members(path: Path, names: list[str]) -> dict[str, str]:
    """Text of the members of an archive with these file names. Raises DataError for a damaged archive or a missing one."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if member.isfile() and name in names:
                    found[name] = archive.extractfile(member).read().decode("utf-8")
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is damaged ({error}); remove it and run this again") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path}: holds no {', '.join(missing)}")
    return found


def segments(sgm: str) -> list[str]:
    """The sentences of an SGML file of the translation task."""
    found = re.findall(r"<seg[^>]*>(.*?)</seg>", sgm, re.S | re.I)
    return [" ".join(html.unescape(text).split()) for text in found]


def training_pairs(folder: Path) -> Iterator[tuple[str, str]]:
    """Pairs of all corpora that pass the length limits."""
    for name, stem in TRAINING.items():
        texts = read_members(folder / name, [f"{stem}.en", f"{stem}.de"])
        # Not splitlines: a few lines hold separators that only Unicode takes for line ends.
        sides = [texts[f"{stem}.{language}"].split("\n") for language in ("en", "de")]
        if len(sides[0]) != len(sides[1]):
            raise DataError(f"{name}: {stem}.en has {len(sides[0])} lines, {stem}.de {len(sides[1])}")
        for source, target in zip(*sides, strict=True):
            words = len(source.split()), len(target.split())
            if min(words) >= 1 and max(words) <= MOST_WORDS and max(words) <= LARGEST_RATIO * min(words):
                yield " ".join(source.split()), " ".join(target.split())


def write_pairs(path: Path, pairs: Iterator[tuple[str, str]]) -> int:
    """Write `source TAB target` lines; returns how many."""
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for source, target in pairs:
            file.write(f"{source}\t{target}\n")
            count += 1
    return count


def write_raw(folder: Path, archives: Path) -> None:
    """Write the files of the form `raw` into an existing folder."""
    for part, (archive, source, target) in HELD_OUT.items():
        texts = read_members(archives / archive, [source, target])
        sides = segments(texts[source]), segments(texts[target])
        if len(sides[0]) != len(sides[1]) or not sides[0]:
            raise DataError(f"{archive}: {source} has {len(sides[0])} sentences, {target} {len(sides[1])}")
        print(f"{part}.tsv: {write_pairs(folder / f'{part}.tsv', zip(*sides, strict=True))} pairs")
    print(f"train.tsv: {write_pairs(folder / 'train.tsv', training_pairs(archives))} pairs")


def main(config: Config) -> None:
    """Write the data set, completely or not at all."""
    if config.output_dir.exists():
        raise UserError(f"{config.output_dir}: exists already; remove it, or give another --output_dir")
    if config.form == "bpe_2019":
        unpack(fetch(BPE_ARCHIVE, BPE_URL, config.archives_dir), config.output_dir)
        print(
            f"{config.output_dir}: {', '.join(sorted(path.name for path in config.output_dir.rglob('*') if path.is_file()))}"
        )
        return
    for name, url in ARCHIVES.items():
        fetch(name, url, config.archives_dir)
    partial = config.output_dir.with_name(f".{config.output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write_raw(partial, config.archives_dir)
        partial.rename(config.output_dir)
    except OSError as error:
        raise UserError(f"{config.output_dir}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    script(lambda: main(parse(Config)))
