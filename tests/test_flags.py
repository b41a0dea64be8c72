"""The flags of all scripts together: ranges are declared."""

import dataclasses
import importlib
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

from fluid.config import Range

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    path
    for path in sorted([*ROOT.glob("*/*.py"), *ROOT.glob("tests/*/*.py")])
    if path.parent.name != "fluid" and "\nclass Flags" in path.read_text(encoding="utf-8")
]
"""What has flags and is run."""


def flags_of(path: Path) -> type:
    """The dataclass of a script's flags."""
    folder = path.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder.parent), *sys.path])
        return importlib.import_module(f"{folder.name}.{path.stem}").Flags


def numbers(kind: object) -> Iterator[tuple[object, ...]]:
    """What is declared of each number in the type of a field."""
    if typing.get_origin(kind) is typing.Annotated:
        inner, *metadata = typing.get_args(kind)
        found = list(numbers(inner))
        yield from [tuple(metadata)] if found == [()] else found
    elif kind in (int, float):
        yield ()
    else:
        for part in typing.get_args(kind):
            yield from numbers(part)


def test_every_script_is_seen() -> None:
    assert {"train", "eval", "infer", "export"} <= {path.stem for path in MODULES}
    assert list(numbers(tuple[typing.Annotated[int, Range(1)], float])) == [(Range(1),), ()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_number_declares_its_range(path: Path) -> None:
    kinds = typing.get_type_hints(flags_of(path), include_extras=True)
    without = [
        item.name
        for item in dataclasses.fields(flags_of(path))
        if any(not any(isinstance(part, Range) for part in parts) for parts in numbers(kinds[item.name]))
    ]
    assert without == []
