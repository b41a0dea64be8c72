"""The WMT scripts on small archives of the official layout."""

import gzip
import io
import tarfile
from pathlib import Path

from fluid.errors import DataError, UserError
from neural_machine_translation import prepare_wmt14, prepare_wmt16
from neural_machine_translation.reader import read_tsv

import pytest


def write_archive(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, text in files.items():
            data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def sgm(*lines: str) -> str:
    body = "\n".join(f'<seg id="{number}"> {line} </seg>' for number, line in enumerate(lines, 1))
    return f'<srcset setid="x"><doc docid="d"><p>\n{body}\n</p></doc></srcset>'


@pytest.fixture
def archives(tmp_path) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    long = "word " * 81
    write_archive(folder / "europarl-v7.de-en.tgz", {"europarl-v7.de-en.en": f"One two.\n\n{long}\nend\n", "europarl-v7.de-en.de": f"Eins zwei.\nleer\n{long}\nEnde\n"})  # fmt: skip
    write_archive(
        folder / "commoncrawl.tgz", {"commoncrawl.de-en.en": "a\n", "commoncrawl.de-en.de": "b b b b b b b b b b\n"}
    )
    write_archive(folder / "news-commentary-v11.tgz", {"training-parallel-nc-v11/news-commentary-v11.de-en.en": "A  B\u2028C\n", "training-parallel-nc-v11/news-commentary-v11.de-en.de": "A B C\n"})  # fmt: skip
    held_out: dict[str, dict[str, str]] = {"dev.tgz": {}, "test.tgz": {}}
    for archive, source, target in prepare_wmt16.WMT16.held_out.values():
        held_out[archive] |= {f"dev/{source}": sgm("Tom &amp; I", "two"), f"dev/{target}": sgm("Tom &amp; ich", "zwei")}
    for name, files in held_out.items():
        write_archive(folder / name, files)
    return folder


def test_pairs_are_cleaned_and_aligned(archives, tmp_path):
    output = tmp_path / "wmt16"
    prepare_wmt16.main(prepare_wmt16.Flags(output_dir=output, archives_dir=archives))
    train = read_tsv(output / "train.tsv")
    assert list(zip(train.sources, train.targets, strict=True)) == [
        ("One two.", "Eins zwei."),
        ("end", "Ende"),
        ("A B C", "A B C"),
    ]
    assert read_tsv(output / "test.tsv").sources == ["Tom & I", "two"]
    assert sorted(path.name for path in output.iterdir()) == [
        "dev.tsv", "newstest2015.tsv", "newstest2016.tsv", "test.tsv", "train.tsv",
    ]  # fmt: skip
    with pytest.raises(UserError, match="exists already"):
        prepare_wmt16.main(prepare_wmt16.Flags(output_dir=output, archives_dir=archives))


def test_a_damaged_archive_leaves_nothing(archives, tmp_path):
    (archives / "commoncrawl.tgz").write_bytes((archives / "commoncrawl.tgz").read_bytes()[:60])
    with pytest.raises(DataError, match="commoncrawl.tgz: is damaged"):
        prepare_wmt16.main(prepare_wmt16.Flags(output_dir=tmp_path / "wmt16", archives_dir=archives))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives"]


def test_english_and_french(tmp_path):
    archives, task = tmp_path / "archives", prepare_wmt14.WMT14
    archives.mkdir()
    files: dict[str, dict[str, str]] = {name: {} for name in task.archives}
    for number, (archive, stem) in enumerate(task.training.items()):
        zipped = ".gz" if archive.endswith(".tar") else ""
        files[archive] |= {f"x/{stem}.en{zipped}": f"one {number}\n", f"x/{stem}.fr{zipped}": f"un {number}\n"}
    for archive, source, target in task.held_out.values():
        files[archive] |= {source: sgm("two"), target: sgm("deux")}
    for name, members in files.items():
        write_archive(archives / name, members)
    output = tmp_path / "wmt14"
    prepare_wmt14.main(prepare_wmt14.Flags(output_dir=output, archives_dir=archives))
    train = read_tsv(output / "train.tsv")
    assert train.sources == [f"one {number}" for number in range(5)]
    assert train.targets == [f"un {number}" for number in range(5)]
    assert read_tsv(output / "test.tsv").targets == ["deux"]
    write_archive(archives / "un.tgz", {"undoc.2000.fr-en.en": "a\nb\n", "undoc.2000.fr-en.fr": "a\n"})
    with pytest.raises(DataError, match=r"un.tgz: undoc.2000.fr-en.fr ends before line 2 of the other side"):
        prepare_wmt14.main(prepare_wmt14.Flags(output_dir=tmp_path / "other", archives_dir=archives))
    assert not (tmp_path / "other").exists()
