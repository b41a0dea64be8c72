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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fluid.schedule import Constant, Schedule

import numpy as np
import paddle

paddle.enable_static()

Value = paddle.pir.Value
Network = Callable[..., dict[str, Value]]

LEARNING_RATE = "learning_rate_0"
"""Paddle's name for the variable that an optimizer reads; the engines write `schedule(step)` to it before each update."""

EMA_SUFFIX = "_ema"
GRADIENT_SUM_SUFFIX = "_gradient_sum"


@dataclass(frozen=True)
class Input:
    """A named input; `None` in `shape` is an axis whose length is known only when a batch is fed."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass
class Program:
    """A built Program with its interface by name."""

    name: str
    main: paddle.static.Program
    startup: paddle.static.Program
    inputs: dict[str, Input]
    outputs: dict[str, Value]
    layers: dict[str, Value] = field(default_factory=dict)
    """Intermediate values named by the network, for feature extraction."""
    schedule: Schedule | None = None
    rate_dtype: str = "float32"
    """Type of the learning rate, that of the parameters."""
    state_names: list[str] = field(default_factory=list)
    """Parameters, statistics and optimizer accumulators the Program reads or writes."""
    trainable: list[str] = field(default_factory=list)
    averages: dict[str, str] = field(default_factory=dict)
    """Name of an exponential moving average -> name of the parameter it follows."""
    guarded: list[str] = field(default_factory=list)
    """What the entries of the output `finite` speak of, in order."""
    statistics_batch: int | None = None
    """Consecutive samples that batch normalisation takes its statistics over; None: the whole batch. For the xla engine."""
    independent_rows: bool = False
    """No row of a batch depends on another, and none on chance: several devices may run the Program each on its own rows.

    Random operations would draw the same numbers on every device.
    """


_layers_of_current_build: dict[str, Value] | None = None


def name_layer(name: str, value: Value) -> Value:
    """Make an intermediate value of a network fetchable as `program.layers[name]`; returns the value itself."""
    if _layers_of_current_build is not None:
        _layers_of_current_build[name] = value
    return value


def build(
    network: Network,
    inputs: Sequence[Input],
    *,
    name: str,
    training: bool = False,
    optimizer: Callable[[], paddle.optimizer.Optimizer] | None = None,
    schedule: Schedule | None = None,
    ema_decay: float | None = None,
) -> Program:
    """Build one Program.

    Args:
        network: called with one Value per input (by name) and `training`; returns the outputs by name.
        inputs: what is fed.
        name: how messages call the Program.
        training: builds dropout, batch statistics and auxiliary heads in their training form.
        optimizer: makes the optimizer of the output `loss`; its learning rate is replaced by `schedule`.
        schedule: learning rate by update count; needed with `optimizer`.
        ema_decay: keep an exponential moving average `<parameter>_ema` of every trainable parameter.

    A Program with an optimizer has the further output `finite` (bool, [1 + parameters]): whether the loss and every
    updated parameter are finite numbers. Both are watched because Paddle's CPU kernels turn relu(NaN) into 0, which
    lets the loss look healthy while the weights are not.

    Raises ValueError if an optimizer is to train a parameter that the network creates more than once.
    """
    program = _empty(name, inputs)
    with _building(program):
        _add_network(program, network, training)
        if optimizer is not None:
            _check_created_once(program)
            optimizer().minimize(program.outputs["loss"])
            parameters = _trainable_values(program.main)
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
    ema_decay: float | None = None,
) -> tuple[Program, Program]:
    """Build the pair (accumulate, apply) for gradient accumulation over `batches` batches.

    `accumulate` runs forward and backward and adds the gradients to `<parameter>_gradient_sum`; `apply` takes no input,
    updates the parameters with the mean gradient and clears the sums. Arguments as in `build`.
    """
    accumulate = _empty(name, inputs)
    with _building(accumulate):
        _add_network(accumulate, network, training=True)
        _check_created_once(accumulate)
        parameters = _trainable_values(accumulate.main)
        gradients = paddle.static.append_backward(accumulate.outputs["loss"], parameter_list=parameters)
        accumulate.outputs["finite"] = _all_finite([accumulate.outputs["loss"]])
        accumulate.guarded = ["loss"]
        for parameter, gradient in gradients:
            total = _persistent_like(parameter, parameter.name + GRADIENT_SUM_SUFFIX)
            paddle.assign(total + gradient, total)

    apply = _empty(name + " (apply)", [])
    with _building(apply):
        pairs, sums = [], []
        for source, _ in gradients:
            attributes = paddle.ParamAttr(name=source.name, learning_rate=source.optimize_attr["learning_rate"])
            parameter = paddle.create_parameter(list(source.shape), _dtype_name(source), attr=attributes)
            parameter.regularizer, parameter.need_clip = source.regularizer, source.need_clip
            total = _persistent_like(source, source.name + GRADIENT_SUM_SUFFIX)
            pairs.append((parameter, total / float(batches)))
            sums.append(total)
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

    Where several initialise the same variable, the first one counts.
    """
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


def restart_averages(state: dict[str, np.ndarray], program: Program) -> None:
    """Let every moving average in `state` start from its parameter, as after loading weights."""
    for average, parameter in program.averages.items():
        state[average] = state[parameter].copy()


def averaged(state: dict[str, np.ndarray], program: Program) -> dict[str, np.ndarray]:
    """`state` with every parameter replaced by its moving average: the weights to evaluate with."""
    return {**state, **{parameter: state[average] for average, parameter in program.averages.items()}}


def parameter_count(program: Program) -> int:
    """Number of trainable scalars."""
    values = {value.name: value for value in program.main.global_block().all_parameters()}
    return sum(int(np.prod(values[name].shape)) for name in program.trainable)


def _empty(name: str, inputs: Sequence[Input]) -> Program:
    return Program(name, paddle.static.Program(), paddle.static.Program(), {item.name: item for item in inputs}, {})


def _add_network(program: Program, network: Network, training: bool) -> None:
    inputs = program.inputs.values()
    values = {item.name: paddle.static.data(item.name, list(item.shape), item.dtype) for item in inputs}
    program.outputs = dict(network(training=training, **values))


@contextmanager
def _building(program: Program) -> Iterator[None]:
    """Append ops to `program`; generated names start from 0, and the network can name its layers."""
    global _layers_of_current_build
    _layers_of_current_build = program.layers
    try:
        with paddle.static.program_guard(program.main, program.startup), paddle.utils.unique_name.guard():
            yield
    finally:
        _layers_of_current_build = None


def _finish(program: Program) -> Program:
    for op in program.main.global_block().ops:
        attributes = op.attrs()
        if op.name() == "builtin.parameter":
            program.state_names.append(attributes["parameter_name"])
        elif op.name() == "pd_op.data" and attributes["name"] == LEARNING_RATE:
            program.rate_dtype = _dtype_name(op.results()[0])
        elif op.name() == "pd_op.data" and op.results()[0].persistable:
            program.state_names.append(attributes["name"])
    program.state_names = list(dict.fromkeys(program.state_names))
    program.trainable = [value.name for value in _trainable_values(program.main)]
    return program


def _trainable_values(main: paddle.static.Program) -> list[Value]:
    return [value for value in main.global_block().all_parameters() if value.trainable]


def _check_created_once(program: Program) -> None:
    """Raise ValueError where an optimizer would silently update one parameter several times a step."""
    names = [value.name for value in _trainable_values(program.main)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"the Program '{program.name}' creates {', '.join(twice)} more than once, and each would be updated by "
            "itself: create a shared parameter, or its Layer, once and use that again"
        )


def _persistent_like(value: Value, name: str) -> Value:
    zero = paddle.nn.initializer.Constant(0.0)
    attributes = paddle.ParamAttr(name=name, trainable=False, initializer=zero)
    return paddle.create_parameter(list(value.shape), _dtype_name(value), attr=attributes)


def _dtype_name(value: Value) -> str:
    return str(value.dtype).rpartition(".")[2].lower()


def _add_averages(program: Program, parameters: list[Value], decay: float | None) -> None:
    if decay is None:
        return
    for parameter in parameters:
        average = _persistent_like(parameter, parameter.name + EMA_SUFFIX)
        paddle.assign(average * decay + parameter * (1.0 - decay), average)
        program.averages[parameter.name + EMA_SUFFIX] = parameter.name


def _add_guard(program: Program, parameters: list[Value]) -> None:
    watched = ([program.outputs["loss"]] if "loss" in program.outputs else []) + parameters
    program.guarded = (["loss"] if "loss" in program.outputs else []) + [value.name for value in parameters]
    program.outputs["finite"] = _all_finite(watched)


def _all_finite(values: list[Value]) -> Value:
    """Whether each value is finite everywhere, [len(values)] bool: a sum is finite only if every summand is."""
    return paddle.isfinite(paddle.stack([paddle.sum(value).reshape([]) for value in values]))
