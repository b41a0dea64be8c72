"""The flags of all scripts together: ranges are declared, and the same meaning has the same name everywhere."""

import dataclasses
import importlib
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluid import config as groups_here
from fluid import optimizers
from fluid.config import Range, former_names, former_switches

import pytest
from tyro import _docstrings

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    path
    for path in sorted([*ROOT.glob("*/*.py"), *ROOT.glob("tests/*/*.py")])
    if path.parent.name != "fluid" and "\nclass Flags" in path.read_text(encoding="utf-8")
]
"""What has flags and is run."""


SCRIPTS = ("train", "eval", "infer", "export")
DISTINCT = {"batch_size", "warmup_steps", "data_dir"}
"""Former names that other scripts have for another meaning: a training batch, the warm-up of a schedule, data to read."""
GROUPS = [
    group
    for module in (groups_here, optimizers)
    for name, group in vars(module).items()
    if name.endswith("Flags") and group.__module__ == module.__name__
]


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


RECIPES = [
    ("DeepASR", "train", "with_recipe", "--recipe 2018"),
    ("icnet", "train", "with_recipe", "--recipe 2018"),
    ("image_classification", "recipes", "applied", "--model ResNet50_vd"),
    ("neural_machine_translation", "train", "with_recipe", ""),
    ("object_detection", "recipes", "applied", "--recipe 2018"),
    ("object_detection", "recipes", "applied", ""),
    ("ocr_recognition", "recipe", "with_recipe", "--recipe 2018"),
    ("ocr_recognition", "recipe", "with_recipe", "--recipe 2018 --model attention"),
]
"""Task, module and function that apply a recipe, and the flags that name it. DeepQNetwork's presets fill what is None."""


@pytest.mark.parametrize(("task", "module", "function", "words"), RECIPES)
def test_what_is_named_wins_over_a_recipe(task: str, module: str, function: str, words: str) -> None:
    """Where it is named at its default, too, and in other terms than the recipe has."""
    flags = flags_of(ROOT / task / "train.py")
    more = (lambda line: None,) if task == "image_classification" else ()

    def applied(*named: str) -> Any:
        apply = getattr(importlib.import_module(f"{task}.{module}"), function)
        return apply(groups_here.parse(flags, [*words.split(), *named]), *more)

    plain, usual = groups_here.parse(flags, words.split()), applied()
    learned = [
        item.name for item in dataclasses.fields(flags) if getattr(plain, item.name) != getattr(usual, item.name)
    ]
    assert len(learned) > 3
    for name in learned:
        default = getattr(plain, name)
        found = applied(f"--{name}", *map(str, default if isinstance(default, tuple) else [default]))
        assert getattr(found, name) == default, name
        assert name in groups_here.named(found)
    for name, other in groups_here.INSTEAD.items():
        if other in learned:
            value = "True" if name == "use_ema" else "3"
            assert getattr(applied(f"--{name}", value), other) == getattr(plain, other), (name, other)


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


def helps(config: type) -> dict[str, str]:
    """What --help says of each field."""
    return {
        item.name: _docstrings.get_field_docstring(config, item.name, ()) or "" for item in dataclasses.fields(config)
    }


def meaning(text: str) -> str:
    """What a flag is, without where its default comes from and what is the task's own about it."""
    return re.split(r"[;:.]( |$)", text)[0]


def shared() -> dict[str, str]:
    """The table of shared flags: name -> meaning, derived from the groups."""
    table: dict[str, str] = {}
    for group in GROUPS:
        for name, text in helps(group).items():
            assert table.setdefault(name, meaning(text)) == meaning(text), name
    return table


def test_the_groups_are_found() -> None:
    assert {"EngineFlags", "WeightsFlags", "OptimizerFlags", "ExportFlags", "BatchFlags"} <= {
        group.__name__ for group in GROUPS
    }
    table = shared()
    assert table["lr"] == "Learning rate" and table["test_batch_size"].startswith("Samples in a batch")
    assert all(table.values()), table


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shared_flag_means_the_same(path: Path) -> None:
    """Under the name that the groups have for it, and with their help."""
    table, own = shared(), helps(flags_of(path))
    others = {name: meaning(own[name]) for name in own.keys() & table.keys()} if path.stem in SCRIPTS else {}
    assert others == {name: table[name] for name in others}


def test_no_meaning_has_a_second_name() -> None:
    """Neither the same words under two names, nor a name that a group or a script has left."""
    names: dict[str, set[str]] = {}
    left, switches = {}, {}
    for config in [*GROUPS, *map(flags_of, MODULES)]:
        for name, text in helps(config).items():
            names.setdefault(text, set()).add(name)
        left |= former_names(config)
        switches |= former_switches(config)
    assert {text: some for text, some in names.items() if len(some) > 1} == {}
    for path in MODULES:
        own = {item.name for item in dataclasses.fields(flags_of(path))}
        again = {former: name for former, name in left.items() if former in own and name in own}
        # The batch of training is another one than the one where nothing is learned; so are learning's and random play's.
        assert again.keys() <= DISTINCT, path
        assert not own & (left.keys() | switches.keys()) - DISTINCT, path


def test_what_is_made_is_written_to_the_same_flag() -> None:
    """The folder of a data set is --output_dir of the script that makes it, and --data_dir of those that use it."""
    made = {path: helps(flags_of(path)) for path in MODULES if path.stem.startswith("prepare_")}
    assert len(made) > 15
    in_place = {path for path, texts in made.items() if "output_dir" not in texts}
    assert {f"{path.parent.name}/{path.stem}" for path in in_place} == {"icnet/prepare_cityscapes"}
    for path, texts in made.items():
        assert path in in_place or texts["output_dir"].startswith("Folder to write"), path


def test_a_left_name_still_works() -> None:
    for config in map(flags_of, MODULES):
        for former, name in former_names(config).items():
            assert former != name and name in {item.name for item in dataclasses.fields(config)}
