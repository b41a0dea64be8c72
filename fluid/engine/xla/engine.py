"""The xla engine: Programs compiled whole by XLA, on CPU or on every visible GPU."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Union

from fluid.engine.base import Engine, check_feed
from fluid.engine.xla import distributed
from fluid.engine.xla.graph import Graph, Type
from fluid.engine.xla.hoist import halve
from fluid.engine.xla.lower import Step, lower
from fluid.engine.xla.precision import find_policy
from fluid.engine.xla.tuning import for_platform
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

if TYPE_CHECKING:
    from fluid.program import Program

# Otherwise JAX reports every kind of device that it looked for and did not find.
logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)

BATCH = "batch"
"""Name of the mesh axis over which batches are spread."""

Runnable = Union["Program", Graph]


def sees_gpu() -> bool:
    """Whether JAX can use a GPU here."""
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


def create(device: str = "auto", precision: str = "fp32", seed: int = 0) -> "XlaEngine":
    """An engine on all visible devices of a kind: `gpu`, `cpu`, or `auto` for a GPU if there is one.

    Raises EngineError if there is no such device.
    """
    if device == "gpu" and not sees_gpu():
        raise EngineError(
            "--device gpu: JAX sees no GPU. Install its CUDA build (pip install 'jax[cuda13]'), check the driver with "
            "nvidia-smi, or use --device cpu"
        )
    kind = ("gpu" if sees_gpu() else "cpu") if device == "auto" else device
    return XlaEngine(jax.devices(kind), precision, seed)


class XlaEngine(Engine):
    """Runs Programs, or Graphs captured from them, as compiled JAX functions.

    The state lives on the devices, a copy on each; batches are spread over them along their first axis. The compiled
    step computes with the global batch, so batch statistics and means are those of the whole batch whatever the number
    of devices (unless the Program has a `statistics_batch`); only Programs of `independent_rows` are compiled for one
    device's share. With several processes (`distributed.start`) each feeds its own share of the batch and gets back its
    own rows of the outputs.
    """

    name = "xla"

    def __init__(self, devices: Sequence[jax.Device], precision: str = "fp32", seed: int = 0):
        _use_compilation_cache()
        self.policy = find_policy(precision)
        self.seed = seed
        self.num_devices = len(devices)
        self.num_hosts, self.host_id = distributed.num_hosts(), distributed.host_id()
        self.device = _describe(devices)
        self.on_gpu = devices[0].platform == "gpu"
        self.tuning = for_platform(devices[0].platform)
        self._local_devices = sum(device.process_index == jax.process_index() for device in devices)
        self._mesh = Mesh(np.array(devices), (BATCH,))
        self._whole = NamedSharding(self._mesh, PartitionSpec())
        self._state: dict[str, jax.Array] = {}
        self._has_batch: dict[str, bool] = {}
        self._graphs: dict[int, tuple[Runnable, Graph]] = {}
        self._interfaces: dict[int, Any] = {}
        self._steps: dict[tuple[int, tuple[str, ...], bool], tuple[Step, Any]] = {}
        self._checked: set[Any] = set()
        self._halves: dict[Any, tuple[Any, Any, str]] = {}
        # Both hold only while the state is what it was.
        self._read: dict[int, list[jax.Array]] = {}
        self._prepared: dict[tuple[int, str], list[jax.Array]] = {}

    def agree(self, flag: bool) -> bool:
        return distributed.agree(flag)

    def total(self, values: np.ndarray) -> np.ndarray:
        return distributed.total_over_hosts(values)

    def gather(self, array: np.ndarray) -> np.ndarray:
        return distributed.rows_of_hosts(np.asarray(array))

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        with jax.enable_x64(True):
            for name, array in state.items():
                self._state[name] = distributed.place(np.asarray(array), self._whole)
        self._forget()

    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        names = sorted(self._state) if names is None else list(names)
        for name in names:
            self._state[name].copy_to_host_async()
        return {name: np.array(distributed.on_host(self._state[name])) for name in names}

    def put(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """See `Engine.put`. Until a Program that takes an input has run, nothing says which axis of it is the batch."""
        with jax.enable_x64(True):
            return {
                name: self._put(value, self._has_batch[name]) if name in self._has_batch else value
                for name, value in feed.items()
            }

    def run(
        self, program: Runnable, feed: Mapping[str, Any], step: int = 0, fetch: Sequence[str] | None = None
    ) -> dict[str, jax.Array]:
        """See `Engine.run`; `program` may also be a captured Graph."""
        graph = self._graph(program)
        lowered, function = self._compiled(graph, fetch, many=False)
        self._check(graph, feed, must_share=bool(lowered.written) or self.num_hosts > 1)
        old, constant = self._split(lowered)
        rate = np.float64(graph.schedule(step) if graph.schedule is not None else 0.0)
        with jax.enable_x64(True), _memory_advice(graph):
            arguments = self.put(feed), rate, np.uint32(self.seed), np.uint32(step)
            if lowered.written:
                new, outputs = function(old, constant, *arguments)
                self._update(lowered, new)
            else:
                outputs = self._evaluate(lowered, constant, *arguments)
        return {name: distributed.own_rows(value) for name, value in outputs.items()}

    def run_many(
        self,
        program: Runnable,
        feeds: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        step: int = 0,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, jax.Array]:
        """See `Engine.run_many`: one copy to the device per input, one call, one loop on the device.

        `feeds` may also be one mapping of arrays that are stacked already, [K, ...].
        """
        graph = self._graph(program)
        stacked = feeds if isinstance(feeds, Mapping) else _stacked(feeds)
        count = len(next(iter(stacked.values())))
        shapes = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in stacked.items()}
        self._check(graph, shapes, must_share=True)
        lowered, function = self._compiled(graph, fetch, many=True)
        old, constant = self._split(lowered)
        steps = range(step, step + count)
        rates = np.array([graph.schedule(s) if graph.schedule is not None else 0.0 for s in steps], np.float64)
        with jax.enable_x64(True), _memory_advice(graph):
            batches = {name: self._put(value, self._has_batch[name], axis=1) for name, value in stacked.items()}
            new, outputs = function(old, constant, batches, rates, np.uint32(self.seed), np.array(steps, np.uint32))
        self._update(lowered, new)
        return {name: distributed.own_rows(value) for name, value in outputs.items()}

    def compile(self, jobs: Sequence[tuple[Runnable, Mapping[str, Any]]]) -> None:
        """See `Engine.compile`. The first step of each shape then finds its code in the cache on disk.

        Training Programs are not run; those that change no state are, and what they return is thrown away. What takes
        less than a second to compile is not kept in the cache, and so nothing is gained by naming it here.
        """
        for program, _ in jobs:
            self._compiled(self._graph(program), None, many=False)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda job: self._compile(*job), jobs))

    def _compile(self, program: Runnable, feed: Mapping[str, Any]) -> None:
        lowered, function = self._compiled(self._graph(program), None, many=False)
        if not lowered.written:
            jax.block_until_ready(self.run(program, feed))
            return
        old, constant = self._split(lowered)
        with jax.enable_x64(True), _memory_advice(lowered.graph):
            scalars = np.float64(0), np.uint32(0), np.uint32(0)
            function.lower(old, constant, self.put(feed), *scalars).compile()

    def lowered_text(self, program: Runnable, feed: Mapping[str, Any], fetch: Sequence[str] | None = None) -> str:
        """The StableHLO of a Program before XLA optimises it; needs no state."""
        graph = self._graph(program)
        lowered, function = self._compiled(graph, fetch, many=False)

        def shapes(names: list[str]) -> list[jax.ShapeDtypeStruct]:
            types = [graph.types[graph.state[name]] for name in names]
            return [jax.ShapeDtypeStruct(item.shape, item.dtype) for item in types]

        with jax.enable_x64(True):
            scalars = np.float64(0), np.uint32(0), np.uint32(0)
            return function.lower(shapes(lowered.written), shapes(lowered.read), dict(feed), *scalars).as_text()

    def _graph(self, program: Runnable) -> Graph:
        if id(program) not in self._graphs:
            if isinstance(program, Graph):
                graph = program
            else:
                from fluid.engine.xla.capture import capture

                graph = capture(program)
            self._graphs[id(program)] = program, graph  # keeps the Program alive: its id is the key
            self._interfaces[id(graph)] = _interface(graph)
            self._has_batch.update({name: has_batch_axis(graph.types[value]) for name, value in graph.inputs.items()})
        return self._graphs[id(program)][1]

    def _check(self, graph: Graph, feed: Mapping[str, Any], must_share: bool) -> None:
        signature = (id(graph), must_share, _signature(feed))
        if signature not in self._checked:
            check_feed(self._interfaces[id(graph)], feed)
            if must_share:
                _check_rows(graph, feed, self._local_devices)
            self._checked.add(signature)

    def _compiled(self, graph: Graph, fetch: Sequence[str] | None, many: bool) -> tuple[Step, Any]:
        names = tuple(graph.outputs if fetch is None else fetch)
        key = (id(graph), names, many)
        if key not in self._steps:
            lowered = lower(graph, self.policy, names, self.tuning)
            function = _listed(lowered, _looped(lowered) if many else lowered.function)
            self._steps[key] = (
                lowered,
                jax.jit(function, donate_argnums=0, out_shardings=self._out_shardings(lowered, many)),
            )
        return self._steps[key]

    def _out_shardings(self, lowered: Step, many: bool) -> Any:
        state = [self._whole] * len(lowered.written)
        types = {name: lowered.graph.types[number] for name, number in lowered.graph.outputs.items()}
        spread = self._spread(axis=1 if many else 0)
        return state, {name: spread if has_batch_axis(item) else self._whole for name, item in types.items()}

    def _spread(self, axis: int = 0) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(*[None] * axis, BATCH))

    def _evaluate(self, lowered: Step, constant: list[jax.Array], feed: dict[str, Any], *scalars: Any) -> Any:
        """The outputs of a Program that changes nothing; what it makes of the state alone is kept until that changes."""
        key = (id(lowered), _signature(feed))
        if key not in self._halves:
            self._halves[key] = self._two_halves(lowered, constant, feed, *scalars)
        before, after, name = self._halves[key]
        if (id(lowered), name) not in self._prepared:
            self._prepared[id(lowered), name] = before(constant)
        return after(self._prepared[id(lowered), name], feed, *scalars)

    def _two_halves(
        self, lowered: Step, constant: list[jax.Array], feed: dict[str, Any], *scalars: Any
    ) -> tuple[Any, Any, str]:
        outputs = self._out_shardings(lowered, many=False)[1]
        if any(self._has_batch[name] and value.shape[0] % self.num_devices for name, value in feed.items()):
            # Too few rows to share, say a single image: every device computes all of them.
            outputs = dict.fromkeys(outputs, self._whole)
        every_row = all(sharding != self._whole for sharding in outputs.values())
        alone = self.num_devices > 1 and lowered.graph.independent_rows and every_row
        halves = halve(
            lambda state, *rest: _listed(lowered, lowered.function)([], state, *rest)[1],
            [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in constant],
            {name: self._share(name, value) for name, value in feed.items()} if alone else feed,
            *scalars,
        )
        after = self._on_each_device(halves.after, outputs) if alone else halves.after
        return jax.jit(halves.before, out_shardings=self._whole), jax.jit(after, out_shardings=outputs), halves.name

    def _share(self, name: str, value: jax.Array) -> jax.ShapeDtypeStruct:
        """Shape and type of one device's rows of an input."""
        rows = value.shape[0] // self.num_devices if self._has_batch[name] else None
        return jax.ShapeDtypeStruct(value.shape if rows is None else (rows, *value.shape[1:]), value.dtype)

    def _on_each_device(self, function: Any, outputs: Mapping[str, NamedSharding]) -> Any:
        """`function(state, feed, *scalars)` on every device's own rows, none of which another device waits for.

        Compiled for the whole batch, a beam search would gather the caches of all devices on each in every step: XLA
        does not see that the rows it picks are a device's own.
        """

        def on_own_rows(state: Any, feed: dict[str, Any], *scalars: Any) -> Any:
            whole = PartitionSpec()
            shares = {name: PartitionSpec(BATCH) if self._has_batch[name] else whole for name in feed}
            return jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(whole, shares, *[whole] * len(scalars)),
                out_specs={name: sharding.spec for name, sharding in outputs.items()},
                check_vma=False,
            )(state, feed, *scalars)

        return on_own_rows

    def _split(self, lowered: Step) -> tuple[list[jax.Array], list[jax.Array]]:
        """The state that a step writes, and that it only reads: the latter is looked up again only after a change."""
        if id(lowered) not in self._read:
            missing = [name for name in (*lowered.written, *lowered.read) if name not in self._state]
            if missing:
                raise EngineError(
                    f"the Program '{lowered.graph.name}' needs variables that were not loaded: {', '.join(missing)}"
                )
            self._read[id(lowered)] = [self._state[name] for name in lowered.read]
        return [self._state[name] for name in lowered.written], self._read[id(lowered)]

    def _update(self, lowered: Step, new: list[jax.Array]) -> None:
        if new:
            self._state.update(zip(lowered.written, new, strict=True))
            self._forget()

    def _forget(self) -> None:
        self._read.clear()
        self._prepared.clear()

    def _put(self, value: Any, has_batch: bool, axis: int = 0) -> jax.Array:
        """An array on the devices: spread along its batch axis if they can share it evenly, else a copy on each."""
        if isinstance(value, jax.Array):
            return value
        spread = has_batch and value.shape[axis] % self._local_devices == 0
        return distributed.place(np.asarray(value), self._spread(axis) if spread else self._whole)


@contextmanager
def _memory_advice(graph: Graph) -> Iterator[None]:
    """Raise EngineError, with what to do about it, where XLA runs out of memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise EngineError(
            f"the Program '{graph.name}' does not fit into the memory of the device: use a smaller --batch_size (with "
            "accumulation if the task has it), --precision bf16, or more devices. JAX takes 75% of a GPU's memory; "
            "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 gives it more if nothing else uses the GPU"
        ) from None


def _signature(feed: Mapping[str, Any]) -> tuple[Any, ...]:
    """What compiled steps and checks depend on, and cheap: this runs in every step."""
    return tuple((name, value.shape, value.dtype) for name, value in feed.items())


def _interface(graph: Graph) -> Any:
    """A graph's inputs in the form that `check_feed` knows."""
    types = {name: graph.types[number] for name, number in graph.inputs.items()}
    free = {name: Type(tuple(None if n < 0 else n for n in item.shape), item.dtype) for name, item in types.items()}
    return SimpleNamespace(name=graph.name, inputs=free)


def _listed(lowered: Step, function: Any) -> Any:
    """`function` with its state in lists: JAX sorts the keys of a dictionary at every call, hundreds of them here."""

    def listed(old: list[Any], constant: list[Any], *arguments: Any) -> Any:
        written, read = dict(zip(lowered.written, old)), dict(zip(lowered.read, constant))
        new, outputs = function(written, read, *arguments)
        return [new[name] for name in lowered.written], outputs

    return listed


def _check_rows(graph: Graph, feed: Mapping[str, Any], devices: int) -> None:
    """Raise EngineError unless the batch can be shared evenly by the devices of this process."""
    for name, number in graph.inputs.items():
        if has_batch_axis(graph.types[number]) and feed[name].shape[0] % devices:
            raise EngineError(
                f"input '{name}' of the Program '{graph.name}' has {feed[name].shape[0]} rows, which {devices} devices "
                "cannot share evenly; make --batch_size a multiple of the number of devices"
            )


def has_batch_axis(item: Type) -> bool:
    """Whether the first axis of a value is the batch: its length was unknown when the Program was built."""
    return bool(item.shape) and item.shape[0] < 0


def _stacked(feeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """K feeds as one, [K, ...], on the host unless they are on the device already."""
    stacked = {}
    for name in feeds[0]:
        values = [feed[name] for feed in feeds]
        on_device = any(isinstance(value, jax.Array) for value in values)
        stacked[name] = jnp.stack(values) if on_device else np.stack(values)
    return stacked


def _looped(lowered: Step) -> Any:
    """The step as a loop over stacked feeds; outputs stacked. State that is only read is not part of the carry."""

    def function(old: Any, constant: Any, feeds: Any, rates: Any, seed: Any, steps: Any) -> Any:
        def one(state: Any, item: Any) -> Any:
            feed, rate, step = item
            return lowered.function(state, constant, feed, rate, seed, step)

        return jax.lax.scan(one, old, (feeds, rates, steps))

    return function


def _describe(devices: Sequence[jax.Device]) -> str:
    first = devices[0]
    kind = "cpu" if first.platform == "cpu" else first.device_kind
    return kind if len(devices) == 1 else f"{len(devices)} x {kind}"


def _use_compilation_cache() -> None:
    """Keep compiled steps on disk, so that starting the same job again compiles nothing."""
    if jax.config.jax_compilation_cache_dir is None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(root) / "fluid-model-zoo" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
