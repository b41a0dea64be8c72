"""Fitting weights to a network: their names, and a report of what became of each array."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from fluid.errors import WeightsError
from fluid.formats import legacy

import numpy as np

AUTOMATIC_NAME = re.compile(
    r"(conv2d|depthwise_conv2d|conv2d_transpose|batch_norm|fc|gru|lstmp|layer_norm|embedding|gru_unit)_\d+\.[wb]_\d+$"
)
WRAPPERS = ("module.", "model.", "_orig_mod.")
SHOWN = 6
"""Names in a message."""


def has_automatic_names(weights: Mapping[str, np.ndarray]) -> bool:
    """Whether the variables carry the names Fluid gave by itself (`conv2d_0.w_0`), as the releases of June 2018 do."""
    automatic = sum(AUTOMATIC_NAME.match(name) is not None for name in weights)
    return automatic > len(weights) / 2


def unwrapped(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`weights` without what PyTorch's wrappers (DataParallel, trainers, compile) put before every one of its names."""
    names = list(weights)
    while names and any(all(name.startswith(prefix) for name in names) for prefix in WRAPPERS):
        names = [name.split(".", 1)[1] for name in names]
    return dict(zip(names, weights.values(), strict=True))


def check_finite(weights: Mapping[str, np.ndarray], where: str | os.PathLike) -> None:
    """Raise WeightsError, naming them, if arrays hold what is not a finite number."""
    broken = [name for name, array in weights.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if broken:
        raise WeightsError(
            f"{where}: NaN or infinity in {_some(broken)}. Training had diverged when they were written; "
            "take an earlier checkpoint, or other weights."
        )


def rename(weights: Mapping[str, np.ndarray], table: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Give each array the name `table` has for it; names that are not in the table stay.

    Raises WeightsError if two arrays end up under one name.
    """
    renamed: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        if table.get(name, name) in renamed:
            raise WeightsError(f"{name} and another array are both renamed to {table.get(name, name)}.")
        renamed[table.get(name, name)] = array
    return renamed


@dataclass
class Report:
    """What became of each array when weights were put into a network. Shapes are (in the file, in the network)."""

    loaded: list[str] = field(default_factory=list)
    head: dict[str, tuple[tuple, tuple]] = field(default_factory=dict)
    """Parameters of a classifier with another number of classes: left at their initial values."""
    excluded: list[str] = field(default_factory=list)
    """Left at their initial values because the user asked for it."""
    skipped: dict[str, tuple[tuple, tuple]] = field(default_factory=dict)
    """Shapes that do not fit."""
    missing: list[str] = field(default_factory=list)
    """In the network, not in the file."""
    unused: list[str] = field(default_factory=list)
    """In the file, not in the network."""
    ignored: list[str] = field(default_factory=list)
    """In the file only and without effect: offsets that are zero."""
    default: list[str] = field(default_factory=list)
    """In the network only and optional: left at their initial values."""

    @property
    def fits(self) -> bool:
        """Whether every difference is one that was asked for or makes no difference."""
        return bool(self.loaded) and not (self.skipped or self.missing or self.unused)

    def __str__(self) -> str:
        rows = [("loaded", len(self.loaded), "")]
        for what, items in (
            ("replaced head", _shapes(self.head)),
            ("excluded", self.excluded),
            ("skipped (shape)", _shapes(self.skipped)),
            ("missing", self.missing),
            ("unused", self.unused),
            ("not needed", self.ignored),
            ("initial value", self.default),
        ):
            if items or what in ("skipped (shape)", "missing", "unused"):
                rows.append((what, len(items), _some(items)))
        return "\n".join(f"{what:>16} {count:5d}  {items}".rstrip() for what, count, items in rows)


def load_into(
    state: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    *,
    head: Collection[str] | None = None,
    exclude: Collection[str] = (),
    optional: Collection[str] = (),
    allow_partial: bool = False,
) -> tuple[dict[str, np.ndarray], Report]:
    """Put weights into a network's initial state by name.

    Args:
        state: every variable of the network with its initial value; optimizer state in it is left alone.
        weights: arrays by name, as from `read_weights`.
        head: variables that may differ in shape and then keep their initial values. By default (None) the classifier is
            found: fully connected weights [D, C] and offsets [C] that differ from the file's in the number of classes
            alone.
        exclude: names (shell patterns allowed) to leave at their initial values.
        optional: names (shell patterns allowed) that may be absent from the file and then keep their initial values,
            such as offsets that later releases dropped because they are zero.
        allow_partial: accept whatever fits.

    Returns:
        The new state (same names, shapes and data types as `state`) and the report.

    Raises:
        WeightsError: with the report in its message, if anything but a replaced head differs and `allow_partial` is not
            set; if nothing fits at all; if a name in `exclude` exists on neither side; if a file holds integers for
            real numbers; if what would be loaded holds NaN or infinity.
    """
    targets = [name for name in state if not legacy.is_optimizer_state(name, state)]
    sources = {name: array for name, array in weights.items() if not legacy.is_optimizer_state(name, weights)}
    _check_exclude(exclude, {*targets, *sources})
    new_state = dict(state)
    report = Report()
    mismatched = {}
    for name in targets:
        if _matches(name, exclude):
            report.excluded.append(name)
        elif name not in sources:
            (report.default if _matches(name, optional) else report.missing).append(name)
        elif sources[name].dtype.kind != state[name].dtype.kind:
            raise WeightsError(f"{name}: the file holds {sources[name].dtype}, the network needs {state[name].dtype}.")
        elif sources[name].shape != state[name].shape:
            mismatched[name] = (sources[name].shape, state[name].shape)
        else:
            new_state[name] = sources[name].astype(state[name].dtype)
            report.loaded.append(name)
    replaced = _classifier(mismatched) if head is None else {name for name in mismatched if _matches(name, head)}
    for name, shapes in mismatched.items():
        (report.head if name in replaced else report.skipped)[name] = shapes
    for name, array in sources.items():
        if name not in state and not _matches(name, exclude):
            is_zero_offset = name.endswith("_offset") and not np.any(array)
            (report.ignored if is_zero_offset else report.unused).append(name)
    if not report.loaded or not (report.fits or allow_partial):
        raise WeightsError(_refusal(report))
    check_finite({name: sources[name] for name in report.loaded}, "the weights")
    return new_state, report


def _classifier(mismatched: Mapping[str, tuple[tuple, tuple]]) -> set[str]:
    """The mismatched variables, if they are heads with one other number of classes; otherwise nothing.

    A hidden layer of another width would make the next layer's input dimension differ too, so weights that differ in
    their output dimension alone, all from the same count to the same count, can only be the last ones.
    """
    counts = set()
    for in_file, in_network in mismatched.values():
        if len(in_file) != len(in_network) or len(in_file) not in (1, 2) or in_file[:-1] != in_network[:-1]:
            return set()
        counts.add((in_file[-1], in_network[-1]))
    has_weight = any(len(in_file) == 2 for in_file, _ in mismatched.values())
    return set(mismatched) if len(counts) == 1 and has_weight else set()


def _refusal(report: Report) -> str:
    if not report.loaded:
        return (
            f"The weights do not belong to this network: not one variable fits.\n{report}\n"
            "Choose the model these weights were trained for."
        )
    head = "The weights do not fit the network."
    if _classifier(report.skipped) and not (report.missing or report.unused):
        (in_file, in_network), *_ = report.skipped.values()
        head = f"The weights are for {in_file[-1]} classes, the network has {in_network[-1]}."
    return (
        f"{head}\n{report}\nChoose the model these weights were trained for, with the same scale, depth and number of classes. "
        "To load what fits and keep initial values for the rest, pass --allow_partial."
    )


def _check_exclude(exclude: Iterable[str], known: Collection[str]) -> None:
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in known):
            near = get_close_matches(pattern, known, n=3, cutoff=0.5)
            hint = f" Nearest: {', '.join(near)}." if near else ""
            raise WeightsError(f"No variable named {pattern} to leave out, in the network or in the file.{hint}")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _shapes(items: Mapping[str, tuple[tuple, tuple]]) -> list[str]:
    return [f"{name} {list(in_file)} -> {list(in_network)}" for name, (in_file, in_network) in items.items()]


def _some(items: list[str]) -> str:
    rest = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + rest
