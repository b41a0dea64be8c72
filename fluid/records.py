"""What infer.py and eval.py leave behind: JSON lines as they come, a result, the folder for them."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fluid import files
from fluid.errors import UserError
from fluid.run import console
from fluid.text import number_of

Write = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def json_lines(path: Path | None) -> Iterator[Write]:
    """A function that adds a record to a file of JSON lines, where it can be read at once; None writes nothing.

    Raises UserError if the file cannot be written.
    """
    if path is None:
        yield lambda record: None
        return
    make_folder(path.parent)
    with writing(path):
        # Names of files that are no UTF-8 come with surrogates, which JSON writes by their numbers.
        file = open(path, "w", encoding="utf-8", errors="backslashreplace")

    def write(record: Mapping[str, Any]) -> None:
        with writing(path):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()

    try:
        yield write
    finally:
        with writing(path):
            # What could not be written is tried once more.
            file.close()


def say_measured(samples: int, noun: str, began: float) -> float:
    """Print how many samples an evaluation has measured and in which time, compiling included, and return the seconds.

    `began` is the `time.perf_counter` of its start.
    """
    seconds = time.perf_counter() - began
    console.print(f"{number_of(samples, noun)}, {seconds:.1f} s")
    return seconds


def write_result(
    folder: Path,
    result: Mapping[str, Any],
    *,
    weights: str,
    data: str,
    samples: int,
    seconds: float,
    pictures: Iterable[Path] = (),
) -> None:
    """Write FOLDER/result.json, and name it and its pictures: what an evaluation found of which weights, on how many samples,
    and the seconds that `say_measured` told.

    It is there whole or not at all. Raises UserError if it cannot be written.
    """
    path = folder / "result.json"
    measured = {"weights": weights, "data": data, "samples": samples, "seconds": round(seconds, 3)}
    text = json.dumps({**measured, **result}, indent=1, ensure_ascii=False)
    with files.whole(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    say_written(folder, [path.name, *(picture.name for picture in pictures)])


def say_written(folder: Path, names: Iterable[str]) -> None:
    """Print where results are."""
    console.print(f"written to {folder}: {', '.join(names)}")


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there. Raises UserError if it cannot be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def refuse_unwritable(flags: Any) -> None:
    """Raise UserError if what --output_dir and its kin name cannot be written: before the work, not after it."""
    for name in ("output_dir", "label_dir", "attention_dir", "output_file"):
        path: Path | None = getattr(flags, name, None)
        if path is not None:
            with writing(path):
                if name == "output_file" and path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                files.check_writable(path.parent if name == "output_file" else path)


def set_aside(folder: Path, names: Iterable[str]) -> Path:
    """The folder for results of these names, or patterns of names; those of an earlier call are moved to FOLDER/before,
    before.1, ..., and that is said.

    Raises UserError if it cannot be written.
    """
    make_folder(folder)
    earlier = [path for name in names for path in folder.glob(name) if path.is_file()]
    if earlier:
        target = files.free_name(folder / "before")
        with writing(target):
            target.mkdir()
            for path in earlier:
                path.rename(target / path.name)
        console.print(f"the results of an earlier call are now in {target}")
    return folder


def refuse_existing(folder: Path) -> None:
    """Raise UserError if the folder that a script is to write is there already, or could not be made: before the work."""
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another --output_dir, or remove it")
    with writing(folder):
        files.check_writable(folder)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError about this path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
