"""What computes outputs from opened weights: an engine, or the exported model that was asked for in its place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fluid import engine as engines
from fluid import shipped
from fluid.arrays import read_npz, write_npz
from fluid.config import EngineFlags
from fluid.engine import Engine
from fluid.engine.base import check_feed
from fluid.errors import DataError, EngineError, UserError
from fluid.interface import Input, Interface, Output
from fluid.records import refuse_unwritable
from fluid.run import console
from fluid.weights import Opened

import numpy as np

Feed = Mapping[str, np.ndarray]


class ExportedModel(Protocol):
    """`fluid.export.ExportedModel`, without importing Paddle."""

    inputs: dict[str, dict[str, Any]]
    outputs: list[str]

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name."""


class ExportedEngine(Engine):
    """Stands where an engine stands, and runs an exported model whatever the Program.

    `prepare` makes the inputs of the model from what the task's own Programs are fed.
    """

    name = "paddle.inference"
    device = "cpu"

    def __init__(self, model: ExportedModel, prepare: Callable[[Feed], Feed]):
        self._model, self._prepare = model, prepare

    def load(self, state: Feed) -> None:
        """Not possible."""
        raise TypeError("an exported model has its own weights")

    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Not possible."""
        raise TypeError("an exported model does not give its weights away")

    def run(
        self, program: Interface, feed: Mapping[str, Any], step: int = 0, fetch: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The outputs of the model. Raises UserError if something else is to be fetched."""
        if unknown := set(fetch or ()) - set(self._model.outputs):
            raise UserError(
                f"an exported model has only its outputs, {', '.join(self._model.outputs)}; "
                f"{', '.join(sorted(unknown))} needs a checkpoint or weights"
            )
        outputs = self._model.run(self._prepare(feed))
        return outputs if fetch is None else {name: outputs[name] for name in fetch}


class Runner:
    """An engine with opened weights loaded, or the exported model.

    The engine is chosen when it is first used, by what `program` was asked for until then.

    Args:
        opened: what `fluid.weights.open` found.
        flags: which engine.
        runs: how often a Program is to be run, see `fluid.engine.create`.
        prepare: makes the inputs of the exported model from what the task's own Programs are fed.

    Programs from files run without Paddle, on the xla engine; so do those that come along. Raises UserError for a place of
    results that cannot be written.
    """

    def __init__(
        self,
        opened: Opened[Any],
        flags: EngineFlags,
        *,
        runs: int | None = 1,
        prepare: Callable[[Feed], Feed] = dict,
    ):
        refuse_unwritable(flags)
        self._opened, self._flags, self._runs, self._prepare = opened, flags, runs, prepare
        self._programs: list[Interface] = []
        self._remarks: list[str] = []

    @property
    def takes_other_programs(self) -> bool:
        """Whether Programs can be built for it, of any size; neither an exported model nor Programs from files can change."""
        return self._opened.exported is None and self._opened.captured is None

    def program(self, role: str, build: Callable[[], Interface], made_of: Mapping[str, Any] | None = None) -> Interface:
        """The Program of this role: what `build` makes with Paddle, or the one from files, or the exported model's.

        One that comes along and is made of the same (`fluid.shipped`) is taken instead where XLA is to run it. A recurrent
        one is named before `engine` and `how` are used. Raises UserError if it is not among those from files, WeightsError
        if the weights are not of its network.
        """
        program = self._program(role, build, made_of)
        known = self._opened.captured or any(other.recurrent for other in self._programs)
        if program.recurrent and not known and "_chosen" in self.__dict__:
            raise RuntimeError(f"the engine was chosen before it was known that '{program.name}' is recurrent")
        self._programs.append(program)
        return program

    @property
    def engine(self) -> Engine:
        """What runs the Programs, the weights loaded."""
        return self._chosen[0]

    @property
    def how(self) -> str:
        """What computes where, for people."""
        return self._chosen[1]

    @cached_property
    def _chosen(self) -> tuple[Engine, str]:
        opened, flags, captured = self._opened, self._flags, self._opened.captured
        if opened.exported is not None:
            return ExportedEngine(opened.exported, self._prepare), "exported model, paddle.inference"
        name = flags.engine if captured is None else captured.engine(flags.engine)
        engine, reason = engines.create(
            name,
            flags.device,
            flags.precision,
            flags.seed,
            kernels=flags.kernels,
            runs=self._runs,
            programs=self._programs,
        )
        engine.load(opened.state)
        reason = reason if captured is None else captured.reason
        how = [f"engine {engine.name} on {engine.device} ({reason})", flags.precision, *self._remarks]
        return engine, ", ".join(how)

    def _program(self, role: str, build: Callable[[], Interface], made_of: Mapping[str, Any] | None) -> Interface:
        opened = self._opened
        if opened.captured is not None:
            return opened.captured.program(role, opened.state)
        if opened.exported is None:
            return self._along(role, made_of) or build()
        inputs = {
            name: Input(name, tuple(item["shape"]), item["dtype"]) for name, item in opened.exported.inputs.items()
        }
        return Interface(name="exported", inputs=inputs, outputs={name: Output() for name in opened.exported.outputs})

    def _along(self, role: str, made_of: Mapping[str, Any] | None) -> Interface | None:
        """The Program that comes along, where there is one that XLA is to run."""
        if made_of is None or self._opened.folder is None or self._flags.engine == "paddle":
            return None
        try:
            program = shipped.find(self._opened.folder, role, made_of)
        except shipped.NoneFits as reason:
            self._remarks.append(f"the Program '{role}' was built: {reason}")
            return None
        if not (program.recurrent or self._runs_on_xla):
            return None
        self._remarks.append(f"the Program '{role}' came along")
        return program

    @property
    def _runs_on_xla(self) -> bool:
        """Whether it is known already that XLA runs whatever Program is to come."""
        if "_chosen" in self.__dict__:
            return self.engine.name == "xla"
        return self._flags.engine == "xla" or self._runs is None


def run_arrays(
    runner: Runner,
    build: Callable[[], Interface],
    feed: Path,
    fetch: Path,
    *,
    role: str = "infer",
    made_of: Mapping[str, Any] | None = None,
    check: Callable[[Feed], None] = lambda arrays: None,
    outputs: Sequence[str] | None = None,
) -> None:
    """`--feed in.npz --fetch out.npz`: run the inference Program on raw arrays and write its raw outputs, or some of them.

    `role`, `build` and `made_of` as of `Runner.program`. Numbers of another width are taken as the inputs' own. Raises DataError for a
    file that cannot be read or written and for arrays that do not fit, and what `check` raises for values that do not.
    """
    program, arrays = runner.program(role, build, made_of), read_npz(feed)
    fitting = {
        name: array.astype(program.inputs[name].dtype) if _same_kind(array, program.inputs.get(name)) else array
        for name, array in arrays.items()
    }
    try:
        check_feed(program, fitting)
    except EngineError as error:
        raise DataError(f"{feed}: {error}") from None
    _check_samples(program, fitting, feed)
    check(fitting)
    found = {name: np.asarray(array) for name, array in runner.engine.run(program, fitting, fetch=outputs).items()}
    write_npz(fetch, found)
    for name, array in found.items():
        console.print(f"{fetch}: {name} {array.dtype} {list(array.shape)}")


def _check_samples(program: Interface, arrays: Feed, where: Path) -> None:
    """Raise DataError unless all inputs hold equally many samples, one at least."""
    counts = {name: arrays[name].shape[item.batch] for name, item in program.inputs.items() if item.batch is not None}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where}: all inputs must hold equally many samples, one at least; found {shown}")


def _same_kind(array: np.ndarray, wanted: Input | None) -> bool:
    """Whether the conversion to the input's type keeps what the numbers say."""
    return wanted is not None and np.can_cast(array.dtype, wanted.dtype, "same_kind")
