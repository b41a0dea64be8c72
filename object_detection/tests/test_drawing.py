"""What people see of detections."""

from object_detection.drawing import SMALLEST, color_of, draw, scale_of
from object_detection.found import Found

import numpy as np
import pytest

GREY = 128


def found(label: int, box: tuple[float, float, float, float], score: float = 0.9, name: str = "tree") -> Found:
    return Found(label, name, score, box)


def has_color(region: np.ndarray, label: int) -> bool:
    return bool((region == color_of(label)).all(axis=-1).any())


def test_classes_have_colours_of_their_own() -> None:
    colors = [color_of(number) for number in range(24)]
    assert colors == [color_of(number) for number in range(24)]
    for number, color in enumerate(colors):
        assert all(np.abs(np.subtract(color, other)).sum() > 40 for other in colors[:number])


@pytest.mark.parametrize("shape", [(1, 1), (8, 30), (64, 64), (300, 451), (60, 900), (900, 60), (2000, 3000)])
def test_every_size_is_drawn_on(shape: tuple[int, int]) -> None:
    height, width = shape
    picture = np.full((height, width, 3), GREY, np.uint8)
    drawn = draw(picture, [found(3, (width * 0.2, height * 0.5, width * 0.9, height * 1.0))])
    assert (picture == GREY).all()
    assert max(drawn.shape[:2]) == max(SMALLEST, *shape)
    scale = scale_of(height, width)
    assert abs(drawn.shape[0] - height * scale) <= 1 and abs(drawn.shape[1] - width * scale) <= 1
    edge = round(width * 0.2 * scale)
    assert has_color(drawn[:, max(0, edge - 1) : edge + 3], 3)


def test_nothing_found_is_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (700, 700, 3)).astype(np.uint8)
    np.testing.assert_array_equal(draw(picture, []), picture)


def test_labels_lie_inside_and_do_not_hide_one_another() -> None:
    """The label of the better one of two equal boxes lies in its upper edge, whichever comes first."""
    picture = np.full((700, 700, 3), GREY, np.uint8)
    boxes = [(100.0, 0.0, 300.0, 200.0)] * 2
    better, worse = found(0, boxes[0], 0.9), found(5, boxes[1], 0.4)
    both = draw(picture, [better, worse])
    np.testing.assert_array_equal(both, draw(picture, [worse, better]))
    alone = draw(picture, [better])
    np.testing.assert_array_equal(both[:150], alone[:150])
    assert has_color(both, 5)


def test_a_crowd_stays_visible() -> None:
    """Of sixty small boxes most of the inside is left to be seen."""
    picture = np.full((800, 800, 3), GREY, np.uint8)
    rng = np.random.default_rng(0)
    corners = [(90.0 * (k % 8) + 20, 90.0 * (k // 8) + 20) for k in range(60)]
    crowd = [found(0, (x, y, x + 40, y + 40), float(rng.uniform(0.3, 1))) for x, y in corners]
    drawn = draw(picture, crowd)
    inside = np.concatenate(
        [drawn[int(y) + 6 : int(y) + 34, int(x) + 6 : int(x) + 34].reshape(-1, 3) for x, y in corners]
    )
    assert (inside == GREY).all(axis=1).mean() > 0.6


def test_a_name_that_no_font_has_is_told_by_its_number() -> None:
    picture = np.full((700, 700, 3), GREY, np.uint8)
    box = (100.0, 100.0, 400.0, 400.0)
    # Nobody's letter: from the part of Unicode that is left to private use.
    drawn = draw(picture, [found(2, box, name="\U000f1234")])
    np.testing.assert_array_equal(drawn, draw(picture, [found(2, box, name="class 2")]))
    assert (drawn != draw(picture, [found(2, box, name="été")])).any()
