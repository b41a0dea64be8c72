"""The network: names and shapes of the release, published size, golden outputs of 2019, gradients, both engines."""

import csv
import dataclasses
from pathlib import Path

from fluid import engine as engines
from fluid import weights
from fluid.arrays import read_npz
from fluid.engine import xla
from fluid.engine.xla.kernels import cross_entropy
from fluid.errors import UserError, WeightsError
from fluid.formats import legacy
from fluid.program import initialise
from fluid.schedule import Constant
from fluid.weights import Bare
from neural_machine_translation.model import config_of, parameter_shapes, position_table, with_dropout
from neural_machine_translation.network import evaluation_program, load_weights, scoring_program, training_programs
from neural_machine_translation.translator import SIZES, Transformer

import numpy as np
import paddle
import pytest
from golden_values import GOLDEN_CONFIG, GOLDEN_FEED, golden_state

GOLDEN = Path(__file__).parent / "golden"
PRE = Transformer(30, 30, max_length=16, d_model=16, d_inner_hid=32, n_head=2, n_layer=2, dropout=0.0)
POST = Transformer(30, 28, max_length=16, d_model=16, d_inner_hid=32, n_head=2, n_layer=2, dropout=0.0, norm="post",
                   weight_sharing=False)  # fmt: skip
BATCH = {
    "src_word": np.array([[0, 5, 6, 7, 1], [0, 3, 1, 1, 1]]),
    "trg_word": np.array([[0, 8, 9, 1], [0, 4, 5, 6]]),
    "lbl_word": np.array([[8, 9, 1, 1], [4, 5, 6, 1]]),
}


def adam() -> paddle.optimizer.Optimizer:
    return paddle.optimizer.Adam(1.0, 0.9, 0.98, 1e-9)


def train_program(config: Transformer, label_smoothing: float = 0.1):
    return training_programs(config, label_smoothing=label_smoothing, optimizer=adam, schedule=Constant(1e-3))[0]


def test_names_and_shapes_are_those_of_the_release():
    with open(GOLDEN / "base_variables.tsv", encoding="utf-8") as file:
        released = {
            row["name"]: tuple(map(int, row["shape"].strip("[]").split(",")))
            for row in csv.DictReader(file, delimiter="\t")
        }
    assert len(released) == 187
    assert parameter_shapes(Transformer(33708, 33708, **SIZES["base"])) == released


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("layers", [(2, None), (6, 2), (1, 3), (9, None)])
def test_weights_tell_their_network(layers, sharing, norm):
    encoder, decoder = layers
    config = dataclasses.replace(
        PRE, n_layer=encoder, n_decoder_layer=decoder, norm=norm, weight_sharing=sharing, dropout=0.1
    )
    weights = {name: np.empty(shape) for name, shape in parameter_shapes(config).items()}
    assert config_of(weights, n_head=2) == config


def test_base_has_the_published_size():
    attention, inner, norm = 4 * 512 * 512, 2 * 512 * 2048 + 2048 + 512, 2 * 512
    encoder = 6 * (attention + inner + 2 * norm) + norm
    decoder = 6 * (2 * attention + inner + 3 * norm) + norm
    shapes = parameter_shapes(Transformer(37000, 37000, **SIZES["base"]))
    trained = sum(int(np.prod(shape)) for name, shape in shapes.items() if "pos_enc" not in name)
    # The paper counts 65 million with a vocabulary of about 37,000.
    assert trained == 37000 * 512 + encoder + decoder == 63_047_680


@pytest.mark.parametrize("engine_name", ["paddle", "xla"])
def test_golden_outputs_of_2019(engine_name):
    golden = read_npz(GOLDEN / "transformer_00f3_small.npz")
    engine, _ = engines.create(engine_name, "cpu")
    engine.load(golden_state())
    outputs = engine.run(scoring_program(GOLDEN_CONFIG), GOLDEN_FEED)
    logits = np.asarray(outputs["logits"]).reshape(8, 40)
    assert np.abs(logits - golden["out2"]).max() <= 1e-5 * np.abs(golden["out2"]).max()


def test_accumulated_sentences_of_unequal_length_count_word_by_word():
    """Sentences of three and of four words: one batch of two is two accumulated batches of one."""

    def descent() -> paddle.optimizer.Optimizer:
        return paddle.optimizer.SGD(1.0)

    common = {"label_smoothing": 0.1, "optimizer": descent, "schedule": Constant(0.5)}
    whole, _ = training_programs(PRE, **common)
    part, apply = training_programs(PRE, accumulate_batches=2, **common)
    assert apply is not None and whole.scalars == ["loss", "nll"]
    states = []
    for programs in [(whole,), (part, apply)]:
        engine, _ = engines.create("xla", "cpu")
        engine.load(initialise(*programs, seed=3))
        if programs == (whole,):
            engine.run(whole, BATCH)
        else:
            for row in range(2):
                engine.run(part, {name: array[row : row + 1] for name, array in BATCH.items()})
            engine.run(apply, {})
        states.append(engine.state(whole.trainable))
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("label_smoothing", "accumulate_batches"), [(0.0, 1), (0.1, 2)])
def test_the_loss_is_taken_by_the_kernel_of_gpus(label_smoothing, accumulate_batches, monkeypatch):
    taken, whole = [], cross_entropy.cross_entropy

    def counted(kernels, logits, label, smoothing):
        taken.append(smoothing)
        return whole(kernels, logits, label, smoothing)

    monkeypatch.setattr(cross_entropy, "SMALLEST", 1)
    monkeypatch.setattr(cross_entropy, "cross_entropy", counted)
    engine = xla.create("cpu", "bf16")
    engine.tuning = dataclasses.replace(engine.tuning, kernels=True)
    options = {"label_smoothing": label_smoothing, "optimizer": adam, "schedule": Constant(1e-3)}
    program, _ = training_programs(PRE, accumulate_batches=accumulate_batches, **options)
    engine.lowered_text(program, BATCH)
    assert taken == [pytest.approx(label_smoothing)]


def test_golden_label_smoothed_cost():
    golden = read_npz(GOLDEN / "transformer_00f3_small.npz")
    # Golden numbers are those of inference, where dropout multiplies by 0.9: computed here from the golden logits.
    logits, label = golden["out2"].astype(np.float64).reshape(2, 4, 40), BATCH["lbl_word"]
    counts = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    log_probability = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    own = np.take_along_axis(log_probability, label[:, :, None], 2)[:, :, 0]
    smoothed = -(0.9 * own + 0.1 * log_probability.mean(axis=2))
    assert (smoothed * counts).sum() == pytest.approx(golden["out0"][0], rel=1e-6)
    assert counts.sum() == golden["out3"][0]
    # And our loss is that formula.
    program = train_program(PRE)
    state = initialise(program, seed=1)
    engine, _ = engines.create("paddle", "cpu")
    engine.load(state)
    loss = float(engine.run(program, BATCH)["loss"])
    engine.load(state)
    logits = engine.run(scoring_program(PRE), {name: BATCH[name] for name in ("src_word", "trg_word")})[
        "logits"
    ].astype(np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    own = np.take_along_axis(log_probability, label[:, :, None], 2)[:, :, 0]
    smoothed = -(0.9 * own + 0.1 * log_probability.mean(axis=2))
    assert loss == pytest.approx((smoothed * counts).sum() / 7, rel=1e-5)


@pytest.mark.parametrize("config", [PRE, POST], ids=["pre", "post"])
def test_every_parameter_is_trained_and_the_engines_agree(config):
    program, evaluation = train_program(config), evaluation_program(config)
    state = initialise(program, seed=3)
    after, losses = {}, {}
    for name in ("paddle", "xla"):
        engine, _ = engines.create(name, "cpu")
        engine.load(state)
        losses[name] = [float(np.asarray(engine.run(program, BATCH, step=0)["loss"]))]
        after[name] = engine.state()
        losses[name].append(float(np.asarray(engine.run(evaluation, BATCH)["nll"]).sum()))
    assert losses["xla"] == pytest.approx(losses["paddle"], rel=1e-4)
    assert program.parameter_count == sum(
        int(np.prod(shape)) for name, shape in parameter_shapes(config).items() if "pos_enc" not in name
    )
    for name in program.trainable:
        step = after["paddle"][name] - state[name]
        assert np.abs(step).max() > 0, f"{name} receives no gradient"
        moment = f"{name}_moment1_0"
        gradients = [after[engine][moment] for engine in ("paddle", "xla")]
        # Small in some layers (keys shift all scores alike), so compared with the largest gradient of the network.
        largest = max(np.abs(after["paddle"][f"{other}_moment1_0"]).max() for other in program.trainable)
        assert np.abs(gradients[0] - gradients[1]).max() <= 1e-4 * largest, name
    for table in ("src_pos_enc_table", "trg_pos_enc_table"):
        assert np.array_equal(after["paddle"][table], position_table(config))


@pytest.mark.parametrize("config", [PRE, POST], ids=["pre", "post"])
def test_padding_and_company_change_nothing(config):
    engine, _ = engines.create("paddle", "cpu")
    program = scoring_program(config)
    engine.load({name: array for name, array in initialise(program, seed=5).items()})
    together = engine.run(program, {name: BATCH[name] for name in ("src_word", "trg_word")})["logits"]
    alone = engine.run(program, {"src_word": np.array([[0, 3, 1]]), "trg_word": np.array([[0, 4, 5, 6]])})["logits"]
    assert np.abs(together[1] - alone[0]).max() <= 1e-5 * np.abs(alone).max()
    changed = {"src_word": BATCH["src_word"], "trg_word": np.array([[0, 8, 9, 1], [0, 4, 7, 6]])}
    later = engine.run(program, changed)["logits"]
    assert np.abs(later[1, :2] - together[1, :2]).max() <= 1e-5 * np.abs(together).max()
    assert np.abs(later[1, 2:] - together[1, 2:]).max() > 1e-2, "a word must change what follows it"


def test_dropout_is_undone_by_its_rate():
    wet, dry = (Transformer(30, 30, 16, 16, 32, 2, 2, rate) for rate in (0.5, 0.0))
    programs = [scoring_program(config) for config in (wet, dry)]
    engine, _ = engines.create("paddle", "cpu")
    engine.load(initialise(programs[0], seed=5))
    feed = {name: BATCH[name] for name in ("src_word", "trg_word")}
    first, second, other = (engine.run(programs[index], feed)["logits"] for index in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.allclose(first, other, rtol=1e-2)


def test_weights_answer_alike_with_another_dropout():
    wet, drier = (dataclasses.replace(PRE, dropout=rate) for rate in (0.5, 0.2))
    engine, _ = engines.create("paddle", "cpu")
    feed = {name: BATCH[name] for name in ("src_word", "trg_word")}
    logits = []
    for config in (wet, drier):
        program = scoring_program(config)
        engine.load(with_dropout(initialise(program, seed=5), wet, config.dropout))
        logits.append(engine.run(program, feed)["logits"])
    assert np.abs(logits[1] - logits[0]).max() <= 1e-3 * np.abs(logits[0]).max()
    with pytest.raises(UserError, match="--norm post"):
        with_dropout({}, dataclasses.replace(POST, dropout=0.5), 0.2)


def test_config_is_read_off_the_weights():
    for config in (PRE, POST, GOLDEN_CONFIG):
        arrays = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
        assert config_of(arrays, n_head=2, dropout=config.dropout) == config
    with pytest.raises(WeightsError, match="not the weights of a Transformer"):
        config_of({"conv1_weights": np.zeros((3, 3))})
    with pytest.raises(UserError, match="multiple of n_head"):
        Transformer(30, 30, d_model=16, n_head=3)
    with pytest.raises(UserError, match="one vocabulary"):
        Transformer(30, 20)


@pytest.mark.parametrize("form", ["folder", "combined", "pdparams", "safetensors"])
def test_released_formats_load(tmp_path, form):
    state = golden_state()
    path = (
        tmp_path
        / {"folder": "model", "combined": "params.pdparams", "pdparams": "t.pdparams", "safetensors": "t.safetensors"}[
            form
        ]
    )
    if form == "combined":
        legacy.write_combined(path, state)
    else:
        weights.write_weights(path, state)
    config, loaded, report = load_weights(Bare(str(path), tmp_path, None), n_head=2, n_layer=2)
    assert config == GOLDEN_CONFIG
    assert report.fits
    assert loaded.keys() == state.keys()
    for name, array in state.items():
        assert np.array_equal(loaded[name], array), name


def test_weights_that_do_not_fit_are_refused(tmp_path):
    state = golden_state()
    del state["fc_3.w_0"]
    weights.write_weights(tmp_path / "broken.safetensors", state)
    with pytest.raises(WeightsError, match=r"fc_3\.w_0"):
        load_weights(Bare(str(tmp_path / "broken.safetensors"), tmp_path, None), n_head=2)
