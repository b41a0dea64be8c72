"""Videos: the frames that are added, written as they come, at the speed that was asked for, whole or not at all."""

import gc
import io
import tracemalloc
from itertools import pairwise
from pathlib import Path

from DeepQNetwork.video import Recorder, recording
from fluid.errors import UserError

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

SHAPE = (210, 160, 3)


def screens(count: int, colours: int = 5, seed: int = 0) -> list[np.ndarray]:
    """A game's: a block that moves on every other one, before still bands of all other colours."""
    palette = np.random.default_rng(seed).integers(0, 256, (colours, 3), np.uint8)
    bands = palette[np.arange(SHAPE[1]) * (colours - 1) // SHAPE[1]]
    found = []
    for number in range(count):
        screen = np.broadcast_to(bands, SHAPE).copy()
        move = number // 2
        screen[move % 200 : move % 200 + 10, move % 150 : move % 150 + 8] = palette[-1]
        found.append(screen)
    return found


def record(path: Path, frames: list[np.ndarray], rate: float = 15) -> None:
    with recording(path, rate, rate) as recorder:
        recorder.add(frames)
    assert recorder.frames == len(frames)


def shown(path: Path) -> list[tuple[np.ndarray, int]]:
    """Pictures of a GIF and how many milliseconds each of them stands."""
    with Image.open(path) as gif:
        return [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]


@pytest.mark.parametrize("colours", [5, 40, 100])
def test_a_gif_is_what_pillow_writes_of_all_frames_at_once(tmp_path, colours):
    frames = screens(60, colours)
    images = [Image.fromarray(frame).quantize(64, dither=Image.Dither.NONE) for frame in frames]
    ends = [round(100 * number / 15) for number in range(len(frames) + 1)]
    durations = [10 * (end - start) for start, end in pairwise(ends)]
    expected = io.BytesIO()
    images[0].save(expected, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    record(tmp_path / "game.gif", frames)
    assert (tmp_path / "game.gif").read_bytes() == expected.getvalue()
    pictures = shown(tmp_path / "game.gif")
    assert len(pictures) == 30 and sum(duration for _, duration in pictures) == 4000
    for (picture, _), frame in zip(pictures, frames[::2], strict=True):
        assert colours > 64 or (picture == frame).all()


def test_a_picture_stands_longer_than_a_gif_can_count(tmp_path):
    before, after = screens(3)[::2]
    record(tmp_path / "game.gif", [before] * 150 + [after], rate=0.1)
    pictures = shown(tmp_path / "game.gif")
    assert sum(duration for _, duration in pictures) == 1_510_000
    for picture, _ in pictures[:-1]:
        np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(pictures[-1][0], after)


def test_an_mp4_has_every_frame(tmp_path):
    frames = screens(40)
    record(tmp_path / "game.mp4", frames, rate=30)
    video = cv2.VideoCapture(str(tmp_path / "game.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 30
    for frame in frames:
        read, picture = video.read()
        # The encoder loses something, most of it at the edges of what moves.
        assert read and np.abs(picture[..., ::-1].astype(int) - frame).mean() < 5
    assert not video.read()[0]


@pytest.mark.parametrize(
    ("screens_per_second", "frames"), [(60, 15), (50, 18), (15, 60), (30, 30), (12.5, 72), (5, 180)]
)
def test_a_video_runs_at_the_speed_of_the_game(screens_per_second, frames):
    """60 screens at 15 frames a second: each frame is the screen of its time, to the end of the last screen."""
    added = []
    recorder = Recorder(added.append, 15, screens_per_second)
    for first in range(0, 60, 4):
        recorder.add(list(range(first, first + 4)))
    assert added == [int(number / 15 * screens_per_second + 1e-9) for number in range(frames)]
    assert recorder.frames == frames


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_few_frames_are_in_memory_however_long_the_game(tmp_path, suffix):
    """400 screens would be 40 MB, and as many of Pillow's pictures."""
    before = pictures_in_memory()
    tracemalloc.start()
    try:
        with recording(tmp_path / f"game.{suffix}", 15, 15) as recorder:
            for number in range(400):
                recorder.add(screens(1, seed=number))
            _, most = tracemalloc.get_traced_memory()
            kept = pictures_in_memory() - before
    finally:
        tracemalloc.stop()
    assert recorder.frames == 400 and most < 4e6 and kept < 10


def pictures_in_memory() -> int:
    return sum(isinstance(one, Image.Image) for one in gc.get_objects())


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_nothing_half_written_is_left(tmp_path, suffix):
    path = tmp_path / "new" / f"game.{suffix}"
    with pytest.raises(KeyboardInterrupt), recording(path, 15, 15) as recorder:
        recorder.add(screens(20))
        assert not path.exists()
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    record(path, screens(20))
    assert list(path.parent.iterdir()) == [path]


def test_videos_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="as .gif or .mp4"), recording(tmp_path / "game.avi", 15, 15):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="game.gif: cannot be written"):
        record(tmp_path / "file" / "game.gif", screens(2))
    with recording(None, 15, 15) as recorder:
        assert recorder is None
