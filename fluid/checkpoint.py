"""Checkpoints: safetensors and JSON in one folder that appears whole or not at all.

    OUTPUT/checkpoints/step_00000200/state.safetensors     every array of the engine's state
                                     checkpoint.json       step, epoch, metrics, configuration, sha256 of the arrays
    OUTPUT/best.json                                       names the best evaluation so far
    OUTPUT/best -> checkpoints/step_00000150               the same as a link, where links work
    OUTPUT/set_aside/after_step_00000100/                  what a run had written beyond the step it went back to

A checkpoint is written to a temporary folder, flushed to the disk and renamed, so the process can be killed at any
instant; its arrays are written once and never again, what it says can be completed. Nothing in it depends on the engine
that wrote it, and reading one executes nothing.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from fluid.errors import CheckpointError
from fluid.files import free_name, is_alive

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT = 1
STATE_FILE = "state.safetensors"
META_FILE = "checkpoint.json"
BEST_FILE = "best.json"
BEST_LINK = "best"
SET_ASIDE = "set_aside"
_FOLDER = re.compile(r"step_(\d+)")
_LEFTOVER = re.compile(r"\.(?:partial|replaced)-(\d+)")


@dataclass
class Meta:
    """What a checkpoint says beside its arrays."""

    task: str
    step: int
    epoch: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    """Deciding evaluations since the best one."""
    due: list[str] = field(default_factory=list)
    """Evaluations of this step that are not done: the checkpoint is written before them."""
    metrics: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    """Flags that were named anew when the run went on: `flag`, `before`, `after`, and the `step` from which it holds."""
    data: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the data by part."""
    position: dict[str, int] = field(default_factory=dict)
    """How the input is divided into batches, and since when."""
    rate: float | None = None
    """Learning rate of the next update."""
    programs: str | None = None
    """Folder of the Programs from files that the run was trained with."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What only the task understands, such as class names and preprocessing."""


@dataclass
class Resumed:
    """A checkpoint that is being continued."""

    folder: Path
    state: dict[str, np.ndarray]
    meta: Meta


def save(output_dir: Path, state: Mapping[str, np.ndarray], meta: Meta, *, keep: int = 3, best: bool = False) -> Path:
    """Write the checkpoint of `meta.step`, call it the best if asked, and delete all but the newest `keep` and the best.

    Raises CheckpointError if it cannot be written (no space, no permission) or if that step is there already; older
    checkpoints are then untouched.
    """
    root = Path(output_dir) / "checkpoints"
    final, partial = root / f"step_{meta.step:08d}", root / f".partial-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        recover(root)
        if final.exists():
            raise CheckpointError(f"{final} exists already, and is not overwritten; choose another --output_dir")
        partial.mkdir()
        save_file({name: np.require(array, requirements="C") for name, array in state.items()}, partial / STATE_FILE)
        _flush(partial / STATE_FILE)
        _write_meta(partial, meta, _sha256(partial / STATE_FILE))
        # safetensors writes for the owner alone, whatever the umask.
        shutil.copymode(partial / META_FILE, partial / STATE_FILE)
        _flush(partial)
        partial.rename(final)
        _flush(root)
        if best:
            name_best(output_dir, meta)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {error}. Free some space or choose another --output_dir; "
            f"earlier checkpoints are untouched"
        ) from error
    _delete_old(Path(output_dir), keep)
    return final


def complete(folder: Path, meta: Meta, *, best: bool = False) -> None:
    """Replace what a checkpoint says about itself, its arrays untouched; with `best` it becomes the best of its run.

    Raises CheckpointError if that cannot be written; the checkpoint is then as it was.
    """
    try:
        _write_meta(folder, meta, json.loads((folder / META_FILE).read_text(encoding="utf-8"))["sha256"])
        if best:
            name_best(folder.parent.parent, meta)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"cannot write {folder / META_FILE}: {error}; the checkpoint itself is untouched"
        ) from error


def load(path: Path, *, task: str | None = None) -> tuple[dict[str, np.ndarray], Meta]:
    """Read a checkpoint: its arrays and what it says about itself.

    `path` is a checkpoint folder, or a run's output folder, which stands for its newest checkpoint. Raises
    CheckpointError if it is missing, damaged, of an unknown format, or of another task than `task`.
    """
    folder = find_newest(path)
    meta, expected = _read_meta(folder)
    if task is not None and meta.task != task:
        raise CheckpointError(f"{folder} belongs to the task {meta.task}, not to {task}")
    try:
        if _sha256(folder / STATE_FILE) != expected:
            raise CheckpointError(
                f"{folder / STATE_FILE} is damaged (its sha256 has changed); take an earlier checkpoint"
            )
        return load_file(folder / STATE_FILE), meta
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / STATE_FILE} cannot be read ({error}); take an earlier checkpoint") from error


def read_meta(path: Path) -> Meta:
    """What the checkpoint that `path` stands for says about itself; raises CheckpointError as `load` does."""
    return _read_meta(find_newest(path))[0]


def find_newest(path: Path) -> Path:
    """The checkpoint folder that `path` stands for, a run's folder for its newest: what training continues.

    Raises CheckpointError if there is none.
    """
    path = Path(path)
    if (path / META_FILE).is_file():
        return path.resolve()
    if path.name == BEST_LINK and not path.exists() and (path.parent / BEST_FILE).is_file():
        return find_best(path.parent)
    for root in (path / "checkpoints", path):
        whole = checkpoints_in(root)
        if whole:
            return whole[-1].resolve()
    raise CheckpointError(
        f"no checkpoint at {path}: expected a folder with {META_FILE}, or a run's folder with checkpoints/step_*"
    )


def find_best(path: Path) -> Path:
    """The checkpoint folder that `path` stands for, a run's folder for its best, or its newest if it has none.

    Raises CheckpointError if there is none.
    """
    path = Path(path)
    if (path / META_FILE).is_file():
        return path.resolve()
    return _named_best(path) or find_newest(path)


def is_checkpoint(path: Path) -> bool:
    """Whether `find_newest` would find something."""
    try:
        find_newest(path)
    except CheckpointError:
        return False
    return True


def checkpoints_in(root: Path) -> list[Path]:
    """The whole checkpoints in a run's folder of them, oldest first. By number: as text, step 1000 would come before 900."""
    found = {int(match[1]): path for path in root.glob("step_*") if (match := _FOLDER.fullmatch(path.name))}
    found = {step: path for step, path in found.items() if (path / META_FILE).is_file()}
    for path in _leftovers(root):
        if _is_whole(path):
            found.setdefault(_read_meta(path)[0].step, path)
    return [path for _, path in sorted(found.items())]


def run_folder(folder: Path) -> Path | None:
    """The output folder of the run that a checkpoint folder belongs to, if it lies in one."""
    parent = Path(folder).resolve().parent
    return parent.parent if parent.name == "checkpoints" else None


def name_best(output_dir: Path, meta: Meta | None) -> None:
    """Let best.json, and the link `best` where links work, name the checkpoint of `meta.step`; with None, none."""
    output_dir = Path(output_dir)
    file, link = output_dir / BEST_FILE, output_dir / BEST_LINK
    if meta is None:
        file.unlink(missing_ok=True)
    else:
        target = f"checkpoints/step_{meta.step:08d}"
        _write_json(file, {"checkpoint": target, "step": meta.step, "value": meta.best})
    if link.is_dir() and not link.is_symlink():
        # A copy of the run in which the link was followed.
        shutil.rmtree(link)
    # Some file systems have no links; best.json says the same.
    with contextlib.suppress(OSError):
        link.unlink(missing_ok=True)
        if meta is not None:
            link.symlink_to(target, target_is_directory=True)


def set_aside_after(output_dir: Path, meta: Meta) -> Path | None:
    """Move the checkpoints beyond `meta.step` to a sub-folder of their own, which is returned; None if there are none.

    What is called the best is then what was the best at that step, if it is still there.
    """
    output_dir = Path(output_dir)
    root = output_dir / "checkpoints"
    recover(root)
    newer = [path for path in checkpoints_in(root) if _step(path) > meta.step]
    if not newer:
        return None
    aside = free_name(output_dir / SET_ASIDE / f"after_step_{meta.step:08d}")
    (aside / "checkpoints").mkdir(parents=True)
    if (output_dir / BEST_FILE).is_file():
        shutil.copy(output_dir / BEST_FILE, aside / BEST_FILE)
    for path in newer:
        path.rename(aside / "checkpoints" / path.name)
    best = root / f"step_{meta.best_step:08d}"
    name_best(output_dir, _read_meta(best)[0] if meta.best is not None and (best / META_FILE).is_file() else None)
    return aside


def copy_best(source: Path, output_dir: Path, meta: Meta) -> None:
    """Take the best checkpoint of the run in `source`, as `meta` knows it, along to a new folder, if it is still there."""
    best = Path(source) / "checkpoints" / f"step_{meta.best_step:08d}"
    if meta.best is None or not (best / META_FILE).is_file():
        return
    root = Path(output_dir) / "checkpoints"
    partial = root / f".partial-{os.getpid()}"
    shutil.copytree(best, partial)
    partial.rename(root / best.name)
    name_best(output_dir, _read_meta(best)[0])


def recover(root: Path) -> None:
    """Bring back the whole checkpoints among what killed processes left in `root`, and delete the rest of it."""
    for path in _leftovers(root):
        final = root / f"step_{_read_meta(path)[0].step:08d}" if _is_whole(path) else None
        if final is None or final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(final)


def _leftovers(root: Path) -> Iterator[Path]:
    """Folders that processes which are no more had not yet renamed, or not yet deleted."""
    for path in root.glob(".*-*"):
        match = _LEFTOVER.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not is_alive(int(match[1]))):
            yield path


def _is_whole(folder: Path) -> bool:
    try:
        return _read_meta(folder)[1] == _sha256(folder / STATE_FILE)
    except (CheckpointError, OSError):
        return False


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _named_best(output_dir: Path) -> Path | None:
    try:
        named = json.loads((output_dir / BEST_FILE).read_text(encoding="utf-8"))["checkpoint"]
        folder = output_dir / "checkpoints" / Path(named).name
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        # Written by an earlier version, or a copy that left the file out.
        folder = output_dir / BEST_LINK
    return folder.resolve() if (folder / META_FILE).is_file() else None


def _delete_old(output_dir: Path, keep: int) -> None:
    best = _named_best(output_dir)
    for path in checkpoints_in(output_dir / "checkpoints")[:-keep]:
        if path.resolve() != best:
            shutil.rmtree(path, ignore_errors=True)


def _read_meta(folder: Path) -> tuple[Meta, str]:
    """What a checkpoint says about itself, and the sha256 of its arrays."""
    path = folder / META_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise CheckpointError(f"{folder} was written in a format this version does not know")
        expected = data.pop("sha256")
        meta = Meta(**data)
        _check_types(meta)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); take an earlier checkpoint") from error
    return meta, expected


def _check_types(meta: Meta) -> None:
    for name, kind in get_type_hints(Meta).items():
        value = getattr(meta, name)
        if not isinstance(value, _kinds(kind)) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r:.40}")
    if meta.step < 0:
        raise ValueError(f"step is {meta.step}")


def _kinds(kind: Any) -> tuple[type, ...]:
    """The types of what a field may hold: a float may be written as an int, and items of containers are not looked at."""
    kinds = tuple(get_origin(part) or part for part in (get_args(kind) if isinstance(kind, UnionType) else (kind,)))
    return (*kinds, int) if float in kinds else kinds


def _write_meta(folder: Path, meta: Meta, sha256: str) -> None:
    _write_json(folder / META_FILE, {"format": FORMAT, **asdict(meta), "sha256": sha256})


def _write_json(path: Path, data: Any) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
