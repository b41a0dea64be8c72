"""Pictures read ahead: in order, whatever the batch and the workers; what cannot be read is told."""

from functools import partial

from fluid.errors import DataError
from fluid.picture_files import prepared
from fluid.tests.drawn import encode, picture

import cv2
import numpy as np
import pytest

SMALL = partial(cv2.resize, dsize=(6, 5))


@pytest.fixture
def names(tmp_path) -> list[str]:
    """Seven files, two of them broken."""
    for number in range(7):
        content = b"" if number == 2 else encode(picture(20, 30, number))
        (tmp_path / f"{number}.png").write_bytes(content[:200] if number == 4 else content)
    return [str(tmp_path / f"{number}.png") for number in range(7)]


@pytest.mark.parametrize("batch_size, num_workers", [(1, 0), (3, 0), (3, 2)])
def test_pictures_come_in_order_and_broken_ones_are_told(names, batch_size, num_workers):
    told: list[DataError] = []
    common = {"batch_size": batch_size, "num_workers": num_workers, "unreadable": told.append}
    found = list(prepared(names, SMALL, **common))
    assert [(number, place) for number, place, _ in found] == [(n, names[n]) for n in (0, 1, 3, 5, 6)]
    for number, _, array in found:
        np.testing.assert_array_equal(array, SMALL(picture(20, 30, number)))
    assert [str(error).split(":")[0] for error in told] == [names[2], names[4]]


def test_videos_are_read_frame_by_frame_between_the_files(names, tmp_path):
    film = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(film, cv2.VideoWriter.fourcc(*"MJPG"), 5, (32, 24))
    for number in range(4):
        writer.write(np.full((24, 32, 3), 60 * number, np.uint8))
    writer.release()
    told: list[DataError] = []
    found = list(prepared([names[0], film, names[1]], SMALL, step=3, batch_size=2, unreadable=told.append))
    assert [(number, place) for number, place, _ in found] == [
        (0, names[0]),
        (1, f"{film}#0"),
        (1, f"{film}#3"),
        (2, names[1]),
    ]
    assert not told and abs(int(found[2][2].mean()) - 180) < 4
