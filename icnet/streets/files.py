"""Drawn streets as files, in the layout of Cityscapes."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from fluid import PROCESSORS, cache, files
from fluid.errors import DataError
from fluid.text import number_of
from icnet.streets.scene import draw_street

import cv2

VERSION = 7
"""Of the drawings; another one is drawn anew."""
SIZE = (256, 512)
"""Height and width in pixels of the data set that needs no flag."""
COUNTS = {"train": 600, "val": 40}
"""Its streets."""
FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""Seed of the first street of each part, so that no part has a street of another."""
EXAMPLES = 4
"""Streets that show what infer.py does."""
CITY = "drawn"
"""Where Cityscapes has the name of a city."""


def drawn_streets(split: str) -> Path:
    """The folder of a part of the streets that need no flag, drawn when it is first asked for. Raises DataError.

    It lies in the user's cache folder.
    """
    if split not in COUNTS:
        raise DataError(f"no streets of the part {split}: `./zoo prepare icnet streets --{split} 100` draws some")
    return _drawn(f"-{split}", {split: COUNTS[split]})


def example_streets() -> list[str]:
    """Images of some streets: the first that `drawn_streets` has to evaluate on, alone unless all are there. Raises DataError."""
    folder = _folder("-val")
    if not folder.is_dir():
        folder = _drawn("-examples", {"val": EXAMPLES})
    return sorted(map(str, (folder / "leftImg8bit" / "val" / CITY).iterdir()))[:EXAMPLES]


def _folder(name: str) -> Path:
    return cache.folder() / f"streets-{VERSION}-{SIZE[1]}x{SIZE[0]}{name}"


def _drawn(name: str, counts: dict[str, int]) -> Path:
    folder = _folder(name)
    if not folder.is_dir():
        print(f"drawing {number_of(sum(counts.values()), 'street')} into {folder}", flush=True)
        write_streets(folder, SIZE, counts)
    return folder


def write_streets(folder: Path, size: tuple[int, int], counts: dict[str, int], processes: int | None = None) -> None:
    """Draw streets of `size` (height, width) into a folder that is not there yet; whole or not at all.

    `counts` says how many each part has; by default as many processes draw as there are processors, at most 32. Raises
    DataError if it cannot be written.
    """
    partial = files.partial(folder)
    tasks = [(partial, split, number, size) for split, count in counts.items() for number in range(count)]
    try:
        for split in counts:
            for kind in ("leftImg8bit", "gtFine"):
                (partial / kind / split / CITY).mkdir(parents=True)
        processes = processes or min(PROCESSORS, 32)
        if processes > 1 and len(tasks) > EXAMPLES:
            with ProcessPoolExecutor(processes, mp_context=get_context("forkserver")) as pool:
                for _ in pool.map(_write_street, tasks, chunksize=4):
                    pass
        else:
            for task in tasks:
                _write_street(task)
        partial.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return
        raise DataError(f"{folder}: the streets cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_street(task: tuple[Path, str, int, tuple[int, int]]) -> None:
    folder, split, number, (height, width) = task
    # Several processes draw; each with threads of its own they would get in each other's way.
    cv2.setNumThreads(0)
    jpeg, label = draw_street(FIRST[split] + number, height, width)
    stem = f"{CITY}_{number:06}_000000"
    (folder / "leftImg8bit" / split / CITY / f"{stem}_leftImg8bit.jpg").write_bytes(jpeg)
    # Not imwrite, which passes over a full disk.
    png = cv2.imencode(".png", label)[1].tobytes()
    (folder / "gtFine" / split / CITY / f"{stem}_gtFine_labelIds.png").write_bytes(png)
