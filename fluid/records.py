"""What infer.py and eval.py leave behind: JSON lines as they come, a result, the folder for them."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fluid.errors import UserError

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


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write FOLDER/result.json, what an evaluation found. Raises UserError if it cannot be written."""
    path = make_folder(folder) / "result.json"
    with writing(path):
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there. Raises UserError if it cannot be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError about this path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
