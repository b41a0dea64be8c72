"""The one door through which a script comes to its weights.

What a flag names; else the best checkpoint of ./output, if that is a run of the task; else what comes along with the
task. A run's folder stands for its best checkpoint, for its newest if nothing was evaluated or `--newest` is given. Of
a run that kept moving averages these are the weights. A line says which weights they are and why.

With Programs from files nothing here needs Paddle: weights that do not describe themselves are then those of the network
that was captured, under the names that it has for them.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from fluid import checkpoint
from fluid import programs as captures
from fluid.config import WeightsFlags, as_built
from fluid.errors import CheckpointError, UserError, WeightsError
from fluid.formats.legacy import is_optimizer_state
from fluid.programs import Captured
from fluid.run import OUTPUT, console
from fluid.weights import compact, registry
from fluid.weights.files import read_weights, with_averages
from fluid.weights.fit import Report, check_finite, unwrapped

import numpy as np

if TYPE_CHECKING:
    from fluid.export import ExportedModel

EXPORTED = "signature.json"
"""`fluid.export.SIGNATURE`, without importing Paddle."""
SETTINGS = "settings"
"""Among the facts of an exported model: the flags that it was built with."""

Facts = TypeVar("Facts")
Flags = TypeVar("Flags")


@dataclass(frozen=True)
class Opened(Generic[Facts]):
    """Weights ready to be used."""

    facts: Facts
    """What the task must know to use them."""
    state: dict[str, np.ndarray]
    """Arrays by name, float32 where they were stored in less, all finite; optimizer state left out."""
    source: str
    """Checkpoint, file or name, for people."""
    reason: str
    """Why these, for people."""
    report: Report | None = None
    """What became of each array of weights that had to be fitted."""
    exported: "ExportedModel | None" = None
    """The exported model that was asked for, instead of `state`."""
    captured: Captured | None = None
    """The Programs from files that are to run on the weights."""
    folder: Path | None = None
    """The task's folder, where Programs may come along (`fluid.shipped`)."""

    def settle(self, flags: Flags, *names: str) -> Flags:
        """`flags`; of Programs from files and of an exported model those in `names` are what they were built with.

        Raises UserError if one of them is named otherwise.
        """
        if self.captured is not None:
            return self.captured.settle(flags, names)
        if self.exported is None or SETTINGS not in self.exported.facts:
            return flags
        return as_built(flags, self.exported.facts[SETTINGS], names, f"{self.source} was", "export it again")


@dataclass(frozen=True)
class Bare:
    """Weights that do not say what they are for: an address, or a file or folder of any format."""

    spec: str
    """As the user named them."""
    folder: Path
    """The task's folder."""
    entry: registry.Entry | None
    """What weights.toml says of them, if they are listed there."""

    def read(self, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays by name, fetched if need be; `names`: see `read_weights`. Raises WeightsError."""
        if self.entry is not None:
            path = registry.fetch(self.entry, names)
        else:
            path, _ = registry.resolve(self.spec, self.folder, names)
        return unwrapped(read_weights(path, names))


Fit = Callable[[Bare], tuple[Facts, dict[str, np.ndarray], Report]]
"""Fits bare weights to the network that the flags, the list or the arrays themselves tell."""


def open(
    folder: Path,
    flags: WeightsFlags,
    *,
    default: str,
    key: str,
    from_facts: Callable[[dict[str, Any]], Facts],
    fit: Fit[Facts],
    free: Collection[str] = (),
    say: Callable[[str], None] | None = None,
) -> Opened[Facts]:
    """Open the weights that `flags` ask for, or else the best there are, and print which and why.

    Args:
        folder: of the task, whose name is the task's.
        flags: `exported_model` and `programs` are heeded where the flags have them.
        default: what comes along, by its name in the task's weights.toml.
        key: under which checkpoints, compact files and exported models of the task keep their facts.
        from_facts: the task's view of them; raises UserError if something is missing.
        fit: for weights that do not describe themselves.
        free: facts that no Program depends on, such as the names of classes.
        say: prints the line; by default to standard output.

    Raises:
        UserError: flags contradict each other, facts are missing, or Programs from files are for another network.
        CheckpointError, WeightsError: there is nothing at a place that was named, it is damaged, of another task, does
            not fit, or holds what is not a finite number.
    """
    choice = choose(folder, flags, default)
    (say or _print)(f"weights: {choice.source} ({choice.reason})")
    if choice.kind == "exported model":
        from fluid.export import ExportedModel

        model = ExportedModel(choice.path)
        facts = from_facts(model.facts.get(key, model.facts))
        return Opened(facts, {}, choice.source, choice.reason, exported=model)
    captured = _captured(folder.name, flags, choice)
    described: Mapping[str, Any] | None
    if choice.kind == "checkpoint":
        arrays, meta = checkpoint.load(choice.path, task=folder.name)
        arrays, described = with_averages(arrays), meta.extra.get(key, {})
    elif (described := _described(choice.path, folder.name).get(key)) is not None:
        arrays = read_weights(choice.path)
    elif captured is not None:
        arrays, described = Bare(choice.source, folder, choice.entry).read(), captured.facts[key]
    else:
        facts, state, report = fit(Bare(choice.source, folder, choice.entry))
        return Opened(facts, state, choice.source, choice.reason, report, folder=folder)
    if captured is not None:
        captured.check_facts(key, described, choice.source, free)
    state = _ready(arrays, choice.path)
    return Opened(from_facts(dict(described)), state, choice.source, choice.reason, captured=captured, folder=folder)


@dataclass(frozen=True)
class Choice:
    """Which weights, before anything of them is read."""

    source: str
    """For people."""
    reason: str
    """For people."""
    kind: Literal["checkpoint", "exported model", "weights"]
    path: Path
    """Where they are; of weights, where they would be if `source` is a path."""
    entry: registry.Entry | None = None


def choose(folder: Path, flags: WeightsFlags, default: str) -> Choice:
    """Apply the rule; arguments as of `open`, which raises what this raises."""
    values = {name: getattr(flags, name, None) for name in ("checkpoint", "pretrained_model", "exported_model")}
    named = {f"--{name}": value for name, value in values.items() if value is not None}
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} name different weights; give one of them")
    if not named:
        other = _other_run(folder.name)
        if other is None:
            return _of_run(OUTPUT, f"the run in ./{OUTPUT}", flags.newest)
        if flags.newest:
            raise UserError(f"--newest: {other}; name a run with --checkpoint")
        # Not `identify`: whatever is called so where the script was started is not what comes along.
        return _stored(default, f"comes along; {other}", registry.load_registry(folder)[default])
    ((flag, value),) = named.items()
    if flag == "--checkpoint" or (flag == "--pretrained_model" and checkpoint.is_checkpoint(Path(value))):
        return _of_run(Path(value), f"{flag} {value}", flags.newest)
    if flags.newest:
        raise UserError(f"--newest: {flag} {value} is not a run's folder")
    if flag == "--exported_model":
        if getattr(flags, "programs", None) is not None:
            raise UserError("--exported_model has a Program of its own; leave --programs out")
        return Choice(str(value), flag, "exported model", Path(value))
    return _stored(value, flag, registry.identify(value, folder))


def _of_run(path: Path, named: str, newest: bool) -> Choice:
    """The checkpoint that `path` stands for. Raises CheckpointError if there is none."""
    if path.exists() and not checkpoint.is_checkpoint(path):
        raise CheckpointError(f"no checkpoint at {path}; weights of other kinds are named with --pretrained_model")
    found = checkpoint.find_newest(path) if newest else checkpoint.find_best(path)
    meta = checkpoint.read_meta(found)
    if (path / checkpoint.META_FILE).is_file():
        reason = named
    elif newest:
        reason = f"{named}: its newest"
    elif meta.best is None:
        reason = f"{named}: its newest, as nothing was evaluated"
    elif meta.step == meta.best_step:
        reason = f"{named}: its best, {meta.best:.6g}"
    else:
        reason = f"{named}: its newest, as the best (step {meta.best_step}) is gone"
    return Choice(_shown(found), reason, "checkpoint", found)


def _stored(spec: str, reason: str, entry: registry.Entry | None) -> Choice:
    """What a name of weights.toml (then with its entry), an address or a path stands for."""
    path = Path(spec) if entry is None or entry.file is None else registry.fetch(entry)
    if (path / EXPORTED).is_file():
        raise UserError(f"{spec} is an exported model; name it with --exported_model")
    return Choice(spec, reason, "checkpoint" if checkpoint.is_checkpoint(path) else "weights", path, entry)


def _other_run(task: str) -> str | None:
    """Why ./output is passed over; None if there is a run of the task."""
    if not checkpoint.is_checkpoint(OUTPUT):
        return f"no run in ./{OUTPUT}"
    owner = checkpoint.read_meta(OUTPUT).task
    return None if owner == task else f"the run in ./{OUTPUT} is of {owner}"


def _captured(task: str, flags: WeightsFlags, choice: Choice) -> Captured | None:
    """The Programs from files that are to run on what was chosen."""
    of_the_run = checkpoint.read_meta(choice.path).programs if choice.kind == "checkpoint" else None
    folder = captures.choose(getattr(flags, "programs", None), of_the_run)
    return None if folder is None else captures.read(folder, task=task)


def _described(path: Path, task: str) -> Mapping[str, Any]:
    """What a compact file says of its weights; nothing for other weights. Raises WeightsError for another task's."""
    description = compact.describe(path) if path.suffix == ".safetensors" and path.is_file() else None
    if description is None:
        return {}
    if description.task not in (None, task):
        raise WeightsError(f"{path} belongs to the task {description.task}, not to {task}.")
    return description.facts


def _ready(weights: Mapping[str, np.ndarray], where: Path) -> dict[str, np.ndarray]:
    """`weights` without optimizer state, half precision as float32. Raises WeightsError for NaN and infinity."""
    own = {name: array for name, array in weights.items() if not is_optimizer_state(name, weights)}
    check_finite(own, where)
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in own.items()}


def _shown(path: Path) -> str:
    """A path as people would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _print(line: str) -> None:
    console.print(line)
