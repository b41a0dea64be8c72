"""The interface of an engine.

An engine owns one state `{name: array}` that several Programs share, and runs Programs on it. Both engines keep the
same names and shapes, so a state saved by one is loaded by the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fluid.engine.collected import Outputs
from fluid.errors import EngineError
from fluid.interface import Interface

import numpy as np


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
    compile_seconds: float = 0.0
    """Time spent compiling so far."""

    @abstractmethod
    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Add arrays to the state, replacing those of the same name."""

    @abstractmethod
    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Copies of the whole state, or of the named part, on the host."""

    @abstractmethod
    def run(
        self, program: Interface, feed: Mapping[str, Any], step: int = 0, fetch: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Run `program` once and return its outputs (or those named in `fetch`, layers included).

        Random operations depend on (seed, step) alone; the learning rate is `program.schedule(step)`. The arrays may
        still be on their way from the device: `np.asarray` waits for them.
        """

    def run_many(
        self,
        program: Interface,
        feeds: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        step: int = 0,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Run `program` once per feed, as steps `step, step + 1, ...`; outputs are stacked, [K, ...].

        `feeds` may also be one mapping of arrays that are stacked already, [K, ...].
        """
        results = [self.run(program, feed, step + index, fetch) for index, feed in enumerate(separate(feeds))]
        return {name: np.stack([np.asarray(result[name]) for result in results]) for name in results[0]}

    def stream(
        self, program: Interface, feeds: Iterable[Mapping[str, Any]], carried: Mapping[str, Any], step: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Run `program` on one feed after the other, each with what the call before left in `program.carry`.

        That is how a recurrent network listens: its state goes from call to call as it lies on the device, without a copy
        to the host. `carried` are the inputs of the first call by name, zeros say; what is yielded are the outputs
        of each call, the carried ones among them, so that a stream can be left and taken up again. Calls are numbered
        `step, step + 1, ...`, see `run`.
        """
        for number, feed in enumerate(feeds, step):
            outputs = self.run(program, {**feed, **carried}, number)
            carried = {taken_by: outputs[name] for name, taken_by in program.carry.items()}
            yield outputs

    def put(self, feed: Mapping[str, Any], program: Interface) -> Mapping[str, Any]:
        """Start copying a feed of `program` to the device; `run` accepts the result in place of the feed."""
        return feed

    def collect(self) -> Outputs:
        """A place to keep the outputs of many runs, to be read together."""
        return Outputs()

    def compile(self, jobs: Sequence[tuple[Interface, Mapping[str, Any]]]) -> None:
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


def check_feed(program: Interface, feed: Mapping[str, Any]) -> None:
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


def separate(feeds: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Stacked feeds [K, ...] as K of them."""
    if not isinstance(feeds, Mapping):
        return feeds
    count = len(next(iter(feeds.values())))
    return [{name: value[k] for name, value in feeds.items()} for k in range(count)]
