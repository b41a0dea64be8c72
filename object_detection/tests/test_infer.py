"""infer.py on what people have: photographs, films, damaged files, wishes that contradict."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from fluid.errors import DataError, UserError
from object_detection import boxes as box
from object_detection import infer

import cv2
import numpy as np
import pytest

PHOTOGRAPHS = infer.PHOTOGRAPHS
CAT = str(PHOTOGRAPHS / "chelsea.jpg")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*images: str, **flags: Any) -> list[dict[str, Any]]:
        return infer.main(infer.Flags(images=images, engine="paddle", **flags))

    return call


def test_right_boxes_in_pixels_of_the_photographs(run: Any, tmp_path: Path) -> None:
    """Of the ones that come along, and at another size the same ones."""
    records = {Path(record["image"]).stem: record for record in run()}
    (person,) = records["astronaut"]["detections"]
    (cat,) = records["chelsea"]["detections"]
    assert (person["name"], cat["name"]) == ("person", "cat")
    np.testing.assert_allclose(person["box"], [20, 8, 365, 512], atol=20)
    np.testing.assert_allclose(cat["box"], [0, 6, 420, 300], atol=20)
    lines = Path("detections/detections.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(records.values())
    assert sorted(os.listdir("detections/pictures")) == ["astronaut.jpg", "chelsea.jpg"]

    large = cv2.resize(cv2.imread(CAT), (1353, 900))
    cv2.imwrite("large.png", large)
    ((enlarged,),) = (record["detections"] for record in run("large.png"))
    np.testing.assert_allclose(np.array(enlarged["box"]) / 3, cat["box"], atol=3)


def test_what_is_asked_for(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ((record,), (nothing,)) = run(CAT, conf=0.02, max_det=1), run(CAT, classes=("dog", "sofa"), write=("yolo",))
    assert len(record["detections"]) == 1
    assert nothing["detections"] == []
    assert Path("detections/yolo/labels/chelsea.txt").read_text() == ""
    assert f"{CAT}: nothing" in capsys.readouterr().out
    (many,) = run(CAT, conf=0.01, iou=1.0)
    assert len(many["detections"]) > 6
    scores = [item["score"] for item in many["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert " x cat" in capsys.readouterr().out


def test_a_film_and_a_list(run: Any) -> None:
    video = cv2.VideoWriter("film.avi", cv2.VideoWriter.fourcc(*"MJPG"), 20, (450, 300))
    for shift in range(4):
        video.write(np.roll(cv2.imread(CAT), 10 * shift, axis=1)[:300, :450])
    video.release()
    Path("list.txt").write_text(f"film.avi\n{CAT}\n")
    records = run("@list.txt", frame_step=2)
    assert [record["image"] for record in records] == ["film.avi#0", "film.avi#2", CAT]
    assert all(record["detections"][0]["name"] == "cat" for record in records)
    assert sorted(os.listdir("detections/pictures")) == ["chelsea.jpg", "film.mp4"]


def test_tiles_find_what_is_small(run: Any) -> None:
    """A cat on a hundredth of a large picture."""
    wide = np.full((1500, 2250, 3), 127, np.uint8)
    wide[650:800, 1100:1325] = cv2.resize(cv2.imread(CAT), (225, 150), interpolation=cv2.INTER_AREA)
    cv2.imwrite("wide.jpg", wide)
    assert not [item for item in run("wide.jpg")[0]["detections"] if item["name"] == "cat"]
    (found,) = run("wide.jpg", tile_size=1000, tile_overlap=0.3)
    cats = [item["box"] for item in found["detections"] if item["name"] == "cat"]
    assert len(cats) == 1
    assert box.ious(np.array(cats), np.array([[1100, 650, 1325, 800]]))[0, 0] > 0.5


def test_one_damaged_file_does_not_hold_up_the_others(run: Any) -> None:
    Path("bad.jpg").write_bytes(b"no picture")
    cv2.imwrite("tiny.png", np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(DataError, match="bad.jpg: not an image"):
        run("bad.jpg", "tiny.png", CAT)
    lines = Path("detections/detections.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["tiny.png", CAT]


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"classes": ("cta",)}, "--classes cta: no such class. Did you mean cat?"),
        ({"classes": ("cat", CAT)}, "no such class. Name pictures before --classes. They are"),
        ({"tile_size": 5}, "--tile_size 5: squares have at least 32 pixels"),
        ({"feed": Path("in.npz")}, "--feed and --fetch go together"),
    ],
)
def test_wishes_that_cannot_be_met(run: Any, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", "\\?")):
        run(CAT, **flags)
    assert not Path("detections").exists()


def test_a_folder_without_pictures_or_permission(run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image or video in this folder"):
        run("empty")
    Path("detections").write_text("")
    with pytest.raises(UserError, match="detections: cannot be written"):
        run(CAT)
    assert stat.S_ISREG(os.stat("detections").st_mode)
