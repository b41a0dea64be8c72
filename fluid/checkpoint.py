"""Checkpoints: safetensors and JSON in one folder that appears whole or not at all.

    OUTPUT/checkpoints/step_00000200/state.safetensors     every array of the engine's state
                                     checkpoint.json       step, epoch, metrics, configuration, sha256 of the arrays
    OUTPUT/best -> checkpoints/step_00000150               the best evaluation so far

A checkpoint is written to a temporary folder, flushed to the disk and renamed, so the process can be killed at any
instant. Nothing in it depends on the engine that wrote it, and reading one executes nothing.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fluid.errors import CheckpointError

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT = 1
STATE_FILE = "state.safetensors"
META_FILE = "checkpoint.json"
_FOLDER = re.compile(r"step_(\d+)")


@dataclass
class Meta:
    """What a checkpoint says beside its arrays."""

    task: str
    step: int
    epoch: int = 0
    best: float | None = None
    best_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    """What only the task understands, such as class names and preprocessing."""


def save(output_dir: Path, state: Mapping[str, np.ndarray], meta: Meta, *, keep: int = 3, best: bool = False) -> Path:
    """Write the checkpoint of `meta.step`, point `best` at it if asked, and delete all but the newest `keep` and the best.

    Raises CheckpointError if it cannot be written (no space, no permission); older checkpoints are then untouched.
    """
    root = Path(output_dir) / "checkpoints"
    final, partial = root / f"step_{meta.step:08d}", root / f".partial-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file({name: np.require(array, requirements="C") for name, array in state.items()}, partial / STATE_FILE)
        _flush(partial / STATE_FILE)
        data = {"format": FORMAT, **asdict(meta), "sha256": _sha256(partial / STATE_FILE)}
        (partial / META_FILE).write_text(json.dumps(data, indent=1), encoding="utf-8")
        _flush(partial / META_FILE)
        _flush(partial)
        if final.exists():
            replaced = root / f".replaced-{os.getpid()}"
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
            partial.rename(final)
            shutil.rmtree(replaced)
        else:
            partial.rename(final)
        _flush(root)
        if best:
            _point(Path(output_dir) / "best", final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {error}. Free some space or choose another --output_dir; "
            f"earlier checkpoints are untouched"
        ) from error
    _delete_old(Path(output_dir), keep)
    return final


def load(path: Path, *, task: str | None = None) -> tuple[dict[str, np.ndarray], Meta]:
    """Read a checkpoint: its arrays and what it says about itself.

    `path` is a checkpoint folder, or a run's output folder, which stands for its newest checkpoint. Raises
    CheckpointError if it is missing, damaged, of an unknown format, or of another task than `task`.
    """
    folder = find(path)
    try:
        data = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise CheckpointError(f"{folder} was written in a format this version does not know")
        expected = data.pop("sha256")
        meta = Meta(**data)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / META_FILE} cannot be read ({error}); take an earlier checkpoint") from error
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


def find(path: Path) -> Path:
    """The checkpoint folder that `path` stands for; raises CheckpointError if there is none."""
    path = Path(path)
    if (path / META_FILE).is_file():
        return path.resolve()
    for root in (path / "checkpoints", path):
        complete = _complete(root)
        if complete:
            return complete[-1]
    raise CheckpointError(
        f"no checkpoint at {path}: expected a folder with {META_FILE}, or a run's folder with checkpoints/step_*"
    )


def is_checkpoint(path: Path) -> bool:
    """Whether `find` would find something."""
    try:
        find(path)
    except CheckpointError:
        return False
    return True


def _complete(root: Path) -> list[Path]:
    """Checkpoints below `root`, oldest first. By number: as text, step 1000 would come before step 900."""
    found = [(int(match[1]), path) for path in root.glob("step_*") if (match := _FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / META_FILE).is_file()]


def _delete_old(output_dir: Path, keep: int) -> None:
    best = (output_dir / "best").resolve()
    for path in _complete(output_dir / "checkpoints")[:-keep]:
        if path.resolve() != best:
            shutil.rmtree(path, ignore_errors=True)


def _point(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    temporary.replace(link)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
