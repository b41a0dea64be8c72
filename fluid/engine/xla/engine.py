"""The xla engine: Programs compiled whole by XLA, on CPU or on every visible GPU."""

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from fluid import cache
from fluid.engine.base import Engine, separate
from fluid.engine.collected import Outputs
from fluid.engine.xla import distributed
from fluid.engine.xla.compiled import Compiled, Scalars
from fluid.engine.xla.devices import Devices, find_devices
from fluid.engine.xla.graph import Graph
from fluid.engine.xla.precision import find_policy
from fluid.engine.xla.rows import Rows
from fluid.engine.xla.state import State
from fluid.engine.xla.tuning import for_platform
from fluid.interface import Interface

import jax
import jax.numpy as jnp
import numpy as np


def create(
    device: str = "auto", precision: str = "fp32", seed: int = 0, kernels: str = "auto", few_runs: bool = False
) -> "XlaEngine":
    """An engine on all visible devices of a kind: `gpu`, `cpu`, or `auto` for GPUs if there are any.

    `kernels="off"` computes everything by rules, none of it by the engine's own kernels. With `few_runs` to come, what a CPU
    is to compute is compiled sooner rather than well.

    Raises EngineError if there is no such device.
    """
    engine = XlaEngine(find_devices(device), precision, seed)
    if kernels == "off":
        engine.tuning = replace(engine.tuning, kernels=False)
    if few_runs and engine.devices.platform == "cpu":
        engine.tuning = replace(engine.tuning, quick_code=True)
    return engine


@dataclass
class _Known:
    """What the engine has made of a Program; it ends with the Program."""

    graph: Graph
    compiled: dict[tuple[str, ...], Compiled] = field(default_factory=dict)


class XlaEngine(Engine):
    """Runs Programs, or Graphs captured from them, as compiled JAX functions.

    The state lives on the devices, a copy on each; inputs are spread over them along their declared axis of samples. The
    compiled step computes with the global batch, so batch statistics and means are those of the whole batch whatever the
    number of devices (unless the Program has a `statistics_batch`); only Programs of `independent_rows` are compiled for
    one device's share. With several processes (`distributed.start`) each feeds its own share of the batch and gets back
    its own rows of the outputs.
    """

    name = "xla"

    def __init__(self, devices: Sequence[jax.Device], precision: str = "fp32", seed: int = 0):
        _use_compilation_cache()
        self.devices = Devices(devices)
        self.policy = find_policy(precision)
        self.tuning = for_platform(self.devices.platform)
        self.seed = seed
        self.num_devices = self.devices.count
        self.num_hosts, self.host_id = distributed.num_hosts(), distributed.host_id()
        self.device = self.devices.description
        self.on_gpu = self.devices.platform == "gpu"
        self._state = State()
        self._programs: WeakKeyDictionary[Interface, _Known] = WeakKeyDictionary()

    def agree(self, flag: bool) -> bool:
        return distributed.agree(flag)

    def total(self, values: np.ndarray) -> np.ndarray:
        return distributed.total_over_hosts(values)

    def gather(self, array: np.ndarray) -> np.ndarray:
        return distributed.rows_of_hosts(np.asarray(array))

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        with jax.enable_x64(True):
            whole = self.devices.whole
            self._state.update({name: distributed.place(np.asarray(array), whole) for name, array in state.items()})

    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        return self._state.on_host(self._state.names() if names is None else list(names))

    def put(self, feed: Mapping[str, Any], program: Interface) -> dict[str, Any]:
        with jax.enable_x64(True):
            # An input that the Program does not have is reported when it runs.
            known = {name: program.inputs[name].batch for name in feed if name in program.inputs}
            return {**feed, **{name: self.devices.put(feed[name], axis) for name, axis in known.items()}}

    def run(
        self, program: Interface, feed: Mapping[str, Any], step: int = 0, fetch: Sequence[str] | None = None
    ) -> dict[str, jax.Array]:
        rate = program.schedule(step) if program.schedule is not None else 0.0
        scalars = Scalars(np.float64(rate), np.uint32(self.seed), np.uint32(step))
        with self._counted(program, fetch) as compiled:
            outputs = compiled.run(feed, scalars, must_share=bool(compiled.step.written) or self.num_hosts > 1)
        return {name: distributed.own_rows(value) for name, value in outputs.items()}

    def run_many(
        self,
        program: Interface,
        feeds: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        step: int = 0,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, jax.Array]:
        """See `Engine.run_many`: one copy to the device per input, one call, one loop on the device.

        Where a loop on the device would be the slower way, the steps are calls of their own.
        """
        if self.compiled(program, fetch).loops_on_host:
            results = [self.run(program, feed, step + k, fetch) for k, feed in enumerate(separate(feeds))]
            with jax.enable_x64(True):
                return {name: jnp.stack([result[name] for result in results]) for name in results[0]}
        stacked = feeds if isinstance(feeds, Mapping) else _stacked(feeds)
        count = len(next(iter(stacked.values())))
        steps = range(step, step + count)
        rates = [program.schedule(s) if program.schedule is not None else 0.0 for s in steps]
        scalars = Scalars(np.array(rates, np.float64), np.uint32(self.seed), np.array(steps, np.uint32))
        with self._counted(program, fetch) as compiled:
            outputs = compiled.run_many(stacked, scalars)
        return {name: distributed.own_rows(value) for name, value in outputs.items()}

    def collect(self) -> Outputs:
        return Rows() if self.on_gpu else super().collect()

    def compile(self, jobs: Sequence[tuple[Interface, Mapping[str, Any]]]) -> None:
        """See `Engine.compile`. The first step of each shape then finds its code in the cache on disk.

        Training Programs are not run; those that change no state are, and what they return is thrown away. What takes
        less than a second to compile is not kept in the cache, and so nothing is gained by naming it here.
        """
        began, before = time.perf_counter(), self.compile_seconds
        run: list[tuple[Interface, Mapping[str, Any]]] = []
        compiled: list[tuple[Interface, Mapping[str, Any]]] = []
        for job in jobs:
            changes_state = bool(self.compiled(job[0]).step.written)
            # Programs run by several threads on several devices may wait for one another.
            (compiled if changes_state or self.num_devices == 1 else run).append(job)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda job: self._compile(*job), compiled))
        for job in run:
            self._compile(*job)
        self.compile_seconds = before + time.perf_counter() - began

    def _compile(self, program: Interface, feed: Mapping[str, Any]) -> None:
        compiled = self.compiled(program)
        if compiled.step.written:
            compiled.compile(feed, Scalars(np.float64(0), np.uint32(0), np.uint32(0)))
        else:
            jax.block_until_ready(self.run(program, feed))

    def lowered_text(self, program: Interface, feed: Mapping[str, Any], fetch: Sequence[str] | None = None) -> str:
        """The StableHLO of a Program before XLA optimises it; needs no state."""
        return self.compiled(program, fetch).text(feed)

    @contextmanager
    def _counted(self, program: Interface, fetch: Sequence[str] | None) -> Iterator[Compiled]:
        """What is kept for a Program; what a block spends on compiling is counted."""
        compiled = self.compiled(program, fetch)
        before = compiled.compile_seconds
        yield compiled
        self.compile_seconds += compiled.compile_seconds - before

    def compiled(self, program: Interface, fetch: Sequence[str] | None = None) -> Compiled:
        """What is kept for a Program and a choice of its outputs and layers (all outputs by default)."""
        known, names = self._programs.get(program), tuple(program.outputs if fetch is None else fetch)
        began = time.perf_counter()
        if known is None:
            known = self._programs[program] = _Known(_graph_of(program))
        if names not in known.compiled:
            known.compiled[names] = Compiled(known.graph, names, self._state, self.devices, self.policy, self.tuning)
            self.compile_seconds += time.perf_counter() - began
        return known.compiled[names]


def _graph_of(program: Interface) -> Graph:
    if isinstance(program, Graph):
        # A copy: who holds the original would keep what is known of it from ending with it.
        return copy.copy(program)
    from fluid.engine.xla.capture import capture
    from fluid.program import Program

    assert isinstance(program, Program)
    return capture(program)


def _stacked(feeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """K feeds as one, [K, ...], on the host unless they are on the device already."""
    stacked = {}
    for name in feeds[0]:
        values = [feed[name] for feed in feeds]
        on_device = any(isinstance(value, jax.Array) for value in values)
        stacked[name] = jnp.stack(values) if on_device else np.stack(values)
    return stacked


def _use_compilation_cache() -> None:
    """Keep compiled steps on disk, so that starting the same job again compiles nothing."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache.compiled()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
