"""Fluid's parameter files and folders: byte-exact round trips, and every kind of damage."""

import os
import random
import struct
from pathlib import Path

from fluid.errors import WeightsError
from fluid.formats import legacy, wire

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

GOLDEN = Path(__file__).parent / "golden"
BREAKOUT = Path(__file__).resolve().parents[2] / "DeepQNetwork" / "data" / "breakout_2018"
"""Real weights of Fluid that come along anyway."""
FORMATS = GOLDEN / "formats"

arrays = st.sampled_from(list(legacy.DATA_TYPES.values())).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, max_side=4))
)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and np.array_equal(a[n], b[n]) for n in a)


def record(shape=(2, 3), data_type=5, body=None, version=0, levels=0, description=None) -> bytes:
    if description is None:
        description = wire.encode([(1, wire.VARINT, data_type), *((2, wire.VARINT, d) for d in shape)])
    body = bytes(24) if body is None else body
    return struct.pack("<IQIi", version, levels, 0, len(description)) + description + body


def test_the_three_layouts_hold_the_same_arrays():
    folder = legacy.read_folder(FORMATS / "inference_model")
    assert len(folder) == 31
    assert folder["conv2d_0.w_0"].shape == (4, 3, 3, 3)
    assert folder["conv2d_0.w_0"].dtype == np.float32
    assert same(legacy.read_combined(FORMATS / "inference_model_combined" / "params", folder), folder)


def test_writing_gives_the_bytes_that_fluid_wrote(tmp_path):
    weights = legacy.read_folder(FORMATS / "inference_model")
    legacy.write_folder(tmp_path / "folder", weights)
    for name in weights:
        assert (tmp_path / "folder" / name).read_bytes() == (FORMATS / "inference_model" / name).read_bytes()
    legacy.write_combined(tmp_path / "params", weights)
    assert (tmp_path / "params").read_bytes() == (FORMATS / "inference_model_combined" / "params").read_bytes()


def test_weights_trained_in_2018():
    weights = legacy.read_folder(BREAKOUT)
    assert sum(array.size for array in weights.values()) == 130_629
    assert weights["policy_advantage_fc"].shape == (6400, 4)
    assert weights["policy_value_fc_b"][0] == pytest.approx(6.639, abs=5e-4)


@settings(max_examples=60, deadline=None)
@given(array=arrays)
def test_any_array_survives(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("record") / "x"
    legacy.write_tensor(path, array)
    back = legacy.read_tensor(path)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_nested_names_and_sequence_offsets(tmp_path):
    weights = {"xception/entry/conv1/weights": np.ones((2, 3), np.float32), "fc_weights": np.zeros(4, np.float64)}
    legacy.write_folder(tmp_path / "nested", weights)
    assert (tmp_path / "nested/xception/entry/conv1/weights").is_file()
    assert same(legacy.read_folder(tmp_path / "nested"), weights)
    level = struct.pack("<Q2Q", 16, 0, 2)
    plain = record()
    (tmp_path / "lod").write_bytes(struct.pack("<IQ", 0, 1) + level + plain[12:])
    assert np.array_equal(legacy.read_tensor(tmp_path / "lod"), np.zeros((2, 3), np.float32))


def test_combined_files_are_in_lexicographic_order(tmp_path):
    weights = {f"fc_{i}.w_0": np.full(2, i, np.float32) for i in (2, 10, 1)}
    legacy.write_combined(tmp_path / "params", weights)
    assert same(legacy.read_combined(tmp_path / "params", ["fc_2.w_0", "fc_1.w_0", "fc_10.w_0"]), weights)
    with pytest.raises(WeightsError, match="more arrays than the 2 expected"):
        legacy.read_combined(tmp_path / "params", ["fc_1.w_0", "fc_10.w_0"])
    with pytest.raises(WeightsError, match="holds 3 arrays, 4 are expected"):
        legacy.read_combined(tmp_path / "params", [*weights, "zz"])
    with pytest.raises(WeightsError, match="the names of its variables are needed"):
        legacy.read_tensor(tmp_path / "params")


def test_optimizer_state_and_strangers_are_left_out(tmp_path):
    legacy.write_folder(tmp_path / "saved", {"conv1_weights": np.ones((2, 2), np.float32)})
    state = ["conv1_weights_velocity_0", "conv1_weights_moment1_0", "conv1_weights_beta1_pow_acc_0", "learning_rate_0"]
    for name in [*state, "@LR_DECAY_COUNTER@", "conv1_weights__avg_squared_grad_0"]:
        legacy.write_tensor(tmp_path / "saved" / name, np.ones(1, np.float32))
    (tmp_path / "saved" / "README").write_text("trained on 4 cards\n")
    (tmp_path / "saved" / "._conv1_weights").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    assert list(legacy.read_folder(tmp_path / "saved")) == ["conv1_weights"]
    # Without its parameter such a name is a variable like any other.
    legacy.write_tensor(tmp_path / "saved" / "lstm_moment_0", np.ones(1, np.float32))
    assert sorted(legacy.read_folder(tmp_path / "saved")) == ["conv1_weights", "lstm_moment_0"]


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "ends inside a header"),
        (record()[:17], "ends inside a header"),
        (record()[:-1], "truncated"),
        (record() + b"x", "bytes follow the first array"),
        (record(version=1), "not a Fluid parameter file"),
        (record(levels=2**40), "not a Fluid parameter file"),
        (record(levels=1), "ends inside"),
        (record(data_type=17), "data type 17"),
        (record(description=b""), "damaged header"),
        (record(description=b"\x08"), "damaged tensor description"),
        (record(description=b"\x0a\xff\xff\xff\xff\x0f"), "damaged tensor description"),
        (record(shape=(2, -3)), "impossible shape"),
        (record(shape=(0, 2**62)), "impossible shape"),
        (record(shape=(1,) * 40), "impossible shape"),
        (record(shape=(2**31, 2**31, 2**31)), "truncated"),
        (record(shape=(2**62, 4)), "truncated"),
    ],
)
def test_damage_is_one_clear_error(tmp_path, data, message):
    (tmp_path / "conv1_weights").write_bytes(data)
    with pytest.raises(WeightsError, match=message) as caught:
        legacy.read_tensor(tmp_path / "conv1_weights")
    assert str(tmp_path / "conv1_weights") in str(caught.value)


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing", "."):
        with pytest.raises(WeightsError):
            legacy.read_tensor(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no Fluid parameter file"):
        legacy.read_folder(tmp_path / "empty")


def test_random_damage_never_does_more_than_raise(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole = (FORMATS / "inference_model" / "conv2d_0.w_0").read_bytes()
    outcomes = set()
    for _ in range(600):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.randrange(1, 4) if data else 0):
            data[rng.randrange(min(40, len(data)))] = rng.randrange(256)
        (tmp_path / "x").write_bytes(data)
        try:
            array = legacy.read_tensor(tmp_path / "x")
        except WeightsError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert array.nbytes <= len(data)
    assert outcomes == {"refused", "read"}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a//b", "a\\b", "a\0b", "x" * 300])
def test_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(WeightsError):
        legacy.write_folder(tmp_path / "out", {"good": np.ones(1), name: np.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_or_half_written(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(WeightsError, match="exists already"):
        legacy.write_folder(tmp_path / "out", {"x": np.ones(1)})
    assert (tmp_path / "out" / "mine").read_text() == "keep"
    with pytest.raises(WeightsError, match="complex64"):
        legacy.write_folder(tmp_path / "new", {"x": np.ones(1), "y": np.ones(1, np.complex64)})
    with pytest.raises(WeightsError, match=r"new: y: float64 \[0, 3\] cannot be stored"):
        legacy.write_folder(tmp_path / "new", {"x": np.ones(1), "y": np.ones((0, 3))})
    with pytest.raises(WeightsError, match="cannot be written"):
        legacy.write_folder(tmp_path / "new", {"x": np.ones(1), "x/y": np.ones(1)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
