"""Cameras, whose pictures have no end: each is looked at as it comes, and Ctrl-C ends an infer.py in order."""

import importlib
from collections.abc import Callable
from pathlib import Path

from fluid import media

import numpy as np
import pytest

TASKS = {
    "icnet": ("streets_simple", "shares.jsonl"),
    "image_classification": ("small_net", "predictions.jsonl"),
    "object_detection": ("shapes", "detections.jsonl"),
    "ocr_recognition": ("simple", "readings.jsonl"),
}
"""Task -> a small model that comes along, and where its records are."""


def camera(lines_written: Callable[[], int]) -> type:
    """One whose third picture is never there, as Ctrl-C comes first; it sees that each was answered before the next."""

    class Camera:
        def __init__(self, number: int):
            self.seen = 0

        def grab(self) -> bool:
            assert lines_written() == self.seen
            if self.seen == 2:
                raise KeyboardInterrupt
            self.seen += 1
            return True

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.random.default_rng(self.seen).integers(0, 256, (48, 64, 3), np.uint8)

        def get(self, what: int) -> float:
            return 10.0

        def release(self) -> None: ...

    return Camera


@pytest.mark.parametrize("task", TASKS)
def test_a_camera_that_a_list_names(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = importlib.import_module(f"{task}.infer")
    model, file = TASKS[task]
    written = tmp_path / "found" / file
    (tmp_path / "list.txt").write_text("camera:0\n")

    def lines() -> int:
        return len(written.read_text(encoding="utf-8").splitlines()) if written.exists() else 0

    monkeypatch.setattr(media.cv2, "VideoCapture", camera(lines))
    flags = infer.Flags(
        images=(f"@{tmp_path / 'list.txt'}",), pretrained_model=model, engine="paddle", output_dir=written.parent
    )
    if task == "object_detection":
        flags.write = ("json",)
    records = infer.main(flags)
    assert [record["image"] for record in records] == ["camera:0#0", "camera:0#1"] and lines() == 2
