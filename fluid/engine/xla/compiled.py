"""One Program, for one choice of outputs, as compiled functions: what is kept for it, and for how long.

Everything that speaks of a Program lives here and goes with it: the lowered step, its executables by the shapes of what
is fed, the shapes that were checked, the arrays of the state that it reads.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

from fluid.engine.base import check_feed
from fluid.engine.xla.devices import BATCH, Devices
from fluid.engine.xla.graph import Graph, walk
from fluid.engine.xla.hoist import halve
from fluid.engine.xla.kernels import Kernels, run_on
from fluid.engine.xla.lower import lower
from fluid.engine.xla.powers import find_powers
from fluid.engine.xla.precision import Policy
from fluid.engine.xla.state import State
from fluid.engine.xla.tuning import Tuning
from fluid.errors import EngineError

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

MAX_SHAPES = 64
"""Shapes of inputs for which a Program keeps its executables: those used last. Training has fewer; someone who translates
or classifies at many sizes for days would otherwise fill the memory."""
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""What makes XLA write CPU code in half of the time."""

Made = TypeVar("Made")


class Recent(Generic[Made]):
    """The values that were used last, by key."""

    def __init__(self, limit: int = MAX_SHAPES):
        self._values: OrderedDict[Any, Made] = OrderedDict()
        self._limit = limit
        self._used: set[Any] = set()

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> list[Made]:
        """Those that are kept, the one used longest ago first."""
        return list(self._values.values())

    def is_new(self, key: Any) -> bool:
        """Whether the value of `key` has not been used yet."""
        return key not in self._used

    def find(self, key: Any, make: Callable[[], Made]) -> Made:
        """The value of `key`, to be used now; made if it is not there."""
        value = self.prepare(key, make)
        self._used.add(key)
        return value

    def prepare(self, key: Any, make: Callable[[], Made]) -> Made:
        """The value of `key`, made if it is not there; the one used longest ago goes if there are too many."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        if len(self._values) > self._limit:
            self._used.discard(self._values.popitem(last=False)[0])
        return value


class Scalars(NamedTuple):
    """What a step is told beside its feed; as arrays with a leading axis for a loop of steps."""

    rate: Any
    seed: np.uint32
    step: Any


@cache
def quick_options() -> dict[str, Any]:
    """QUICK, as far as this version of XLA knows it."""
    known = {}
    for name, value in QUICK.items():
        with suppress(jax.errors.JaxRuntimeError):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
            known[name] = value
    return known


class _Halves(NamedTuple):
    """An evaluation in two parts; `name` is equal where `before` makes the same of the state."""

    before: Callable[..., Any]
    after: Callable[..., Any]
    name: str


class Compiled:
    """A Program's step for the outputs and layers in `fetch`. Raises EngineError for operations without a rule."""

    def __init__(
        self, graph: Graph, fetch: Sequence[str], state: State, devices: Devices, policy: Policy, tuning: Tuning
    ):
        fit = tuning.kernels and all(map(run_on, devices.mesh.devices.flat))
        self.step = lower(graph, policy, fetch, tuning, Kernels(devices.mesh) if fit else None)
        self.graph = self.step.graph
        self.state, self.devices = state, devices
        self._powers = find_powers(self.graph)
        self._packed = tuple(self._powers)
        """Variables that are one array between the steps."""
        self._alone = [name for name in self.step.written if name not in self._powers]
        self.options = quick_options() if tuning.quick_code else None
        self.batch_axes = {name: item.batch for name, item in self.graph.inputs.items()}
        has_convolutions = any("conv" in operation.name for operation in walk(self.graph.block))
        self.loops_on_host = has_convolutions and not tuning.convolutions_in_loops
        """Whether several steps are faster one by one than in one call."""
        self._checked: set[Any] = set()
        self._functions: Recent[Any] = Recent()
        self._loops: Recent[Any] = Recent()
        self._halves: Recent[_Halves] = Recent()
        self.compile_seconds = 0.0
        """Spent on compiling and on the first run of each executable, which loads it onto the devices."""
        self._read: list[jax.Array] | None = None
        self._prepared: dict[str, Any] = {}
        self._preparing = Lock()

    @property
    def shapes(self) -> int:
        """Shapes of inputs for which executables are kept."""
        return max(map(len, (self._functions, self._loops, self._halves)))

    def forget(self) -> None:
        """Let go of what was made of the state."""
        self._read = None
        self._prepared = {}

    def run(self, feed: Mapping[str, Any], scalars: Scalars, must_share: bool) -> dict[str, jax.Array]:
        """One step on arrays of the host or the devices, [rows, ...] each."""
        shapes = self.check(feed, must_share)
        read = self.read()
        recent = self._functions if self.step.written else self._halves
        with jax.enable_x64(True), self._memory_advice(), self._counted(recent.is_new(shapes)) as wait_for:
            placed = self.put(feed)
            if not self.step.written:
                return wait_for(self._evaluate(shapes, read, placed, scalars))
            arguments = self._written(), read, placed, *scalars
            new, outputs = wait_for(self._functions.find(shapes, lambda: self._function(*arguments))(*arguments))
        self._update(new)
        return outputs

    def run_many(self, feeds: Mapping[str, Any], scalars: Scalars) -> dict[str, jax.Array]:
        """Steps in one call, a loop on the device, on stacked arrays [K, rows, ...]; outputs are stacked too."""
        one = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in feeds.items()}
        shapes = self.check(one, must_share=True), len(scalars.step)
        read = self.read()
        with jax.enable_x64(True), self._memory_advice(), self._counted(self._loops.is_new(shapes)) as wait_for:
            # A call takes arrays of the host to a single device in a sixth of the time that copies before it need.
            placed = self.put(feeds, leading=1) if self.devices.count > 1 else dict(feeds)
            arguments = self._written(), read, placed, *scalars
            new, outputs = wait_for(self._loops.find(shapes, lambda: self._loop(*arguments))(*arguments))
        if new:
            self._update(new)
        return outputs

    def compile(self, feed: Mapping[str, Any], scalars: Scalars) -> None:
        """Compile a step that changes the state for a feed of these shapes, without running it."""
        shapes = self.check(feed, must_share=True)
        read = self.read()
        with jax.enable_x64(True), self._memory_advice():
            arguments = self._written(), read, self.put(feed), *scalars
            self._functions.prepare(shapes, lambda: self._function(*arguments)).lower(*arguments).compile()

    def text(self, feed: Mapping[str, Any]) -> str:
        """The StableHLO of the step before XLA optimises it; needs no state."""

        def shapes(names: list[str]) -> list[jax.ShapeDtypeStruct]:
            types = [self.graph.types[self.graph.state[name]] for name in names]
            return [jax.ShapeDtypeStruct(item.shape, item.dtype) for item in types]

        with jax.enable_x64(True):
            scalars = np.float64(0), np.uint32(0), np.uint32(0)
            written = shapes(self._alone)
            if self._packed:
                written.append(jax.ShapeDtypeStruct((len(self._packed),), np.float32))
            arguments = written, shapes(self.step.read), dict(feed), *scalars
            return self._function(*arguments).lower(*arguments).as_text()

    def put(self, feed: Mapping[str, Any], leading: int = 0) -> dict[str, jax.Array]:
        """A feed on the devices; `leading` axes come before those of the inputs."""
        axes = self.batch_axes
        return {
            name: self.devices.put(value, None if (axis := axes[name]) is None else axis + leading)
            for name, value in feed.items()
        }

    def check(self, feed: Mapping[str, Any], must_share: bool) -> Any:
        """The shapes of a feed; raises EngineError unless it fits the inputs, and the devices of this process."""
        shapes = tuple((name, value.shape, value.dtype) for name, value in feed.items())
        if (shapes, must_share) not in self._checked:
            check_feed(self.graph, feed)
            if must_share:
                self._check_rows(feed)
            if len(self._checked) > 2 * MAX_SHAPES:
                self._checked.clear()
            self._checked.add((shapes, must_share))
        return shapes

    def read(self) -> list[jax.Array]:
        """The state that the step only reads: looked up again only after a change."""
        if self._read is None:
            self._read = self.state.find(self.step.read, self.graph.name)
            self.state.readers.add(self)
        return self._read

    def _written(self) -> list[jax.Array]:
        """The state that a step takes and gives back: variables that stand alone, then the pack, if there is one."""
        alone = self.state.find(self._alone, self.graph.name)
        return [*alone, self.state.pack(self._packed, self.graph.name)] if self._packed else alone

    def _update(self, new: list[jax.Array]) -> None:
        """Keep what a step gave back."""
        self.state.update(dict(zip(self._alone, new)))
        if self._packed:
            self.state.update_pack(self._packed, new[-1])

    def _check_rows(self, feed: Mapping[str, Any]) -> None:
        rows = {name: feed[name].shape[axis] for name, axis in self.batch_axes.items() if axis is not None}
        for name, count in rows.items():
            if count % self.devices.local == 0:
                continue
            others = [f"'{other}' has {have}" for other, have in rows.items() if have != count]
            raise EngineError(
                f"input '{name}' of the Program '{self.graph.name}' has {count} rows along its axis of samples "
                f"({self.batch_axes[name]}), which {self.devices.local} devices cannot share evenly; "
                + (
                    f"{', '.join(others)}: if the rows of '{name}' are not samples, declare Input(..., batch=None)"
                    if others
                    else "make --batch_size a multiple of the number of devices"
                )
            )

    def _function(self, *arguments: Any) -> Any:
        return self._jitted(self._listed(self.step.function), arguments)

    def _loop(self, *arguments: Any) -> Any:
        """The step as a loop over stacked feeds. State that is only read is not part of the carry."""
        step = self._listed(self.step.function)

        def function(old: Any, constant: Any, feeds: Any, rates: Any, seed: Any, steps: Any) -> Any:
            def one(state: Any, item: Any) -> Any:
                feed, rate, number = item
                return step(state, constant, feed, rate, seed, number)

            return jax.lax.scan(one, old, (feeds, rates, steps))

        return self._jitted(function, arguments, leading=1)

    def _listed(self, function: Any) -> Any:
        """`function` with its state in lists: JAX sorts the keys of a dictionary at every call, hundreds of them here."""
        alone, packed, read = self._alone, self._packed, self.step.read
        shapes = [self.graph.types[self.graph.state[name]].shape for name in packed]
        factors = np.array(list(self._powers.values()), np.float32)

        def listed(old: list[Any], constant: list[Any], *arguments: Any) -> Any:
            state = dict(zip(alone, old))
            for place, (name, shape) in enumerate(zip(packed, shapes)):
                state[name] = old[-1][place : place + 1].reshape(shape)
            new, outputs = function(state, dict(zip(read, constant)), *arguments)
            return [*(new[name] for name in alone), *([old[-1] * factors] if packed else [])], outputs

        return listed

    def _jitted(self, function: Any, arguments: Sequence[Any], leading: int = 0) -> Any:
        """A function of the state and the feed, which gives back both, compiled; JAX traces it once for this and its call."""
        state = [self.devices.whole] * (len(self._alone) + bool(self._packed))
        outputs = self._out_shardings(jax.eval_shape(function, *arguments)[1], leading)
        return jax.jit(function, donate_argnums=0, out_shardings=(state, outputs))

    def _out_shardings(self, outputs: Mapping[str, Any], leading: int = 0) -> dict[str, NamedSharding]:
        """Spread along their axes of samples; what devices cannot share evenly, such as a list of boxes, is whole on each.

        Raises EngineError for such an output if there are several processes, each of which gets its own rows.
        """
        shardings = {}
        for name, item in self.graph.outputs.items():
            axis = None if item.batch is None else item.batch + leading
            rows = 0 if axis is None else outputs[name].shape[axis]
            if rows % self.devices.count and self.devices.local < self.devices.count:
                raise EngineError(
                    f"output '{name}' of the Program '{self.graph.name}' has {rows} rows along its axis of samples "
                    f"({item.batch}), which {self.devices.count} devices cannot share evenly: if they are not samples, say "
                    f"so by build(batch_axes={{'{name}': None}}), of a layer by name_layer(..., batch=None)"
                )
            shardings[name] = self.devices.spread(None if rows % self.devices.count else axis)
        return shardings

    def _evaluate(self, shapes: Any, read: list[jax.Array], feed: dict[str, jax.Array], scalars: Scalars) -> Any:
        """The outputs of a Program that changes nothing; what it makes of the state alone is kept until that changes."""
        halves = self._halves.find(shapes, lambda: self._two_halves(read, feed, scalars))
        with self._preparing:  # Feeds of other shapes, which other threads may be here for, share it.
            prepared = self._prepared.get(halves.name)
            if prepared is None:
                prepared = halves.before(read)
                wanted = {item.name for item in self._halves.values()}
                kept = {name: made for name, made in self._prepared.items() if name in wanted}
                self._prepared = kept | {halves.name: prepared}
        return halves.after(prepared, feed, *scalars)

    def _two_halves(self, read: list[jax.Array], feed: dict[str, jax.Array], scalars: Scalars) -> _Halves:
        rows = [feed[name].shape[axis] for name, axis in self.batch_axes.items() if axis is not None]
        # Too few rows to share, say of a single image: every device computes all of them.
        shared = not any(count % self.devices.count for count in rows)
        every_row = all(item.batch is not None for item in self.graph.outputs.values())
        alone = self.devices.count > 1 and self.graph.independent_rows and shared and every_row
        listed = self._listed(self.step.function)

        def function(state: Any, *rest: Any) -> Any:
            return listed([], state, *rest)[1]

        state = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in read]
        given = {name: self._share(name, value) for name, value in feed.items()} if alone else feed
        halves = halve(function, state, given, *scalars)
        if alone:
            outputs = {name: self.devices.spread(item.batch) for name, item in self.graph.outputs.items()}
        elif shared:
            outputs = self._out_shardings(jax.eval_shape(function, state, given, *scalars))
        else:
            outputs = dict.fromkeys(self.graph.outputs, self.devices.whole)
        after = self._on_each_device(halves.after, outputs) if alone else halves.after
        before = jax.jit(halves.before, out_shardings=self.devices.whole)
        return _Halves(before, jax.jit(after, out_shardings=outputs, compiler_options=self.options), halves.name)

    def _share(self, name: str, value: jax.Array) -> jax.ShapeDtypeStruct:
        """Shape and type of one device's rows of an input."""
        shape, axis = list(value.shape), self.batch_axes[name]
        if axis is not None:
            shape[axis] //= self.devices.count
        return jax.ShapeDtypeStruct(tuple(shape), value.dtype)

    def _on_each_device(self, function: Any, outputs: Mapping[str, Any]) -> Any:
        """`function(state, feed, *scalars)` on every device's own rows, none of which another device waits for.

        Compiled for the whole batch, a beam search would gather the caches of all devices on each in every step: XLA
        does not see that the rows it picks are a device's own.
        """
        shares = {
            name: PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, BATCH)
            for name, axis in self.batch_axes.items()
        }

        def on_own_rows(state: Any, feed: dict[str, Any], *scalars: Any) -> Any:
            return jax.shard_map(
                function,
                mesh=self.devices.mesh,
                in_specs=(PartitionSpec(), shares, *[PartitionSpec()] * len(scalars)),
                out_specs={name: sharding.spec for name, sharding in outputs.items()},
                check_vma=False,
            )(state, feed, *scalars)

        return on_own_rows

    @contextmanager
    def _counted(self, new: bool) -> Iterator[Callable[[Any], Any]]:
        """Count the block as compiling if its executable is new, up to where the results that it passes on are there.

        What the devices were still busy with before is not counted.
        """
        if not new:
            yield lambda results: results
            return
        jax.block_until_ready(self.state.values())
        began = time.perf_counter()
        yield jax.block_until_ready
        self.compile_seconds += time.perf_counter() - began

    @contextmanager
    def _memory_advice(self) -> Iterator[None]:
        """Raise EngineError, with what to do about it, where XLA runs out of memory."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise EngineError(
                f"the Program '{self.graph.name}' does not fit into the memory of the device: use a smaller --batch_size "
                "(with accumulation if the task has it), --precision bf16, or more devices. JAX takes 75% of a GPU's "
                "memory; XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 gives it more if nothing else uses the GPU"
            ) from None
