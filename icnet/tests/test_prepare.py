"""Cityscapes' polygons and ids to trainIds and lists."""

import json
from pathlib import Path

from fluid.errors import DataError
from icnet import prepare_cityscapes
from icnet.reader import open_pairs, read_pair

import numpy as np
import pytest
from PIL import Image


def place(folder: Path, stem: str, kind: str) -> Path:
    """Of a file of the training part."""
    path = folder / "gtFine" / "train" / "bonn" / f"bonn_{stem}_gtFine_{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def polygons(*objects: tuple[str, list[tuple[int, int]]]) -> str:
    """The content of a file of polygons."""
    listed = [{"label": label, "polygon": points} for label, points in objects]
    return json.dumps({"imgHeight": 8, "imgWidth": 10, "objects": listed})


def square(left: int, top: int, right: int, bottom: int) -> list[tuple[int, int]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def test_polygons_and_ids_become_train_ids(tmp_path: Path) -> None:
    drawn = polygons(
        ("road", square(0, 4, 9, 7)), ("cargroup", square(2, 3, 5, 6)), ("static", square(0, 0, 1, 1)),
        ("license plate", square(3, 5, 4, 5)), ("polegroup", square(8, 0, 9, 2)),
    )  # fmt: skip
    place(tmp_path, "a", "polygons.json").write_text(drawn)
    Image.fromarray(np.full((8, 10), 26, np.uint8)).save(place(tmp_path, "b", "labelIds.png"))
    images = tmp_path / "leftImg8bit" / "train" / "bonn"
    images.mkdir(parents=True)
    for stem in "ab":
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(images / f"bonn_{stem}_leftImg8bit.png")
    flags = prepare_cityscapes.Flags(tmp_path, num_workers=1)
    assert prepare_cityscapes.main(flags) == 2
    pairs = open_pairs(tmp_path, "train")
    label = read_pair(pairs, 0)[1]
    assert label[7, 0] == 0 and label[4, 2] == 13 and label[5, 3] == 255 and label[0, 0] == label[1, 8] == 255
    assert label[3, 7] == 255 and (read_pair(pairs, 1)[1] == 13).all()
    assert (tmp_path / "train.list").read_text().count("\n") == 2 and not (tmp_path / "val.list").exists()
    assert prepare_cityscapes.main(flags) == 0


def test_an_interruption_leaves_no_half_label_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start would take it for a whole one."""

    def interrupted(image: Image.Image, file: Path, *rest: object) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    source = place(tmp_path, "a", "polygons.json")
    source.write_text(polygons(("road", square(0, 4, 9, 7))))
    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_cityscapes.main(prepare_cityscapes.Flags(tmp_path, num_workers=1))
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (polygons(("unicorn", square(0, 0, 1, 1))), "'unicorn' is no label of Cityscapes"),
        ("{}", "not a file of Cityscapes' polygons"),
        ("no JSON", "not JSON"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, message: str) -> None:
    place(tmp_path, "a", "polygons.json").write_text(content)
    with pytest.raises(DataError, match=message):
        prepare_cityscapes.main(prepare_cityscapes.Flags(tmp_path, num_workers=1))


def test_nothing_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder gtFine"):
        prepare_cityscapes.main(prepare_cityscapes.Flags(tmp_path))
    (tmp_path / "gtFine").mkdir()
    with pytest.raises(DataError, match="neither"):
        prepare_cityscapes.main(prepare_cityscapes.Flags(tmp_path))
