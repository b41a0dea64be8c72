"""What computes outputs from opened weights: an engine, or the exported model that was asked for in its place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fluid import engine as engines
from fluid.arrays import read_npz, write_npz
from fluid.config import EngineFlags
from fluid.engine import Engine
from fluid.engine.base import check_feed
from fluid.engine.create import Kind
from fluid.errors import DataError, EngineError, UserError
from fluid.interface import Input, Interface, Output
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

    Args:
        opened: what `fluid.weights.open` found.
        flags: which engine.
        runs, kind: how much is to be computed, see `fluid.engine.create`.
        prepare: makes the inputs of the exported model from what the task's own Programs are fed.

    Programs from files run without Paddle, on the xla engine.

    Attributes: `engine`, and `how`, what computes where, for people.
    """

    def __init__(
        self,
        opened: Opened[Any],
        flags: EngineFlags,
        *,
        runs: int | None = 1,
        kind: Kind = "forward",
        prepare: Callable[[Feed], Feed] = dict,
    ):
        self._exported, self._captured, self._state = opened.exported, opened.captured, opened.state
        self.engine: Engine
        if opened.exported is not None:
            self.engine, self.how = ExportedEngine(opened.exported, prepare), "exported model, paddle.inference"
            return
        name = flags.engine if self._captured is None else self._captured.engine(flags.engine)
        self.engine, reason = engines.create(name, flags.device, flags.precision, flags.seed, runs=runs, kind=kind)
        reason = reason if self._captured is None else self._captured.reason
        self.how = f"engine {self.engine.name} on {self.engine.device} ({reason}), {flags.precision}"
        self.engine.load(opened.state)

    def program(self, role: str, build: Callable[[], Interface]) -> Interface:
        """The Program of this role: what `build` makes with Paddle, or the one from files, or the exported model's.

        Raises UserError if it is not among those from files, WeightsError if the weights are not of its network.
        """
        if self._captured is not None:
            return self._captured.program(role, self._state)
        if self._exported is None:
            return build()
        inputs = {
            name: Input(name, tuple(item["shape"]), item["dtype"]) for name, item in self._exported.inputs.items()
        }
        return Interface(name="exported", inputs=inputs, outputs={name: Output() for name in self._exported.outputs})


def run_arrays(
    runner: Runner,
    build: Callable[[], Interface],
    feed: Path,
    fetch: Path,
    *,
    role: str = "infer",
    check: Callable[[Feed], None] = lambda arrays: None,
) -> None:
    """`--feed in.npz --fetch out.npz`: run the inference Program on raw arrays and write its raw outputs.

    `role` and `build` as of `Runner.program`. Numbers of another width are taken as the inputs' own. Raises DataError for a file that cannot be read or written and
    for arrays that do not fit, and what `check` raises for values that do not.
    """
    program, arrays = runner.program(role, build), read_npz(feed)
    fitting = {
        name: array.astype(program.inputs[name].dtype) if _same_kind(array, program.inputs.get(name)) else array
        for name, array in arrays.items()
    }
    try:
        check_feed(program, fitting)
    except EngineError as error:
        raise DataError(f"{feed}: {error}") from None
    check(fitting)
    outputs = {name: np.asarray(array) for name, array in runner.engine.run(program, fitting).items()}
    write_npz(fetch, outputs)
    for name, array in outputs.items():
        console.print(f"{fetch}: {name} {array.dtype} {list(array.shape)}", markup=False)


def _same_kind(array: np.ndarray, wanted: Input | None) -> bool:
    """Whether the conversion to the input's type keeps what the numbers say."""
    return wanted is not None and np.can_cast(array.dtype, wanted.dtype, "same_kind")
