"""Programs: one function builds the training, evaluation and inference forms of a network as `paddle.static` Programs.

A network is a function of named values:

    def network(image, label, training):
        logits = resnet50(image, class_dim=10, training=training)
        return {"loss": paddle.mean(F.cross_entropy(logits, label)), "logits": logits}

    train = build(network, inputs, name="train", training=True, optimizer=lambda: Momentum(...), schedule=Cosine(...))
    evaluate = build(network, inputs, name="eval")

The forms are separate Programs that agree in the *names* of their parameters; values live outside, in the state
`{name: array}` that an engine holds, so one state serves every Program of a task.
"""

import gc
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import CodeType, FrameType
from typing import TypeAlias
from unittest import mock

from fluid import MEMORY
from fluid.errors import UserError
from fluid.interface import (
    EMA_SUFFIX,
    FINITE,
    LEARNING_RATE,
    WEIGHT_SUFFIX,
    Input,
    Interface,
    Output,
    Window,
    restart_averages,
)
from fluid.schedule import Constant, Schedule

import numpy as np
import paddle

paddle.enable_static()
if threading.current_thread() is threading.main_thread():
    # Of SIGTERM Paddle would print a message and a stack.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)

Value: TypeAlias = paddle.pir.Value
Network = Callable[..., dict[str, Value]]

GRADIENT_SUM_SUFFIX = "_gradient_sum"
WEIGHT_SUM = "loss_weight_sum"
"""The weights of the batches accumulated so far."""


@dataclass(kw_only=True, eq=False)
class Program(Interface):
    """A built Program with its interface by name."""

    main: paddle.static.Program
    startup: paddle.static.Program
    values: dict[str, Value] = field(default_factory=dict)
    """The outputs and layers in `main`."""
    onednn: bool = False
    """Whether Paddle's executor runs it on a CPU with the kernels of oneDNN: faster, but some are wrong or missing, so only
    where tests compare the outputs with those of the others."""


_program_of_current_build: Program | None = None
_only_runs_forward = False


def only_runs_forward() -> bool:
    """Whether the Program being built is no training form: nobody takes its gradients, and it may be exported."""
    return _only_runs_forward


def name_layer(name: str, value: Value, batch: int | None = 0) -> Value:
    """Make an intermediate value of a network fetchable by name; returns the value itself.

    `batch` is its axis of samples, None if it has none.
    """
    if _program_of_current_build is not None:
        _program_of_current_build.layers[name] = Output(batch)
        _program_of_current_build.values[name] = value
    return value


def build(
    network: Network,
    inputs: Sequence[Input],
    *,
    name: str,
    training: bool = False,
    optimizer: Callable[[], paddle.optimizer.Optimizer] | None = None,
    schedule: Schedule | None = None,
    ema_decay: float | Window | None = None,
    batch_axes: Mapping[str, int | None] | None = None,
    carry: Mapping[str, str] | None = None,
    statistics_batch: int | None = None,
    independent_rows: bool = False,
    onednn: bool = False,
) -> Program:
    """Build one Program.

    Args:
        network: called with one Value per input (by name) and `training`; returns the outputs by name.
        inputs: what is fed.
        name: how messages call the Program.
        training: builds dropout, batch statistics, recurrences and auxiliary heads in their training form.
        optimizer: makes the optimizer of the output `loss`; its learning rate is replaced by `schedule`.
        schedule: learning rate by update count; needed with `optimizer`.
        ema_decay: keep an average `<parameter>_ema` of every trainable parameter: exponential with this decay, or over the
            latest updates.
        batch_axes: axis of samples of outputs, None for one without: needed where it is not the first axis, and for every
            array that a Program with an optimizer returns, since log lines take single numbers alone.
        carry: output -> input that takes it in the next call of a stream (`Engine.stream`).
        statistics_batch, independent_rows: see `fluid.interface.Interface`.
        onednn: see `Program`; never in training, where batch normalisation would keep its first statistics.

    Raises ValueError, by name, for an output whose axis of samples is not one, and for a trainable parameter that the
    loss does not depend on or that the network creates more than once.

    A Program with an optimizer has the further output `finite` (bool, [1 + parameters]): whether the loss and every
    updated parameter are finite numbers. Both are watched because Paddle's CPU kernels turn relu(NaN) into 0, which
    lets the loss look healthy while the weights are not.
    """
    program = _empty(name, inputs)
    program.statistics_batch, program.independent_rows = statistics_batch, independent_rows
    program.onednn = onednn
    with _building(program, forward=not training and optimizer is None):
        _add_network(program, network, training)
        _declare_outputs(program, batch_axes or {}, updates=optimizer is not None)
        _declare_carry(program, carry or {})
        if optimizer is not None:
            _check_created_once(program)
            parameters = trainable_values(program.main)
            _, pairs = optimizer().minimize(program.values["loss"])
            _check_gradients(program, parameters, pairs)
            _add_averages(program, parameters, ema_decay)
            _add_guard(program, parameters)
            program.schedule = schedule or Constant(0.0)
    return _finish(program)


def build_accumulating(
    network: Network,
    inputs: Sequence[Input],
    *,
    name: str,
    optimizer: Callable[[], paddle.optimizer.Optimizer],
    schedule: Schedule,
    batches: int,
    ema_decay: float | Window | None = None,
    batch_axes: Mapping[str, int | None] | None = None,
    statistics_batch: int | None = None,
) -> tuple[Program, Program]:
    """Build the pair (accumulate, apply) for gradient accumulation over `batches` batches.

    `accumulate` runs forward and backward and adds the gradients to `<parameter>_gradient_sum`; `apply` takes no input,
    updates the parameters with the mean gradient and clears the sums. Where the network returns `loss_weight`, the mean
    is weighted by it, as if all batches had been one. Arguments as in `build`.
    """
    accumulate = _empty(name, inputs)
    accumulate.statistics_batch = statistics_batch
    with _building(accumulate):
        _add_network(accumulate, network, training=True)
        _declare_outputs(accumulate, batch_axes or {}, updates=True)
        _check_created_once(accumulate)
        parameters = trainable_values(accumulate.main)
        gradients = paddle.static.append_backward(accumulate.values["loss"], parameter_list=parameters)
        _check_gradients(accumulate, parameters, gradients)
        _add_guard(accumulate, [])
        weight = accumulate.values.get("loss" + WEIGHT_SUFFIX)
        _add_up(gradients, weight)
    apply = _empty(name + " (apply)", [])
    with _building(apply):
        pairs, sums = _mean_gradients([parameter for parameter, _ in gradients], batches, weight)
        optimizer().apply_gradients(pairs)
        for total in sums:
            paddle.assign(paddle.zeros_like(total), total)
        parameters = [parameter for parameter, _ in pairs]
        _add_averages(apply, parameters, ema_decay)
        _add_guard(apply, parameters)
    apply.schedule = schedule
    return _finish(accumulate), _finish(apply)


def initialise(*programs: Program, seed: int) -> dict[str, np.ndarray]:
    """The initial state of Programs that share it: each startup Program is run on the CPU in a scope of its own.

    Where several initialise the same variable, the first one counts. Raises UserError if this machine has no memory for them.
    """
    for program in programs:
        if (size := 4 * program.parameter_count) > MEMORY:
            raise UserError(
                f"the {program.parameter_count:,} parameters of the network take {size / 1e9:,.0f} GB, and this machine has "
                f"{MEMORY / 1e9:.0f} GB of memory: make it smaller"
            )
    state: dict[str, np.ndarray] = {}
    for program in programs:
        paddle.seed(seed)
        with temporary_scope() as scope:
            paddle.static.Executor(paddle.CPUPlace()).run(program.startup)
            for name in program.state_names:
                if name not in state:
                    state[name] = np.array(scope.find_var(name).get_tensor())
    for program in programs:
        restart_averages(state, program)
    return state


@contextmanager
def temporary_scope() -> Iterator[paddle.static.Scope]:
    """A scope of Paddle that is the current one inside the block and empty after it."""
    scope = paddle.static.Scope()
    try:
        with paddle.static.scope_guard(scope):
            yield scope
    finally:
        empty(scope)


def empty(scope: paddle.static.Scope) -> None:
    """Free what a scope holds: Paddle keeps every scope itself until the process ends."""
    scope.drop_kids()
    scope.erase(scope.local_var_names())


def _empty(name: str, inputs: Sequence[Input]) -> Program:
    main, startup = paddle.static.Program(), paddle.static.Program()
    return Program(name=name, main=main, startup=startup, inputs={item.name: item for item in inputs})


def _add_network(program: Program, network: Network, training: bool) -> None:
    inputs = program.inputs.values()
    values = {item.name: paddle.static.data(item.name, list(item.shape), item.dtype) for item in inputs}
    outputs = network(training=training, **values)
    program.values.update(outputs)
    program.outputs = dict.fromkeys(outputs, Output())


def _declare_outputs(program: Program, batch_axes: Mapping[str, int | None], updates: bool) -> None:
    """What the outputs are: declared in `batch_axes`, single numbers, or (in Programs without updates) rows of samples."""
    unknown = batch_axes.keys() - program.outputs.keys()
    if unknown:
        raise ValueError(f"the Program '{program.name}' has no output {', '.join(sorted(unknown))} (batch_axes)")
    batched = [item for item in program.inputs.values() if item.batch is not None]
    free = any(item.batch is not None and item.shape[item.batch] is None for item in batched)
    for name in program.outputs:
        shape = list(program.values[name].shape)
        if not shape:
            program.outputs[name] = Output(None, scalar=True)
            continue
        if updates and name not in batch_axes:
            raise ValueError(
                f"the output '{name}' of the training Program '{program.name}' is an array, {shape}; log lines take single "
                f"numbers. Reduce it, leave it out, or name its axis of samples: batch_axes={{'{name}': 0}}"
            )
        axis = batch_axes.get(name, 0 if batched else None)
        if axis is not None and (axis >= len(shape) or (free and shape[axis] != -1)):
            raise ValueError(
                f"the output '{name}' of the Program '{program.name}', {shape}, has no axis of samples {axis}; name it in "
                f"build(batch_axes={{'{name}': AXIS}}), None if the output is not made of samples"
            )
        program.outputs[name] = Output(axis)


def _declare_carry(program: Program, carry: Mapping[str, str]) -> None:
    for name, taken_by in carry.items():
        if name not in program.outputs or taken_by not in program.inputs:
            raise ValueError(f"the Program '{program.name}' has no output '{name}' or no input '{taken_by}' (carry)")
        value, item = program.values[name], program.inputs[taken_by]
        shape = tuple(None if length < 0 else length for length in value.shape)
        declared = (item.shape, item.dtype, item.batch)
        if (shape, dtype_name(value), program.outputs[name].batch) != declared:
            raise ValueError(
                f"the output '{name}' of the Program '{program.name}' cannot be carried to the input '{taken_by}': "
                f"{dtype_name(value)} {list(shape)} with samples along {program.outputs[name].batch}, "
                f"instead of {item.dtype} {list(item.shape)} along {item.batch}"
            )
    program.carry = dict(carry)


def _add_up(gradients: Sequence[tuple[Value, Value]], weight: Value | None) -> None:
    """Add the gradients of a batch, times its weight if it has one, to their sums, and that to the sum of weights."""
    for parameter, gradient in gradients:
        total = _persistent_like(parameter, parameter.name + GRADIENT_SUM_SUFFIX)
        paddle.assign(total + (gradient if weight is None else gradient * weight.astype(gradient.dtype)), total)
    if weight is not None:
        total = _persistent([], dtype_name(weight), WEIGHT_SUM)
        paddle.assign(total + weight, total)


def _mean_gradients(
    sources: Sequence[Value], batches: int, weight: Value | None
) -> tuple[list[tuple[Value, Value]], list[Value]]:
    """The parameters `sources` of another Program in this one, each with its mean gradient; and the sums these are made of."""
    pairs, sums = [], []
    divisor = paddle.full([], batches, "float32")
    if weight is not None:
        sums.append(_persistent([], dtype_name(weight), WEIGHT_SUM))
        # No sample counted in any batch: the gradients are zero, and stay so.
        divisor = paddle.maximum(sums[0], paddle.full_like(sums[0], 1e-12))
    for source in sources:
        attributes = paddle.ParamAttr(name=source.name, learning_rate=source.optimize_attr["learning_rate"])
        parameter = paddle.create_parameter(list(source.shape), dtype_name(source), attr=attributes)
        parameter.regularizer, parameter.need_clip = source.regularizer, source.need_clip
        total = _persistent_like(source, source.name + GRADIENT_SUM_SUFFIX)
        pairs.append((parameter, total / divisor.astype(total.dtype)))
        sums.append(total)
    return pairs, sums


def _check_gradients(
    program: Program, parameters: Sequence[Value], gradients: Sequence[tuple[Value, Value | None]]
) -> None:
    """Raise ValueError naming the trainable parameters that got no gradient: they would keep their initial values."""
    trained = {parameter.name for parameter, gradient in gradients if gradient is not None}
    left = [item.name for item in parameters if item.name not in trained and not _is_flat_copy(item)]
    if left:
        raise ValueError(
            f"the loss of the Program '{program.name}' does not depend on the trainable parameters {', '.join(left)}; use "
            "them, leave them out of the training form, or create them with trainable=False"
        )


def _is_flat_copy(parameter: Value) -> bool:
    """Whether it is the copy of all its weights in one row that every nn.LSTM and nn.GRU creates, for cuDNN, and never reads."""
    callstack = parameter.get_defining_op().attrs().get("op_callstack", [])
    return parameter.use_empty() and any("paddle/nn/layer/rnn.py" in frame for frame in callstack)


@contextmanager
def _building(program: Program, *, forward: bool = False) -> Iterator[None]:
    """Append ops to `program`; generated names start from 0, and the network can name its layers."""
    global _program_of_current_build, _only_runs_forward
    _program_of_current_build, _only_runs_forward = program, forward
    try:
        with (
            paddle.static.program_guard(program.main, program.startup),
            paddle.utils.unique_name.guard(),
            _short_stacks(sys._getframe(2)),
            _young_garbage_collected(),
        ):
            yield
    finally:
        _program_of_current_build, _only_runs_forward = None, False


@contextmanager
def _short_stacks(outermost: FrameType) -> Iterator[None]:
    """Record with each operation the calls from `outermost` on.

    Paddle asks `traceback` for the whole stack with the text of every line, for every operation, which takes most of the
    time of a build.
    """

    def extract_stack() -> list[traceback.FrameSummary]:
        frame: FrameType | None = sys._getframe(1)
        frames = []
        while frame is not None:
            frames.append(_summary(frame.f_code, frame.f_lineno))
            frame = frame.f_back if frame is not outermost else None
        return frames[::-1]

    with mock.patch.object(traceback, "extract_stack", extract_stack):
        yield


@contextmanager
def _young_garbage_collected() -> Iterator[None]:
    """Collect the garbage of a build as it ends, and none before, so that all of it is young.

    Paddle's backward pass leaves cycles of references. Through them Python objects that stand for places in the memory of
    the Program would outlive it; pybind11 takes an object that it knows at an address for what lies there next, and the
    backward pass of another Program goes through a loop or a branch with the wrong values, or crashes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if enabled:
            gc.enable()


@cache
def _summary(code: CodeType, line: int) -> traceback.FrameSummary:
    return traceback.FrameSummary(code.co_filename, line, code.co_name)


def _finish(program: Program) -> Program:
    for op in program.main.global_block().ops:
        attributes = op.attrs()
        if op.name() == "builtin.parameter":
            program.state_names.append(attributes["parameter_name"])
        elif op.name() == "pd_op.data" and attributes["name"] == LEARNING_RATE:
            program.rate_dtype = dtype_name(op.results()[0])
        elif op.name() == "pd_op.data" and op.results()[0].persistable:
            program.state_names.append(attributes["name"])
    program.state_names = list(dict.fromkeys(program.state_names))
    parameters = trainable_values(program.main)
    program.recurrent = _is_recurrent(program.main)
    program.trainable = [value.name for value in parameters]
    program.parameter_count = sum(int(np.prod(value.shape)) for value in parameters)
    return program


FUSED_RECURRENCES = ("pd_op.rnn", "pd_op.cudnn_lstm")


def _is_recurrent(main: paddle.static.Program) -> bool:
    """Whether it has `nn.LSTM` and its kin, or a loop whose body uses weights, or what is made of weights alone.

    A loop that only goes on until nothing changes, as in suppressing boxes, uses none.
    """
    numbers: set[int] = set()
    weights: set[int] = set()
    for op in main.global_block().ops:
        operands = {value.id for value in op.operands_source() if value.initialized()}
        results = {value.id for value in op.results()}
        if op.name() in FUSED_RECURRENCES or (op.name() == "pd_op.while" and _values_read(op) & weights):
            return True
        if op.name() == "builtin.parameter" or (operands & weights and operands <= weights | numbers):
            weights |= results
        elif op.name() != "pd_op.data" and operands <= numbers:
            numbers |= results
    return False


def _values_read(op: paddle.pir.Operation) -> set[int]:
    """The values that an operation or the blocks in it use."""
    read = {value.id for value in op.operands_source() if value.initialized()}
    return read.union(*(_values_read(inner) for block in op.blocks() for inner in block.ops))


def trainable_values(main: paddle.static.Program | None = None) -> list[Value]:
    """The parameters of a Program, by default of the one that is being built, that an optimizer is to change."""
    main = paddle.static.default_main_program() if main is None else main
    return [value for value in main.global_block().all_parameters() if value.trainable]


def _check_created_once(program: Program) -> None:
    """Raise ValueError where an optimizer would silently update one parameter several times a step."""
    names = [value.name for value in trainable_values(program.main)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"the Program '{program.name}' creates {', '.join(twice)} more than once, and each would be updated by "
            "itself: create a shared parameter, or its Layer, once and use that again"
        )


def _persistent_like(value: Value, name: str) -> Value:
    return _persistent(list(value.shape), dtype_name(value), name)


def _persistent(shape: list[int], dtype: str, name: str) -> Value:
    zero = paddle.nn.initializer.Constant(0.0)
    return paddle.create_parameter(shape, dtype, attr=paddle.ParamAttr(name=name, trainable=False, initializer=zero))


def dtype_name(value: Value) -> str:
    """The type of a value as NumPy calls it, `float32` say."""
    return str(value.dtype).rpartition(".")[2].lower()


def _add_averages(program: Program, parameters: list[Value], decay: float | Window | None) -> None:
    if decay is None:
        return
    mean = _WindowCounts(decay).mean if isinstance(decay, Window) else partial(_exponential, decay)
    for parameter in parameters:
        average = _persistent_like(parameter, parameter.name + EMA_SUFFIX)
        paddle.assign(mean(parameter, average), average)
        program.averages[parameter.name + EMA_SUFFIX] = parameter.name


def _exponential(decay: float, parameter: Value, average: Value) -> Value:
    return average * decay + parameter * (1.0 - decay)


class _WindowCounts:
    """Counts of a window's updates, and the sums that go with them; as Fluid's `average_accumulates` kept them."""

    def __init__(self, window: Window) -> None:
        names = ("updates", "count", "count_before")
        updates, count, before = kept = [_persistent([], "float32", f"@average_{name}@") for name in names]
        updates_now, count_now = updates + 1.0, count + 1.0
        enough = paddle.minimum(updates_now * window.share, paddle.full_like(updates_now, window.most))
        self._restarts = paddle.logical_and(count_now >= float(window.least), count_now >= enough)
        left = (updates_now, *self._moved(count_now, before))
        self._total = left[1] + left[2]
        for variable, value in zip(kept, left, strict=True):
            paddle.assign(value, variable)

    def mean(self, parameter: Value, average: Value) -> Value:
        """Of a parameter over the window, this update included; what it was before does not matter."""
        sums = [_persistent_like(parameter, f"{parameter.name}_{name}_0") for name in ("sum_1", "sum_3")]
        left = self._moved(sums[0] + parameter, sums[1])
        for variable, value in zip(sums, left, strict=True):
            paddle.assign(value, variable)
        return (left[0] + left[1]) / self._total.astype(parameter.dtype)

    def _moved(self, now: Value, before: Value) -> tuple[Value, Value]:
        """What is being gathered and what was gathered before, after this update."""
        return paddle.where(self._restarts, paddle.zeros_like(now), now), paddle.where(self._restarts, now, before)


def _add_guard(program: Program, parameters: list[Value]) -> None:
    watched = {name: program.values[name] for name in ("loss",) if name in program.values}
    watched |= {value.name: value for value in parameters}
    program.guarded = list(watched)
    program.values[FINITE] = _all_finite(list(watched.values()))
    program.outputs[FINITE] = Output(None)


def _all_finite(values: list[Value]) -> Value:
    """Whether each value is finite everywhere, [len(values)] bool: a sum is finite only if every summand is."""
    return paddle.isfinite(paddle.stack([paddle.sum(value).reshape([]) for value in values]))
