"""Words in a larger picture: their quadrilaterals made upright, and files that name them."""

from fluid.errors import DataError
from ocr_recognition.boxes import read_boxes, rectify, refuse_outside
from ocr_recognition.recognize import Try, padded, tries

import cv2
import numpy as np
import pytest


def test_a_word_seen_askew_is_made_upright() -> None:
    rng = np.random.default_rng(0)
    word = cv2.GaussianBlur(rng.integers(0, 256, (40, 120, 3), np.uint8), (0, 0), 3)
    corners = np.array([[60.0, 40.0], [182.0, 70.0], [172.0, 110.0], [50.0, 80.0]])
    upright = np.array([[0, 0], [120, 0], [120, 40], [0, 40]], np.float32)
    matrix = cv2.getPerspectiveTransform(upright, corners.astype(np.float32))
    scene = cv2.warpPerspective(word, matrix, (240, 160))
    found = rectify(scene, corners)
    assert abs(found.shape[0] - 40) <= 2 and abs(found.shape[1] - 125) <= 2
    back = cv2.resize(found, (120, 40)).astype(float)
    assert np.abs(back - word)[4:-4, 4:-4].mean() < 6


def test_boxes_of_a_file(tmp_path) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text("0,0,10,0,10,5,0,5,a word, with a comma\n\n1,1,2.5,1,2.5,3,1,3\n")
    boxes = read_boxes(path)
    assert [box.tolist() for box in boxes] == [[[0, 0], [10, 0], [10, 5], [0, 5]], [[1, 1], [2.5, 1], [2.5, 3], [1, 3]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n", ":1: must be"),
        ("\n0,0,10,0,10,5,0,x\n", ":2: must be"),
        ("0,0,0,0,0,0,0,0\n", "not a pixel"),
        ("0,0,0,5,10,5,10,0\n", ":1: the corners must go clockwise"),
        ("0,0,10,5,10,0,0,5\n", ":1: the corners must go clockwise"),
        ("0,0,10,0,20,0,30,0\n", ":1: the corners must go clockwise"),
        ("\n", "no box"),
    ],
)
def test_a_bad_file_is_one_message(tmp_path, content: str, message: str) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_boxes(path)


def test_a_box_outside_of_the_picture_is_named(tmp_path) -> None:
    inside = np.array([[-5.0, -5.0], [3, -5], [3, 4], [-5, 4]])
    refuse_outside(tmp_path, [inside], (20, 30, 3))
    for move in ((-9, 0), (0, -9), (35, 0), (0, 25)):
        with pytest.raises(DataError, match="box 2 lies outside of the picture, which is 30 x 20 pixels"):
            refuse_outside(tmp_path, [inside, inside + move], (20, 30, 3))
    for wide, high in ((9e9, 1), (1, 9e9), (1e300, 1)):
        with pytest.raises(DataError, match="box 1 is far larger than the picture, which is 30 x 20 pixels"):
            refuse_outside(tmp_path, [inside * (wide, high)], (20, 30, 3))


def test_tries_turn_and_invert() -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert Try(90)(picture).tolist() == [[2, 5], [1, 4], [0, 3]]
    assert Try(0, inverted=True)(picture).tolist() == (255 - picture).tolist()
    assert len(tries(inverted=True, rotated=True)) == 6 and tries(inverted=False, rotated=False) == [Try()]


def test_words_are_padded_to_few_shapes() -> None:
    rows = [np.full((16, width), 200, np.uint8) for width in (30, 70)]
    feed = padded(rows, 3)
    assert feed["pixel"].shape == (3, 1, 16, 128) and feed["width"].tolist() == [30, 70, 70]
    assert (feed["pixel"][0, 0, :, :30] == 72.5).all() and not feed["pixel"][0, 0, :, 30:].any()
    np.testing.assert_array_equal(feed["pixel"][1], feed["pixel"][2])
