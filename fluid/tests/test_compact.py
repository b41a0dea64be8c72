"""The compact form of weights: sizes, errors, what a file says of itself, and what is refused."""

import json
import os

from fluid.errors import WeightsError
from fluid.formats import safetensors_file
from fluid.weights import compact, read_weights
from fluid.weights.compact import Description, Finer
from fluid.weights.deflate import deflate, inflate

import numpy as np
import pytest

WHOLE = {"version": 2, "storage": "int8", "task": None, "facts": {}, "origin": {}}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv_weights": rng.normal(size=(8, 4, 3, 3)).astype(np.float32) * np.logspace(-3, 2, 8)[:, None, None, None],
        "fc_weights": (rng.normal(size=(64, 10)) * np.logspace(-3, 2, 10)).astype(np.float32),
        "embedding": (rng.normal(size=(50, 16)) * np.logspace(-3, 2, 50)[:, None]).astype(np.float32),
        "bn_variance": np.array([1e9, 1e-9], np.float32),
        "steps": np.array([[7]], np.int64),
        "nothing": np.zeros((3, 4), np.float32),
    }


@pytest.mark.parametrize(
    "storage, bound, bytes_each", [("fp32", 0, 4), ("fp16", 2**-11, 2), ("int8", 0.5 / 127, 1), ("int6", 0.5 / 31, 1)]
)
def test_there_and_back(tmp_path, storage, bound, bytes_each):
    """Each number is off by at most half a unit: of its own last place, or of its channel's largest in 127 or 31 steps."""
    weights = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays().items()
    }
    path = tmp_path / "w.safetensors"
    compact.write(path, weights, Description("task", {"net": {"names": ["é"]}}, {"step": 3}, storage))
    back, description = compact.read(path)
    assert description == Description("task", {"net": {"names": ["é"]}}, {"step": 3}, storage)
    assert back.keys() == weights.keys()
    for name, axis in (("conv_weights", 0), ("fc_weights", 1), ("embedding", 0)):
        others = tuple(other for other in range(weights[name].ndim) if other != axis)
        largest = np.abs(weights[name]) if storage == "fp16" else np.abs(weights[name]).max(axis=others, keepdims=True)
        assert back[name].dtype == np.float32
        assert np.all(np.abs(back[name] - weights[name]) <= bound * largest * 1.001 + 6e-8 * (storage == "fp16"))
    for name in ("bn_variance", "steps", "nothing"):
        assert back[name].dtype == weights[name].dtype and np.array_equal(back[name], weights[name])
    stored = safetensors_file.read(path)
    assert stored["bn_variance"].nbytes == 8 and stored["embedding"].dtype.itemsize == bytes_each
    rounded = compact.rounded(weights, storage)
    assert all(np.array_equal(rounded[name], back[name]) for name in weights)
    assert all(np.array_equal(read_weights(path)[name], back[name]) for name in weights)


def test_int8_is_a_quarter():
    weights = {"w": np.random.default_rng(1).normal(size=(512, 512)).astype(np.float32)}
    assert sum(array.nbytes for array in compact.pack(weights, "int8").values()) == 512 * 512 + 4 * 512


def test_beyond_half_precision_stays():
    weights = {"w": np.array([[70000.0, 1.0]], np.float32)}
    assert np.array_equal(compact.rounded(weights, "fp16")["w"], weights["w"])


def test_written_twice_is_the_same_bytes(tmp_path):
    for name in "ab":
        compact.write(tmp_path / name, arrays(), Description(storage="int8"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_plain_files_say_nothing(tmp_path):
    safetensors_file.write(tmp_path / "w.safetensors", {"w": np.ones(2)}, {"format": "pt"})
    assert compact.describe(tmp_path / "w.safetensors") is None


def test_what_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    for storage in compact.STORAGES:
        with pytest.raises(WeightsError, match="NaN or infinity in w"):
            compact.write(path, {"w": np.full(2, np.nan, np.float32)}, Description(storage=storage))
    with pytest.raises(WeightsError, match="ends in @scale"):
        compact.write(path, {"w@scale": np.ones((2, 2))}, Description(storage="int8"))
    assert not os.listdir(tmp_path)
    compact.write(path, {"w": np.ones(2)}, Description())
    with pytest.raises(WeightsError, match="exists already"):
        compact.write(path, {"w": np.ones(2)}, Description())
    for metadata, message in (
        ({"version": 3}, "written in version 3"),
        ({**WHOLE, "storage": "int4"}, r"metadata are damaged \(storage int4"),
        ({**WHOLE, "facts": []}, "metadata are damaged"),
        ({**WHOLE, "deflated": ["w"]}, "metadata are damaged"),
        ({**WHOLE, "deflated": {"v": ["int8", [2]]}}, "v is damaged"),
        ({"version": 1}, "metadata are damaged"),
        ([], "metadata are damaged"),
    ):
        safetensors_file.write(path, {"w": np.ones(2)}, {"fluid_zoo": json.dumps(metadata)})
        with pytest.raises(WeightsError, match=message):
            compact.read(path)
    safetensors_file.write(path, {"w": np.ones(2)}, {"fluid_zoo": 100_000 * "[" + 100_000 * "]"})
    with pytest.raises(WeightsError, match="metadata are damaged"):
        compact.read(path)
    for scale in (np.ones((2, 3), np.float32), np.ones(2, np.float32), np.ones((1, 0), np.float32)):
        stored = {"w": np.ones((2, 2), np.int8), "w@scale": scale}
        safetensors_file.write(path, stored, {"fluid_zoo": json.dumps(WHOLE)})
        with pytest.raises(WeightsError, match="the scales of w do not belong to it"):
            compact.read(path)


def test_what_is_sensitive_stays_in_full(tmp_path):
    weights = {name: np.full((3, 3), 1 / 3, np.float32) for name in ("first", "second")}
    path = tmp_path / "w.safetensors"
    compact.write(path, weights, Description(storage="fp16"), Finer(full=["first"]))
    back, _ = compact.read(path)
    assert back["first"].tobytes() == weights["first"].tobytes() != back["second"].tobytes()
    assert compact.rounded(weights, "fp16", Finer(full=["first"]))["second"].tobytes() == back["second"].tobytes()


def test_blocks_of_input_channels_have_scales_of_their_own(tmp_path):
    """A large number costs its neighbours alone; what is named in half is off by half a unit of its last place."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(6, 64, 3, 3)).astype(np.float32)
    kernel[2, 5], kernel[3, 16:32], kernel[4, 32:48] = 1000, 0, 1e-7
    weights = {"blocks": kernel, "half": kernel / 3, "huge": kernel * 1e7}
    path = tmp_path / "w.safetensors"
    compact.write(path, weights, Description(storage="int8"), Finer(half=["half"], blocks={"blocks": 16, "huge": 16}))
    back, _ = compact.read(path)
    for name in ("blocks", "huge"):
        largest = np.abs(weights[name].reshape(6, 4, -1)).max(axis=2).repeat(16, axis=1)[:, :, None, None]
        assert np.all(np.abs(back[name] - weights[name]) <= largest / 127 * 0.51 + 6e-8)
    assert np.all(np.abs(back["half"] - weights["half"]) <= np.abs(weights["half"]) * 2**-11 + 6e-8)
    stored = compact.pack(weights, "int8", Finer(half=["half"], blocks={"blocks": 16, "huge": 16}))
    assert stored["blocks@scale"].shape == (6, 4, 1, 1) and stored["blocks@scale"].dtype == np.float16
    assert stored["blocks"].dtype == np.int8 and stored["half"].dtype == np.float16
    with pytest.raises(ValueError, match="64 along the second axis are not a multiple of 48"):
        compact.pack(weights, "int8", Finer(blocks={"blocks": 48}))


def test_half_the_levels_lose_twice_as_much_and_take_a_bit_less():
    weights = {name: np.random.default_rng(0).normal(size=(64, 200)).astype(np.float32) for name in ("usual", "coarse")}
    stored = compact.pack(weights, "int6", Finer(coarse=["coarse"]))
    assert [np.abs(stored[name]).max() for name in weights] == [31, 15]
    back = compact.rounded(weights, "int6", Finer(coarse=["coarse"]))
    usual, coarse = (np.square(back[name] - weights[name]).mean() ** 0.5 for name in weights)
    assert 1.9 < coarse / usual < 2.2
    assert 0.75 < deflate(stored["coarse"]).size / deflate(stored["usual"]).size < 0.85


def smaller() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    normal = {
        "wide": random.normal(size=(64, 96, 2)),
        "offsets": random.normal(size=4096),
        "few": random.normal(size=(4, 9)),
    }
    return {name: array.astype(np.float32) for name, array in normal.items()}


@pytest.mark.parametrize("storage, share", [("int8", 0.95), ("int6", 0.73)])
def test_deflate_loses_nothing_and_keeps_what_it_makes_no_smaller(tmp_path, storage, share):
    """Two files of the same arrays, plain as version 1 had them and deflated, give the same bits."""
    packed, description = compact.pack(smaller(), storage, Finer(half=["few"])), Description(storage=storage)
    compact.store(tmp_path / "w.safetensors", packed, description)
    plain = {"fluid_zoo": json.dumps({**WHOLE, "version": 1, "storage": storage})}
    safetensors_file.write(tmp_path / "plain.safetensors", packed, plain)
    back, before = (compact.read(tmp_path / f"{name}.safetensors") for name in ("w", "plain"))
    assert back[1] == before[1] == description and back[0].keys() == before[0].keys() == smaller().keys()
    assert all(back[0][name].tobytes() == array.tobytes() for name, array in before[0].items())
    stored = safetensors_file.read(tmp_path / "w.safetensors")
    assert stored["wide"].size < share * packed["wide"].size and stored["offsets"].nbytes < packed["offsets"].nbytes
    assert stored["few"].dtype == np.float16 and stored["few"].tobytes() == packed["few"].tobytes()


def test_deflated_arrays_that_are_something_else_are_refused(tmp_path):
    whole = np.zeros((50, 40), np.int8)
    data, path = deflate(whole), tmp_path / "w.safetensors"
    for dtype, shape, stored in (
        ("int8", [50, 39], data),
        ("int8", [50, 41], data),
        ("int8", [10**9, 10**9], data),
        ("int8", [0, 40], data),
        ("int8", [-50, -40], data),
        ("int8", [50, "40"], data),
        ("object", [50, 40], data),
        ("int8", [50, 40], data[:-1]),
        ("int8", [50, 40], np.append(data, data)),
        ("int8", [50, 40], data[::-1].copy()),
    ):
        safetensors_file.write(
            path, {"w": stored}, {"fluid_zoo": json.dumps({**WHOLE, "deflated": {"w": [dtype, shape]}})}
        )
        with pytest.raises(WeightsError, match="w is damaged"):
            compact.read(path)
    assert inflate(data, "int8", [50, 40]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("storage, seen", [("int8", 2), ("fp16", 2), ("fp32", 0), (None, 0)])
def test_what_storage_costs_is_measured_and_said(tmp_path, storage, seen):
    """The metric before and after, in print and in the file; what is exported is what the file gives back."""
    weights, measured, lines = {"w": arrays()["fc_weights"]}, [], []

    def measure(state: dict[str, np.ndarray]) -> dict[str, float]:
        measured.append(state["w"])
        return {"acc1": 0.5 + len(measured) / 4}

    trial = compact.try_out(weights, storage, measure, lines.append)
    assert len(measured) == seen
    assert lines == [f"acc1 0.75 -> 1 (+0.25) in {storage}"] * (seen // 2)
    trial.write(tmp_path, task="task", facts={"net": {}}, source=str(tmp_path / "somewhere"))
    if storage is None:
        assert not os.listdir(tmp_path) and trial.state["w"] is weights["w"]
        return
    back, description = compact.read(tmp_path / compact.FILE)
    assert np.array_equal(back["w"], trial.state["w"])
    cost = {"before": {"acc1": 0.75}, "after": {"acc1": 1.0}} if seen else {}
    assert description == Description("task", {"net": {}}, {"weights": "somewhere", **cost}, storage)
    if seen:
        assert measured[0] is weights["w"] and measured[1] is trial.state["w"]


def test_damaged_files_are_one_error(tmp_path):
    """Whatever a few wrong bytes make of a file: weights or WeightsError, nothing else."""
    path, random = tmp_path / "w.safetensors", np.random.default_rng(0)
    compact.write(path, {"w": smaller()["wide"][:8]}, Description("task", {"net": {}}, {}, "int8"))
    whole, refused = np.frombuffer(path.read_bytes(), np.uint8), 0
    for _ in range(300):
        data = whole.copy()
        data[random.integers(0, 300, 2)] = random.integers(0, 256, 2)
        path.write_bytes(data.tobytes())
        try:
            compact.read(path)
        except WeightsError:
            refused += 1
    assert refused > 100
