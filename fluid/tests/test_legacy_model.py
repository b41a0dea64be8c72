"""Fluid's inference models: parsing, repair, running, converting."""

import os
import random
import shutil
import struct
import sys
import tracemalloc
from pathlib import Path

from fluid.arrays import read_npz
from fluid.errors import WeightsError
from fluid.formats import legacy, legacy_model, wire

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"
FORMATS = GOLDEN / "formats"
BREAKOUT = Path(__file__).resolve().parents[2] / "DeepQNetwork" / "data" / "breakout_2018"
"""Real weights of Fluid that come along anyway."""


def message(*items) -> bytes:
    """A protobuf message from (number, value): text and bytes as they are, integers as varints, floats in 32 bits."""
    coded = []
    for number, value in items:
        if isinstance(value, int):
            coded.append((number, wire.VARINT, value))
        elif isinstance(value, float):
            coded.append((number, wire.FIXED32, struct.pack("<f", value)))
        else:
            coded.append((number, wire.BYTES, value.encode() if isinstance(value, str) else value))
    return wire.encode(coded)


def variable(name, shape, persistable=False, kind=legacy_model.DENSE_TENSOR, data_type=5) -> bytes:
    tensor = message((1, data_type), *((2, d) for d in shape))
    content = message((1, kind), (3, message((1, tensor))))
    return message((1, name), (2, content), (3, int(persistable)))


def operator(kind, inputs, outputs, *attributes) -> bytes:
    sides = [
        (number, message((1, slot), *((2, n) for n in names)))
        for number, side in ((1, inputs), (2, outputs))
        for slot, names in side.items()
    ]
    return message(*sides, (3, kind), *((4, a) for a in attributes))


def model_folder(path: Path, variables, operators, output="out") -> Path:
    """A folder with a program x -> output as Fluid of 2018 wrote them: no version, feed and fetch operators."""
    path.mkdir()
    holders = [
        message((1, "feed"), (2, message((1, 9))), (3, 1)),
        message((1, "fetch"), (2, message((1, 10))), (3, 1)),
    ]
    column = message((1, "col"), (2, legacy_model.INT), (3, 0))
    operators = [
        operator("feed", {"X": ["feed"]}, {"Out": ["x"]}, column),
        *operators,
        operator("fetch", {"X": [output]}, {"Out": ["fetch"]}, column),
    ]
    block = message((1, 0), (2, -1), *((3, v) for v in [*holders, *variables]), *((4, o) for o in operators))
    (path / "__model__").write_bytes(message((1, block)))
    return path


def run_current(folder: Path, x: np.ndarray) -> np.ndarray:
    """The output of a converted model by the plain executor."""
    import paddle

    paddle.enable_static()
    executor = paddle.static.Executor(paddle.CPUPlace())
    program, (feed,), fetches = paddle.static.load_inference_model(str(folder / "inference"), executor)
    return executor.run(program, {feed: x}, fetches)[0]


def test_parsing():
    model = legacy_model.read_model(BREAKOUT)
    assert (model.feeds, model.fetches) == (["state"], ["tmp_3"])
    kinds = [operator.type for operator in model.blocks[0].operators]
    assert len(kinds) == 27 and kinds.count("conv2d") == 4
    reduce_mean = next(operator for operator in model.blocks[0].operators if operator.type == "reduce_mean")
    assert reduce_mean.attributes["dim"] == 1
    assert model.blocks[0].variables["policy_conv1"].shape == [32, 4, 5, 5]
    pool = next(operator for operator in model.blocks[0].operators if operator.type == "pool2d")
    assert pool.attributes["ksize"] == [2, 2] and pool.attributes["pooling_type"] == "max"


def test_repair_changes_the_one_attribute_and_nothing_else():
    program = (BREAKOUT / "__model__").read_bytes()
    assert legacy_model.repair(program, {}) == program
    repaired = legacy_model.repair(program, {("reduce_mean", "dim"): legacy_model.INTS})
    assert [i for i, (a, b) in enumerate(zip(program, repaired, strict=True), 1) if a != b] == [4671, 4672]
    before, after = (legacy_model.parse_program(p)[0].operators for p in (program, repaired))
    changed = [(a.type, b.attributes["dim"]) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [("reduce_mean", [1])]


@pytest.mark.parametrize(
    "folder, name",
    [
        ("inference_model", "save_infer_model/scale_0.tmp_0"),
        ("inference_model_combined", "save_infer_model/scale_0.tmp_1"),
    ],
)
def test_running_a_model_of_fluid_1_8(folder, name):
    golden = read_npz(FORMATS / "io.npz")
    outputs = legacy_model.run_model(FORMATS / folder, {"image": golden["x"]})
    assert list(outputs) == [name]
    assert np.abs(outputs[name] - golden["y"]).max() <= 1e-5 * np.abs(golden["y"]).max()


@pytest.mark.parametrize("onednn", [False, True])
def test_running_the_dqn_of_2018(onednn):
    golden = read_npz(GOLDEN / "dqn_breakout_2018.npz")
    values = legacy_model.run_model(BREAKOUT, {"state": golden["state"].astype(np.float32)}, onednn)["tmp_3"]
    assert np.abs(values - golden["q"]).max() <= 1e-5 * np.abs(golden["q"]).max()


def test_converting(tmp_path):
    golden = read_npz(GOLDEN / "dqn_breakout_2018.npz")
    files = legacy_model.convert_model(BREAKOUT, tmp_path / "current")
    assert [file.name for file in files] == ["inference.json", "inference.pdiparams"]
    values = run_current(tmp_path / "current", golden["state"].astype(np.float32))
    assert np.abs(values - golden["q"]).max() <= 1e-5 * np.abs(golden["q"]).max()
    with pytest.raises(WeightsError, match="exists already"):
        legacy_model.convert_model(BREAKOUT, tmp_path / "current")


def test_dropout_of_2018_scales_in_inference(tmp_path):
    # Programs of before August 2018 lack the attribute that chooses the implementation; x * (1 - p) is what it meant.
    rate = message((1, "dropout_prob"), (2, legacy_model.FLOAT), (4, 0.25))
    testing = message((1, "is_test"), (2, 6), (10, 1))
    names = ("x", "sum", "mask", "out")
    folder = model_folder(
        tmp_path / "net",
        [*(variable(name, (-1, 3)) for name in names), variable("w", (3,), persistable=True)],
        [
            operator("elementwise_add", {"X": ["x"], "Y": ["w"]}, {"Out": ["sum"]}),
            operator("dropout", {"X": ["sum"]}, {"Out": ["out"], "Mask": ["mask"]}, rate, testing),
        ],
    )
    legacy.write_tensor(folder / "w", np.ones(3, np.float32))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.allclose(legacy_model.run_model(folder, {"x": x})["out"], 0.75 * (x + 1))
    legacy_model.convert_model(folder, tmp_path / "current")
    assert np.allclose(run_current(tmp_path / "current", x), 0.75 * (x + 1))


def test_sequences(tmp_path):
    pool = message((1, "pooltype"), (2, 2), (5, "SUM"))
    folder = model_folder(
        tmp_path / "net",
        [variable("x", (-1, 2)), variable("out", (-1, 2)), variable("index", (-1, 2), data_type=2)],
        [operator("sequence_pool", {"X": ["x"]}, {"Out": ["out"], "MaxIndex": ["index"]}, pool)],
    )
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    out = legacy_model.run_model(folder, {"x": x, "x.lod": np.array([0, 2, 5])})["out"]
    assert np.array_equal(out, [[2, 4], [18, 21]])
    with pytest.raises(WeightsError, match="must rise from 0 to the 5 rows"):
        legacy_model.run_model(folder, {"x": x, "x.lod": np.array([0, 2, 4])})


def test_operators_that_no_longer_exist(tmp_path):
    folder = model_folder(
        tmp_path / "net",
        [variable("x", (-1, 3)), variable("out", (-1, 3))],
        [operator("sorcery", {"X": ["x"]}, {"Out": ["out"]})],
    )
    with pytest.raises(WeightsError, match="no longer knows: sorcery"):
        legacy_model.run_model(folder, {"x": np.ones((1, 3), np.float32)})


def test_a_crash_is_an_error_message():
    with pytest.raises(WeightsError, match="crashed on this model"):
        legacy_model._isolated(os._exit, 11)


@pytest.mark.parametrize(
    "feed, complaint",
    [
        ({}, "holds nothing"),
        (
            {"state": np.zeros((1, 4, 84, 84), np.float32), "more": np.zeros(1)},
            "holds more, state; the model's inputs are state",
        ),
        ({"state": np.zeros((1, 3, 84, 84), np.float32)}, "has shape"),
        ({"state": np.zeros((1, 4, 84, 84), np.complex64)}, "is complex64"),
    ],
)
def test_wrong_feeds(feed, complaint):
    with pytest.raises(WeightsError, match=complaint):
        legacy_model.run_model(BREAKOUT, feed)


def test_incomplete_models(tmp_path):
    broken = Path(shutil.copytree(BREAKOUT, tmp_path / "net"))
    (broken / "policy_conv3").unlink()
    with pytest.raises(WeightsError, match="policy_conv3: cannot be read .No such file"):
        legacy_model.read_model(broken)
    shutil.copy(BREAKOUT / "policy_conv2", broken / "policy_conv3")
    with pytest.raises(WeightsError, match="policy_conv3 is float32 .* but the program declares"):
        legacy_model.read_model(broken)
    with pytest.raises(WeightsError, match="no Fluid inference model"):
        legacy_model.read_model(tmp_path)
    outside = model_folder(
        tmp_path / "out", [variable("x", (-1, 3)), variable("../net/policy_conv1", (3,), persistable=True)], [], "x"
    )
    with pytest.raises(WeightsError, match="cannot be a file"):
        legacy_model.read_model(outside)
    undeclared = model_folder(
        tmp_path / "no", [variable("x", (-1, 3))], [operator("relu", {"X": ["y"]}, {"Out": ["x"]})], "x"
    )
    with pytest.raises(WeightsError, match="relu uses y, which the program does not declare"):
        legacy_model.run_model(undeclared, {"x": np.ones((1, 3), np.float32)})


def test_a_block_inside_itself(tmp_path):
    folder = model_folder(
        tmp_path / "net", [variable("x", (-1, 3))], [operator("relu", {"X": ["x"]}, {"Out": ["x"]})], "x"
    )
    program = (folder / "__model__").read_bytes()
    root = message((1, 0), (2, -1))
    assert program.count(root) == 1
    (folder / "__model__").write_bytes(
        message((1, next(wire.fields(program))[2].replace(root, message((1, 0), (2, 0)))))
    )
    with pytest.raises(WeightsError, match="block 0 says it belongs to block 0"):
        legacy_model.run_model(folder, {"x": np.ones((1, 3), np.float32)})


def test_a_loop_whose_body_is_itself(tmp_path):
    body = message((1, "sub_block"), (2, legacy_model.BLOCK), (12, 0))
    loop = operator("while", {"X": ["x"]}, {"Out": ["x"]}, body)
    folder = model_folder(tmp_path / "net", [variable("x", (-1, 3))], [loop], "x")
    with pytest.raises(WeightsError, match="while refers to block 0, which is not inside"):
        legacy_model.run_model(folder, {"x": np.ones((1, 3), np.float32)})


@pytest.mark.parametrize(
    "part", [b"\x0a\x00", message((1, message((4, message((4, b"")))))), message((1, message((3, b""))))]
)
def test_a_program_of_empty_parts_is_refused_before_it_takes_memory(part, monkeypatch):
    monkeypatch.setattr(legacy_model, "MAX_PARTS", 1000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 1,000 parts"):
        legacy_model.parse_program(part * 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(part) * 10**6


def test_random_damage_to_programs_never_does_more_than_raise(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole = (BREAKOUT / "__model__").read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(1, len(whole))])])
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            blocks = legacy_model.parse_program(bytes(data))
            legacy_model.repair(bytes(data), {("reduce_mean", "dim"): legacy_model.INTS})
        except (ValueError, struct.error, StopIteration, AttributeError):
            refused += 1
        else:
            assert sys.getsizeof(blocks) < 10_000
    assert refused > 0


@pytest.mark.full
def test_random_damage_to_running_models(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    golden = read_npz(FORMATS / "io.npz")
    folder = Path(shutil.copytree(FORMATS / "inference_model_combined", tmp_path / "net"))
    whole = (folder / "model").read_bytes()
    for _ in range(15):
        data = bytearray(whole)
        for _ in range(4):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (folder / "model").write_bytes(data)
        try:
            outputs = legacy_model.run_model(folder, {"image": golden["x"]})
        except WeightsError:
            continue
        assert all(isinstance(array, np.ndarray) for array in outputs.values())


def test_folders_are_recognised(tmp_path):
    assert legacy_model.find_model(FORMATS / "inference_model") == (FORMATS / "inference_model" / "__model__", None)
    combined = FORMATS / "inference_model_combined"
    assert legacy_model.find_model(combined) == (combined / "model", combined / "params")
    legacy.write_folder(tmp_path / "weights", {"model": np.ones(3, np.float32)})
    assert legacy_model.find_model(tmp_path / "weights") is None
