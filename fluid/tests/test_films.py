"""Videos: every frame that was added, whole or not at all."""

from fluid.errors import UserError
from fluid.films import mp4
from fluid.tests.drawn import picture

import cv2
import numpy as np
import pytest

FRAMES = [picture(48, 64, number) for number in range(5)]


def test_every_frame_is_there_in_its_colours(tmp_path):
    path = tmp_path / "new" / "film.mp4"
    with mp4(path, 12) as add:
        for frame in FRAMES:
            add(frame)
            assert not path.exists()
    assert list(path.parent.iterdir()) == [path]
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == 12
    for frame in FRAMES:
        read, found = video.read()
        difference = found[..., ::-1].astype(float) - frame
        assert read and np.abs(difference.mean(axis=(0, 1))).max() < 5
    assert not video.read()[0]


def test_of_a_block_that_fails_nothing_is_left(tmp_path):
    with pytest.raises(KeyboardInterrupt), mp4(tmp_path / "film.mp4", 12) as add:
        add(FRAMES[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_videos_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="film.mp4: cannot be written"), mp4(tmp_path / "file" / "film.mp4", 12) as add:
        add(FRAMES[0])
    # What OpenCV leaves on a disk that is full.
    monkeypatch.setattr(cv2.VideoWriter, "release", lambda writer: None)
    with pytest.raises(UserError, match="film.mp4: cannot be written .* space"), mp4(tmp_path / "film.mp4", 12) as add:
        add(FRAMES[0])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
