"""The reference engine: Paddle's own executor, on CPU, or on CUDA where the installed wheel has it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from fluid import CPU_THREADS
from fluid.engine.base import Engine, check_feed
from fluid.errors import EngineError
from fluid.interface import LEARNING_RATE, Interface
from fluid.program import Program, Value, empty

import numpy as np
import paddle

ONEDNN = "FLAGS_use_mkldnn"


class PaddleEngine(Engine):
    """Keeps the state in a scope of its own, so engines do not see each other's variables."""

    name = "paddle"

    def __init__(self, device: str = "cpu", precision: str = "fp32", seed: int = 0):
        if precision != "fp32":
            raise EngineError(f"the paddle engine computes in fp32; for --precision {precision} use --engine xla")
        if device == "gpu" and not (paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count()):
            raise EngineError(
                "--engine paddle --device gpu: this build of Paddle has no CUDA or sees no GPU. "
                "Use --engine xla (pip install 'jax[cuda13]') or --device cpu"
            )
        self.device = device
        self.on_gpu = device == "gpu"
        self.seed = seed
        paddle.base.core.set_num_threads(CPU_THREADS)
        self._place = paddle.CUDAPlace(0) if device == "gpu" else paddle.CPUPlace()
        self._scope = paddle.static.Scope()
        self._executor = paddle.static.Executor(self._place)
        self._names: set[str] = set()
        self._checked: WeakSet[Interface] = WeakSet()
        self._merged: WeakKeyDictionary[Program, dict[tuple[str, ...], tuple[paddle.static.Program, list[Value]]]] = (
            WeakKeyDictionary()
        )

    def __del__(self) -> None:
        if hasattr(self, "_scope"):
            empty(self._scope)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        for name, array in state.items():
            self._scope.var(name).get_tensor().set(np.asarray(array), self._place)
            self._names.add(name)

    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        names = sorted(self._names) if names is None else names
        return {name: np.array(self._scope.find_var(name).get_tensor()) for name in names}

    def run(
        self, program: Interface, feed: Mapping[str, Any], step: int = 0, fetch: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        check_feed(program, feed)
        if not isinstance(program, Program):
            raise EngineError(f"the captured Program '{program.name}' runs on the xla engine alone: --engine xla")
        if program.statistics_batch is not None:
            raise EngineError(
                f"the Program '{program.name}' takes batch statistics over {program.statistics_batch} samples at a "
                "time, which only the xla engine does: --engine xla"
            )
        self._check_state(program)
        paddle.seed(step_seed(self.seed, step))
        if program.schedule is not None:
            rate = np.asarray(program.schedule(step), program.rate_dtype)
            self._scope.var(LEARNING_RATE).get_tensor().set(rate, self._place)
        names = list(program.outputs) if fetch is None else list(fetch)
        main, values = self._form(program, names)
        with _onednn(program.onednn and not self.on_gpu):
            arrays = self._executor.run(main, feed=dict(feed), fetch_list=values, scope=self._scope)
        if len(arrays) != len(names):
            raise RuntimeError(f"the Program '{program.name}' returned {len(arrays)} of {len(names)} outputs")
        return dict(zip(names, arrays, strict=True))

    def _form(self, program: Program, names: Sequence[str]) -> tuple[paddle.static.Program, list[Value]]:
        """What to run for these outputs or layers, and their values in it."""
        if not program.independent_rows:  # chance may be in it, and two draws are not one
            return program.main, [program.values[name] for name in names]
        forms = self._merged.setdefault(program, {})
        if tuple(names) not in forms:
            forms[tuple(names)] = merged(program, names)
        return forms[tuple(names)]

    def _check_state(self, program: Program) -> None:
        if program in self._checked:
            return
        missing = [name for name in program.state_names if name not in self._names]
        if missing:
            raise EngineError(
                f"the Program '{program.name}' needs variables that were not loaded: {', '.join(missing)}"
            )
        self._checked.add(program)


def merged(program: Program, names: Sequence[str]) -> tuple[paddle.static.Program, list[Value]]:
    """A copy of `program.main` that computes nothing twice, and the values of these outputs or layers in it.

    Most of what goes are constants, each of which Paddle makes anew where it is used. The executor's preparation before the
    first run takes as long as the square of the number of operations: 0.3 CPU seconds for 1,000, 7 for 4,000.
    """
    copies = paddle.pir.IrMapping()
    main = program.main.clone(copies)
    with paddle.static.program_guard(main):
        for column, name in enumerate(names):
            # Before the pass, which may put another value in the place of one that it finds in use.
            paddle._pir_ops.fetch(copies.look_up(program.values[name]), f"fetch{column}", column)
    passes = paddle.pir.PassManager()
    passes.add_pass("common_subexpression_elimination_pass", {})
    passes.run(main)
    return main, [op.operand_source(0) for op in main.global_block().ops if op.name() == "pd_op.fetch"]


@contextmanager
def _onednn(used: bool) -> Iterator[None]:
    """Let Paddle choose oneDNN's kernels inside the block, or leave the choice as it is."""
    before = paddle.get_flags(ONEDNN)
    paddle.set_flags({ONEDNN: used or before[ONEDNN]})
    try:
        yield
    finally:
        paddle.set_flags(before)


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, well spread over 31 bits (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    mask = (1 << 64) - 1
    mixed = (seed * 0x9E3779B97F4A7C15 + step + 1) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return (mixed ^ (mixed >> 31)) & 0x7FFFFFFF
