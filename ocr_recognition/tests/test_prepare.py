"""Scripts that make words or fetch them."""

import dataclasses
import hashlib
import io
import tarfile
import zipfile

from fluid.errors import UserError
from fluid.media import read_image
from ocr_recognition import prepare_2018, prepare_benchmarks, prepare_words
from ocr_recognition.reader import open_words
from ocr_recognition.word_set import read_set

import cv2
import numpy as np
import pytest
import scipy.io


def test_words_are_written_and_drawn(tmp_path, capsys):
    config = prepare_words.Flags(
        output_dir=tmp_path / "set",
        sheet=tmp_path / "sheets" / "sheet.png",
        num_words=12,
        style="simple",
        height=32,
        num_workers=0,
    )
    prepare_words.main(config)
    words = read_set(tmp_path / "set")
    assert len(words) == 12 and words.height == 32 and words.text(0).isalnum()
    assert read_image(tmp_path / "sheets" / "sheet.png").shape == (1360, 1200, 3)
    assert "set: 12 words" in capsys.readouterr().out
    with pytest.raises(UserError, match="give --output_dir"):
        prepare_words.main(prepare_words.Flags())
    with pytest.raises(UserError, match="sheet.txt: cannot be written"):
        prepare_words.main(prepare_words.Flags(sheet=tmp_path / "sheet.txt"))


def picture(width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (20, width, 3), np.uint8)


def packed(folder, files, name="archive.zip"):
    """A zip of these contents by name."""
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in files.items():
            archive.writestr(inside, content)
    return path


def png(width, seed=0):
    return cv2.imencode(".png", picture(width, seed))[1].tobytes()


def test_the_archive_of_2018(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in (
            ("data/train.list", b"60 20 a.png 33,34\n90 20 b.png 35\n"),
            ("data/test.list", b"60 20 c.png 1,2,3\n"),
            ("data/train_images/a.png", png(60)),
            ("data/train_images/b.png", png(90)),
            ("data/test_images/c.png", png(60)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    served = tmp_path / "served.tar.gz"
    served.write_bytes(content.getvalue())
    config = prepare_2018.Flags(output_dir=tmp_path / "words", archive=tmp_path / "data.tar.gz")
    url = served.as_uri()
    with pytest.raises(UserError, match="(?s)its md5 is.*put it here"):
        prepare_2018.main(config, url=url, md5="0" * 32)
    assert not config.archive.exists() and not config.output_dir.exists()
    prepare_2018.main(config, url=url, md5=hashlib.md5(content.getvalue()).hexdigest())
    assert sorted(path.name for path in config.output_dir.iterdir()) == [
        *("test.list", "test_images", "train.list", "train_images")
    ]
    words = open_words(config.output_dir, "train")
    assert len(words) == 2 and words.texts[0] == (33, 34) and words.content(1) == png(90)
    with pytest.raises(UserError, match="exists already"):
        prepare_2018.main(config)
    config.archive.write_bytes(b"another")
    with pytest.raises(UserError, match="is not the archive of 2018"):
        prepare_2018.main(dataclasses.replace(config, output_dir=tmp_path / "other"))


def prepared(folder, benchmark, archive, **options):
    """Texts and widths of a benchmark."""
    output = folder / f"{benchmark}{len(list(folder.iterdir()))}"
    prepare_benchmarks.main(prepare_benchmarks.Flags(benchmark, archive, output_dir=output, **options))
    words = open_words(output, options.get("split", "test"))
    return words.texts, [shape[1] for shape in words.shapes]


def test_iiit5k(tmp_path):
    table = io.BytesIO()
    kinds = [("ImgName", "O"), ("GroundTruth", "O")]
    rows = np.array([("test/1_1.png", "PRIVATE"), ("test/2_1.png", "A&B")], kinds)
    scipy.io.savemat(table, {"testdata": rows})
    files = {"IIIT5K/testdata.mat": table.getvalue(), "IIIT5K/test/1_1.png": png(60), "IIIT5K/test/2_1.png": png(40)}
    archive = packed(tmp_path, files)
    assert prepared(tmp_path, "iiit5k", archive) == (["PRIVATE", "A&B"], [60, 40])
    assert prepared(tmp_path, "iiit5k", archive, only="alphanumeric") == (["PRIVATE"], [60])
    with pytest.raises(UserError, match="holds 0 files traindata.mat"):
        prepared(tmp_path, "iiit5k", archive, split="train")


def test_street_view_text(tmp_path):
    xml = """<tagset><image><imageName>img/14_03.jpg</imageName><lex>LIVING,DINER</lex><taggedRectangles>
        <taggedRectangle height="10" width="30" x="-5" y="4"><tag>LIVING</tag></taggedRectangle>
        <taggedRectangle height="8" width="20" x="60" y="0"><tag>DINER</tag></taggedRectangle>
        </taggedRectangles></image></tagset>"""
    archive = packed(tmp_path, {"svt1/test.xml": xml, "svt1/img/14_03.jpg": png(100)})
    assert prepared(tmp_path, "svt", archive) == (["LIVING", "DINER"], [25, 20])


def test_robust_reading(tmp_path):
    truth = 'word_1.png, "Tiredness"\nword_2.png, "say \\"no\\""\nword_3.png, "of"\n'
    pictures = {f"word_{number}.png": png(30 * number) for number in (1, 2, 3)}
    archive = packed(tmp_path, pictures)
    (tmp_path / "gt.txt").write_text(truth, encoding="utf-8-sig")
    texts = ["Tiredness", 'say "no"', "of"]
    assert prepared(tmp_path, "ic13", archive, ground_truth=tmp_path / "gt.txt") == (texts, [30, 60, 90])
    inside = packed(tmp_path, {**pictures, "gt.txt": truth}, "with.zip")
    assert prepared(tmp_path, "ic15", inside, only="alphanumeric3") == (["Tiredness"], [30])
    for line, message in (
        ("word_1.png Tiredness", "gt.txt:1: must be"),
        ('/word_1.png, "Tiredness"', "holds 0 files /word_1.png"),
        ('word_*.png, "Tiredness"', r"holds 0 files word_\*.png"),
    ):
        (tmp_path / "gt.txt").write_text(f"{line}\n")
        with pytest.raises(UserError, match=message):
            prepared(tmp_path, "ic13", archive, ground_truth=tmp_path / "gt.txt")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_picture_that_cannot_be_written_is_not_listed(tmp_path):
    (tmp_path / "test_images" / "00001.png").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        prepare_benchmarks.write(tmp_path, "test", iter([(picture(60), "word")]))
    assert not (tmp_path / "test.txt").exists()
