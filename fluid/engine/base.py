"""The interface of an engine, and the choice of one.

An engine owns one state `{name: array}` that several Programs share, and runs Programs on it. Both engines keep the
same names and shapes, so a state saved by one is loaded by the other.
"""

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluid.errors import EngineError

import numpy as np

if TYPE_CHECKING:
    from fluid.program import Program

DEVICES = ("auto", "cpu", "gpu")
ENGINES = ("auto", "paddle", "xla")
PRECISIONS = ("fp32", "tf32", "bf16")
STEPS_THAT_PAY = 300
"""Updates from which on compiling is worth its 3 to 15 seconds on a CPU."""


class Engine(ABC):
    """Runs Programs on one state."""

    name: str
    device: str
    """As shown to people."""
    on_gpu: bool = False
    """Whether it computes on GPUs."""
    num_devices: int = 1
    """Devices that share a batch, over all hosts."""
    num_hosts: int = 1
    """Processes that train together; each feeds its share of every batch."""
    host_id: int = 0
    """Number of this process; process 0 writes logs and checkpoints."""
    seed: int = 0

    @abstractmethod
    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Add arrays to the state, replacing those of the same name."""

    @abstractmethod
    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Copies of the whole state, or of the named part, on the host."""

    @abstractmethod
    def run(
        self, program: "Program", feed: Mapping[str, Any], step: int = 0, fetch: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Run `program` once and return its outputs (or those named in `fetch`, layers included).

        Random operations depend on (seed, step) alone; the learning rate is `program.schedule(step)`. The arrays may
        still be on their way from the device: `np.asarray` waits for them.
        """

    def run_many(
        self, program: "Program", feeds: Sequence[Mapping[str, Any]], step: int = 0, fetch: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Run `program` once per feed, as steps `step, step + 1, ...`; outputs are stacked, [K, ...]."""
        results = [self.run(program, feed, step + index, fetch) for index, feed in enumerate(feeds)]
        return {name: np.stack([np.asarray(result[name]) for result in results]) for name in results[0]}

    def put(self, feed: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Start copying a feed to the device; the result is accepted by `run` in place of the feed."""
        return feed

    def compile(self, jobs: Sequence[tuple["Program", Mapping[str, Any]]]) -> None:
        """Compile what each Program needs for feeds of these shapes, all at once, before the first of them comes up.

        An engine that compiles nothing does nothing.
        """

    def shared_rows(self, rows: int) -> int:
        """`rows` rounded up to what all devices can share evenly: for batches whose size changes no result."""
        return -(-rows // self.num_devices) * self.num_devices

    def check_batch_size(self, rows: int) -> None:
        """Raise EngineError unless the devices can share a training batch evenly, before anything is read or compiled."""
        if rows % self.num_devices:
            raise EngineError(
                f"--batch_size {rows} cannot be shared evenly by {self.num_devices} devices; make it a multiple of that"
            )

    def agree(self, flag: bool) -> bool:
        """Whether `flag` is true in any process of a distributed run; all of them call this at the same step."""
        return flag

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over all processes of a distributed run; all of them call this together."""
        return values

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The rows [n, ...] of all processes of a distributed run, one after the other; all of them call this together.

        Each may have any number of rows, also none. Raises EngineError, in every process, if the rows of one are of
        another shape or type than those of another.
        """
        return np.asarray(array)

    def close(self) -> None:
        """Release what the engine holds outside this process's memory."""


def check_feed(program: "Program", feed: Mapping[str, Any]) -> None:
    """Raise EngineError unless `feed` has exactly the inputs of `program`, with their types and shapes."""
    missing, unknown = sorted(program.inputs.keys() - feed.keys()), sorted(feed.keys() - program.inputs.keys())
    if missing or unknown:
        raise EngineError(
            f"the Program '{program.name}' takes the inputs {', '.join(program.inputs) or 'none'}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    for name, item in program.inputs.items():
        array = feed[name]
        fits = len(array.shape) == len(item.shape) and all(
            want is None or want == have for want, have in zip(item.shape, array.shape, strict=True)
        )
        if not fits or str(array.dtype) != item.dtype:
            wanted = "[" + ", ".join("any" if length is None else str(length) for length in item.shape) + "]"
            raise EngineError(
                f"input '{name}' of the Program '{program.name}' must be {item.dtype} {wanted}, "
                f"not {array.dtype} {list(array.shape)}"
            )


@dataclass(frozen=True)
class Hosts:
    """Several processes that train together; with every field None they are found from the cluster's environment."""

    coordinator: str | None = None
    """`HOST:PORT` of process 0."""
    num_hosts: int | None = None
    """How many processes take part."""
    host_id: int | None = None
    """Number of this one, from 0."""


def create(
    engine: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
    seed: int = 0,
    *,
    hosts: Hosts | None = None,
    training_steps: int = 0,
    prefer_xla: bool = False,
) -> tuple[Engine, str]:
    """Choose and start an engine; returns it with the reason for the choice, one line for people.

    `auto` takes a GPU through XLA where JAX sees one. On the CPU it takes Paddle's executor, the reference, unless
    `training_steps` updates are to come, enough of them for the faster steps of XLA to pay for its compilation, or unless
    the task says that XLA is faster for what it is about to do (`prefer_xla`). Paddle's own CUDA build is used only when
    asked for (`engine="paddle", device="gpu"`). With `hosts`, or in a cluster whose environment says so, this process
    joins the others. Raises EngineError for what is not there.
    """
    for value, allowed, flag in (
        (engine, ENGINES, "engine"),
        (device, DEVICES, "device"),
        (precision, PRECISIONS, "precision"),
    ):
        if value not in allowed:
            raise EngineError(f"--{flag} {value}: choose one of {', '.join(allowed)}")
    if engine == "paddle":
        if hosts is not None and hosts != Hosts():
            raise EngineError("--engine paddle runs on one machine; training on several needs --engine xla")
        return _paddle(device, precision, seed), "asked for"
    if engine == "xla":
        return _xla(device, precision, seed, hosts), "asked for"
    if device == "gpu" or (device == "auto" and jax_sees_gpu()):
        return _xla("gpu", precision, seed, hosts), "JAX sees a GPU"
    if precision != "fp32":
        return _xla("cpu", precision, seed, hosts), f"{precision} needs the xla engine, and no GPU is used"
    if hosts is not None and hosts != Hosts():
        return _xla("cpu", precision, seed, hosts), "several machines need the xla engine, and no GPU is used"
    if training_steps >= STEPS_THAT_PAY:
        return _xla("cpu", precision, seed, hosts), f"no GPU is used, and {training_steps} updates pay for compiling"
    if prefer_xla:
        return _xla("cpu", precision, seed, hosts), "no GPU is used, and XLA is the faster engine for this"
    return _paddle("cpu", precision, seed), "the reference engine on the CPU"


def jax_sees_gpu() -> bool:
    """Whether JAX can compute on a GPU; jax is imported only where one of its device plugins is installed."""
    if not importlib.metadata.entry_points(group="jax_plugins"):
        return False
    import jax

    return any(device.platform == "gpu" for device in jax.devices())


def _xla(device: str, precision: str, seed: int, hosts: Hosts | None) -> Engine:
    from fluid.engine import xla
    from fluid.engine.xla import distributed

    if hosts is not None and (hosts != Hosts() or distributed.in_cluster()):
        distributed.start(hosts.coordinator, hosts.num_hosts, hosts.host_id)
    return xla.create(device, precision, seed)


def _paddle(device: str, precision: str, seed: int) -> Engine:
    from fluid.engine.paddle import PaddleEngine

    return PaddleEngine("cpu" if device == "auto" else device, precision, seed)
