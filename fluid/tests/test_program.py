"""Programs: forms of one network agree, averages and accumulated gradients are exact, the guard names what broke."""

import dataclasses
import gc
import resource
import traceback
from functools import partial
from pathlib import Path

from fluid.engine.paddle import PaddleEngine, step_seed
from fluid.engine.xla import create, graph
from fluid.engine.xla.capture import capture
from fluid.errors import EngineError, UserError
from fluid.interface import Input, Interface, Output, averaged
from fluid.program import build, build_accumulating, initialise, name_layer
from fluid.schedule import Constant, Cosine

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

INPUTS = [Input("x", (None, 4)), Input("y", (None,), "int64")]


def network(x, y, training, dropout=0.0):
    hidden = paddle.nn.Linear(
        4, 8, weight_attr=paddle.ParamAttr(name="fc1_w"), bias_attr=paddle.ParamAttr(name="fc1_b")
    )
    x = name_layer("hidden", F.dropout(F.tanh(hidden(x)), dropout, training=training))
    logits = paddle.nn.Linear(8, 3, weight_attr=paddle.ParamAttr(name="fc2_w"), bias_attr=False)(x)
    return {"loss": F.cross_entropy(logits, y), "logits": logits}


def momentum(**more):
    return paddle.optimizer.Momentum(0.5, 0.9, weight_decay=1e-2, **more)


def feed(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(rows, 4)).astype(np.float32), "y": rng.integers(0, 3, rows)}


def engine_with(state, seed=0):
    engine = PaddleEngine(seed=seed)
    engine.load(state)
    return engine


@pytest.fixture(scope="module")
def train():
    return build(
        network,
        INPUTS,
        name="train",
        training=True,
        optimizer=momentum,
        schedule=Cosine(0.1, 50),
        ema_decay=0.75,
        batch_axes={"logits": 0},
    )


def test_the_interface_is_by_name(train):
    assert list(train.outputs) == ["loss", "logits", "finite"]
    assert train.guarded == ["loss", *train.trainable]
    assert sorted(train.trainable) == ["fc1_b", "fc1_w", "fc2_w"]
    assert train.parameter_count == 4 * 8 + 8 + 8 * 3
    assert "learning_rate_0" not in train.state_names
    assert {"fc1_w", "fc1_w_velocity_0", "fc1_w_ema"} <= set(train.state_names)
    assert train.scalars == ["loss"]
    assert train.outputs == {"loss": Output(None, scalar=True), "logits": Output(0), "finite": Output(None)}
    assert train.layers == {"hidden": Output(0)}


def building(changed, **options):
    """Build a training form of the network whose outputs `changed` replaces."""

    def altered(x, y, training):
        return changed(network(x, y, training), x)

    options = {"optimizer": momentum, "batch_axes": {"logits": 0}, **options}
    return build(altered, INPUTS, name="odd", training=True, **options)


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        (lambda outputs, x: outputs, {"batch_axes": None}, "'logits'.*is an array.*batch_axes={'logits': 0}"),
        (lambda outputs, x: outputs, {"batch_axes": {"logit": 0}}, "no output logit"),
        (lambda outputs, x: outputs, {"batch_axes": {"logits": 1}}, "'logits'.*no axis of samples 1"),
        (
            lambda outputs, x: {**outputs, "total": x.sum(axis=0)},
            {"optimizer": None},
            "'total'.*no axis of samples 0.*None if the output is not made of samples",
        ),
        (lambda outputs, x: {"loss": (x * 2).mean()}, {"batch_axes": None}, "does not depend on.*fc2_w, fc1_b, fc1_w"),
        (lambda outputs, x: outputs, {"carry": {"logits": "x"}}, r"'logits'.*\[None, 3\].*instead of.*\[None, 4\]"),
        (lambda outputs, x: outputs, {"carry": {"loss": "z"}}, "no output 'loss' or no input 'z'"),
    ],
)
def test_what_cannot_be_right_is_refused_when_it_is_built(changed, options, message):
    with pytest.raises(ValueError, match=message):
        building(changed, **options)


def test_accumulating_refuses_a_parameter_without_gradient():
    def half(x, y, training):
        outputs = network(x, y, training)
        return {"loss": (x * 2).mean(), "seen": outputs["loss"].mean().detach()}

    with pytest.raises(ValueError, match="fc2_w"):
        build_accumulating(half, INPUTS, name="half", optimizer=momentum, schedule=Constant(0.1), batches=2)


def test_an_lstm_of_paddle_is_trained_and_one_that_is_not_used_is_named():
    def listens(x, y, training, both):
        first = paddle.nn.LSTM(4, 4)
        if both:
            paddle.nn.LSTM(4, 4)
        return {"loss": first(x.unsqueeze(1))[0].mean()}

    common = {"name": "train", "training": True, "optimizer": momentum}
    program = build(partial(listens, both=False), INPUTS, **common)
    assert {"lstm_cell_0.w_0", "lstm_cell_0.w_1"} <= set(program.trainable)
    with pytest.raises(ValueError, match=r"lstm_cell_1\.w_0") as caught:
        build(partial(listens, both=True), INPUTS, **common)
    assert "lstm_0" not in str(caught.value)


def weighted(x, y, training):
    """Only samples of class 0 count, as positives do in detection."""
    logits = network(x, y, training)["logits"]
    counts = (y == 0).astype("float32")
    weight = counts.sum()
    return {"loss": (F.cross_entropy(logits, y, reduction="none") * counts).sum() / weight, "loss_weight": weight}


def cell(x):
    return paddle.nn.RNN(paddle.nn.GRUCell(3, 3))(x)[0]


def fused(x):
    return paddle.nn.LSTM(3, 3)(x)[0]


def decoder(x):
    """A loop whose body uses what is made of weights."""
    matrix = paddle.create_parameter([9], "float32")[:9].reshape([3, 3])
    place = paddle.zeros([1], "int64")
    return paddle.static.nn.while_loop(lambda i, y: i < 3, lambda i, y: [i + 1, paddle.matmul(y, matrix)], [place, x])[
        1
    ]


def until_nothing_changes(x):
    """A loop over numbers that a network gave."""
    x = paddle.nn.Linear(3, 3)(x)
    return paddle.static.nn.while_loop(
        lambda now, before: paddle.any(now != before),
        lambda now, before: [paddle.floor(now) + x * 0.0, now],
        [x, x - 1],
    )[0]


@pytest.mark.parametrize(
    ("network", "recurrent"),
    [(cell, True), (fused, True), (decoder, True), (until_nothing_changes, False), (F.relu, False)],
)
@pytest.mark.filterwarnings("ignore:(?s).*sequence_mask")
def test_a_program_knows_whether_it_is_recurrent(network, recurrent, tmp_path):
    program = build(lambda x, training: {"y": network(x)}, [Input("x", (None, 4, 3))], name="whatever")
    assert program.recurrent == recurrent
    graph.save_graph(tmp_path / "whatever.json", capture(program))
    assert graph.load_graph(tmp_path / "whatever.json").recurrent == recurrent


def test_accumulated_batches_of_unequal_counts_equal_one_large_batch():
    common = {"optimizer": momentum, "schedule": Constant(0.1)}
    whole = build(weighted, INPUTS, name="train", training=True, **common)
    accumulate, apply = build_accumulating(weighted, INPUTS, name="train", batches=3, **common)
    assert whole.scalars == ["loss"] and whole.weight_of("loss") == "loss_weight"
    batch = feed(12)
    batch["y"] = np.array([0, 1, 2, 1, 0, 0, 0, 0, 1, 2, 0, 1])
    one, other = engine_with(initialise(whole, seed=0)), engine_with(initialise(accumulate, apply, seed=0))
    for step in range(2):
        one.run(whole, batch, step=step)
        for part in range(3):
            rows = slice(4 * part, 4 * part + 4)
            other.run(accumulate, {name: array[rows] for name, array in batch.items()}, step=3 * step + part)
        other.run(apply, {}, step=step)
    for name in whole.state_names:
        np.testing.assert_allclose(other.state([name])[name], one.state([name])[name], rtol=2e-5, atol=1e-7)


def test_a_stream_goes_on_where_the_last_call_ended():
    """A running mean of what was heard, in one go and in two pieces."""

    def listen(x, mean, training):
        mean = mean * 0.5 + x.mean(axis=1) * 0.5
        return {"heard": mean * 1.0, "mean": mean}

    inputs = [Input("x", (None, 4)), Input("mean", (None,))]
    program = build(listen, inputs, name="listen", carry={"mean": "mean"})
    heard = [{"x": feed(2, seed)["x"]} for seed in range(5)]
    expected, mean = [], np.zeros(2)
    for item in heard:
        mean = mean * 0.5 + item["x"].mean(axis=1) * 0.5
        expected.append(mean)
    for engine in (engine_with({}), create("cpu")):
        start = {"mean": np.zeros(2, np.float32)}
        first = list(engine.stream(program, heard[:3], start))
        rest = list(engine.stream(program, heard[3:], {"mean": first[-1]["mean"]}, step=3))
        np.testing.assert_allclose([np.asarray(item["heard"]) for item in [*first, *rest]], expected, rtol=1e-5)
        assert type(first[-1]["mean"]) is type(first[-1]["heard"])


def test_averages_and_accumulation_work_from_files(tmp_path):
    common = {"optimizer": momentum, "schedule": Constant(0.1), "ema_decay": 0.75}
    built = build_accumulating(weighted, INPUTS, name="train", batches=2, **common)
    state = initialise(*built, seed=0)
    graph.save(tmp_path, map(capture, built), state)
    read, arrays = graph.load(tmp_path)
    captured = read["train"], read["train (apply)"]
    ends = []
    for (accumulate, apply), engine in ((built, PaddleEngine()), (captured, create("cpu"))):
        engine.load(arrays)
        for step in range(4):
            engine.run(accumulate, feed(6, step), step=step)
            if step % 2:
                outputs = engine.run(apply, {}, step=step // 2)
        assert np.asarray(outputs["finite"]).all() and len(apply.guarded) == 3
        ends.append(averaged(engine.state(), apply))
    for name, array in ends[0].items():
        np.testing.assert_allclose(ends[1][name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert not np.array_equal(ends[0]["fc1_w"], state["fc1_w"])
    with pytest.raises(EngineError, match="captured Program 'train' runs on the xla engine alone"):
        PaddleEngine().run(captured[0], feed(6))


def test_what_a_captured_program_says_of_itself(train, tmp_path):
    graph.save(tmp_path, [capture(train)], {})
    read = graph.load(tmp_path)[0]["train"]
    for item in dataclasses.fields(Interface):
        assert getattr(read, item.name) == getattr(train, item.name), item.name


def test_training_and_evaluation_share_parameters_by_name(train):
    evaluate = build(network, INPUTS, name="eval")
    assert set(evaluate.state_names) <= set(train.state_names)
    engine = engine_with(initialise(train, seed=0))
    before = engine.run(evaluate, feed(8))["loss"]
    for step in range(20):
        engine.run(train, feed(8), step=step)
    assert engine.run(evaluate, feed(8))["loss"] < 0.8 * before
    assert engine.run(evaluate, feed(8), fetch=["hidden"])["hidden"].shape == (8, 8)


def test_a_parameter_created_twice_is_not_trained():
    def twice(x, y, training):
        layers = [paddle.nn.Linear(4, 4, weight_attr=paddle.ParamAttr(name="w"), bias_attr=False) for _ in range(2)]
        return {"loss": F.cross_entropy(layers[1](layers[0](x)), y)}

    assert build(twice, INPUTS, name="eval").state_names == ["w"]
    message = "the Program 'train' creates w more than once"
    with pytest.raises(ValueError, match=message):
        build(twice, INPUTS, name="train", training=True, optimizer=momentum, schedule=Constant(0.1))
    with pytest.raises(ValueError, match=message):
        build_accumulating(twice, INPUTS, name="train", optimizer=momentum, schedule=Constant(0.1), batches=2)


def test_initialisation_depends_on_the_seed_alone(train):
    one, same, other = (initialise(train, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["fc1_w"], other["fc1_w"])
    assert np.array_equal(one["fc1_w_ema"], one["fc1_w"])


def test_the_learning_rate_is_the_schedule(train):
    """With momentum and decay taken out of the picture, one update is -rate * gradient."""
    still = build(
        network,
        INPUTS,
        name="sgd",
        training=True,
        optimizer=lambda: paddle.optimizer.SGD(9.0),
        schedule=Cosine(0.1, 50),
        batch_axes={"logits": 0},
    )
    state = initialise(still, seed=0)
    moved = []
    for step in (0, 25):
        engine = engine_with(state)
        engine.run(still, feed(8), step=step)
        moved.append(engine.state(["fc2_w"])["fc2_w"] - state["fc2_w"])
    np.testing.assert_allclose(moved[1], moved[0] * 0.5, rtol=1e-4, atol=1e-8)


def test_averages_follow_their_parameters(train):
    engine = engine_with(initialise(train, seed=0))
    expected = engine.state(["fc1_w"])["fc1_w"].astype(np.float64)
    for step in range(5):
        engine.run(train, feed(8, step), step=step)
        expected = 0.75 * expected + 0.25 * engine.state(["fc1_w"])["fc1_w"]
    state = engine.state()
    np.testing.assert_allclose(averaged(state, train)["fc1_w"], expected, rtol=1e-5)
    assert averaged(state, train)["fc1_w_velocity_0"] is state["fc1_w_velocity_0"]


@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulating_equals_one_large_batch(clip):
    grad_clip = {"grad_clip": paddle.nn.ClipGradByGlobalNorm(clip)} if clip else {}
    common = {"optimizer": partial(momentum, **grad_clip), "schedule": Constant(0.1), "ema_decay": 0.75}
    common["batch_axes"] = {"logits": 0}
    whole = build(network, INPUTS, name="train", training=True, **common)
    accumulate, apply = build_accumulating(network, INPUTS, name="train", batches=4, **common)
    state = initialise(accumulate, apply, seed=0)
    assert {name for name in state if not name.endswith("_gradient_sum")} == set(whole.state_names)
    one, other = engine_with(initialise(whole, seed=0)), engine_with(state)
    for step in range(3):
        batch = feed(16, step)
        one.run(whole, batch, step=step)
        for part in range(4):
            rows = slice(4 * part, 4 * part + 4)
            result = other.run(accumulate, {name: array[rows] for name, array in batch.items()}, step=4 * step + part)
            assert result["finite"].all()
        assert other.run(apply, {}, step=step)["finite"].all()
    for name in whole.state_names:
        np.testing.assert_allclose(other.state([name])[name], one.state([name])[name], rtol=2e-5, atol=1e-7)
    assert not other.state(["fc1_w_gradient_sum"])["fc1_w_gradient_sum"].any()


def test_the_guard_names_the_parameter(train):
    state = initialise(train, seed=0)
    state["fc2_w"][0, 0] = np.inf
    outputs = engine_with(state).run(train, feed(8))
    broken = [name for name, finite in zip(train.guarded, outputs["finite"]) if not finite]
    assert "loss" in broken and "fc2_w" in broken


def test_dropout_depends_on_seed_and_step_alone():
    dropping = build(partial(network, dropout=0.5), INPUTS, name="train", training=True)
    state = initialise(dropping, seed=0)

    def hidden(seed, step):
        return engine_with(state, seed).run(dropping, feed(8), step=step, fetch=["hidden"])["hidden"]

    assert np.array_equal(hidden(0, 3), hidden(0, 3))
    assert not np.array_equal(hidden(0, 3), hidden(0, 4))
    assert not np.array_equal(hidden(0, 3), hidden(1, 3))
    assert len({step_seed(seed, step) for seed in range(30) for step in range(300)}) == 9000


def test_run_many_is_run_repeated(train):
    state = initialise(train, seed=0)
    one, other = engine_with(state), engine_with(state)
    losses = [one.run(train, feed(8, step), step=7 + step)["loss"] for step in range(3)]
    feeds = [feed(8, step) for step in range(3)]
    stacked = other.run_many(train, feeds, step=7, fetch=["loss"])
    assert np.array_equal(stacked["loss"], losses)
    assert np.array_equal(other.state(["fc1_w"])["fc1_w"], one.state(["fc1_w"])["fc1_w"])
    other.load(state)
    together = {name: np.stack([one[name] for one in feeds]) for name in feeds[0]}
    assert np.array_equal(other.run_many(train, together, step=7, fetch=["loss"])["loss"], losses)


def test_an_input_has_the_axis_of_its_samples():
    with pytest.raises(ValueError, match=r"input 'rate' \[\] has no axis 0 for its samples; batch=None says"):
        Input("rate", ())
    assert Input("rate", (), batch=None).batch is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"y": None}, "missing: y"),
        ({"z": np.zeros(3)}, "unknown: z"),
        ({"x": np.zeros((8, 5), np.float32)}, r"input 'x' .* must be float32 \[any, 4\], not float32 \[8, 5\]"),
        ({"x": np.zeros((8, 4))}, "not float64"),
        ({"y": np.zeros((8, 1), np.int64)}, r"must be int64 \[any\]"),
    ],
)
def test_wrong_feeds_are_refused(train, change, message):
    batch = {name: array for name, array in {**feed(8), **change}.items() if array is not None}
    with pytest.raises(EngineError, match=message):
        engine_with(initialise(train, seed=0)).run(train, batch)


def test_a_program_whose_state_was_not_loaded_is_refused(train):
    state = initialise(train, seed=0)
    del state["fc1_w"]
    with pytest.raises(EngineError, match="not loaded: fc1_w"):
        engine_with(state).run(train, feed(8))


def test_engines_do_not_share_variables(train):
    one, other = engine_with(initialise(train, seed=0)), engine_with(initialise(train, seed=1))
    before = other.state(["fc1_w"])["fc1_w"]
    one.run(train, feed(8))
    assert np.array_equal(other.state(["fc1_w"])["fc1_w"], before)


def test_an_operation_knows_the_calls_from_the_build_on(train):
    """The network's line among them, the caller's not, however deep it is; and nobody else's stacks are changed."""
    (operation,) = [op for op in train.main.global_block().ops if op.name() == "pd_op.tanh"]
    stack = operation.attrs()["op_callstack"]
    assert " in build" in stack[0] and stack[1].strip().startswith("_add_network(")
    assert any(f'"{__file__}"' in line and " in network" in line for line in stack)
    assert any("F.tanh(hidden(x))" in line for line in stack)
    assert traceback.extract_stack()[-1].name == test_an_operation_knows_the_calls_from_the_build_on.__name__


def test_a_network_beyond_this_machines_memory_is_refused_before_it_is_tried():
    def network(x, training):
        return {"y": paddle.nn.Linear(10**8, 10**6, bias_attr=False)(x)}

    program = build(network, [Input("x", (None, 10**8))], name="huge")
    with pytest.raises(UserError, match="the 100,000,000,000,000 parameters of the network take 400,000 GB"):
        initialise(program, seed=0)


def test_neither_initialising_nor_an_engine_leaves_its_state_behind():
    """Paddle keeps every scope until the process ends; what was in it must not stay with it."""

    def wide(x, training):
        return {"y": paddle.nn.Linear(4000, 2000)(x)}

    program = build(wide, [Input("x", (None, 4000))], name="wide")

    def use():
        engine = PaddleEngine()
        engine.load(initialise(program, seed=0))
        engine.run(program, {"x": np.ones((1, 4000), np.float32)})

    use()
    before = resident_bytes()
    for _ in range(20):
        use()
    # The rest of the process may keep some more, too.
    assert resident_bytes() - before < 5 * 32e6, "each of the twenty rounds holds 32 MB twice"


def resident_bytes():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
