"""Videos written frame by frame."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fluid import files
from fluid.errors import UserError

import cv2
import numpy as np

Add = Callable[[np.ndarray], None]
"""Takes the next frame, [H, W, 3] uint8 RGB, of the size of all others."""


@contextlib.contextmanager
def mp4(path: Path, frames_per_second: float) -> Iterator[Add]:
    """What takes the frames of an .mp4, which is there after the block; of a block that fails nothing is left.

    Raises UserError if it cannot be written.
    """
    with files.whole(path, suffix=".mp4") as unfinished:
        writer = cv2.VideoWriter()

        def add(frame: np.ndarray) -> None:
            codec, size = cv2.VideoWriter.fourcc(*"mp4v"), frame.shape[1::-1]
            if not writer.isOpened() and not writer.open(str(unfinished), codec, frames_per_second, size):
                raise UserError(f"{path}: cannot be written as a video")
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

        try:
            yield add
        finally:
            writer.release()
        # OpenCV passes over a full disk, but the end, without which nobody can read a video, comes last.
        if not cv2.VideoCapture(str(unfinished)).isOpened():
            raise OSError("OpenCV wrote nothing that it can read; is there no space left?")
