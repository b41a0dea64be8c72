"""Pickled parameters: what the arrays-only reader admits, and what it refuses without running it."""

import collections
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

from fluid.errors import WeightsError
from fluid.formats import legacy, pdparams

import numpy as np
import pytest

FORMATS = Path(__file__).parent / "golden" / "formats"

ARRAYS = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">i4"),
    "half": np.ones((2, 1, 2), np.float16),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}


def check(path: Path) -> None:
    read = pdparams.read_pdparams(path)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert read[name].shape == array.shape and np.array_equal(read[name], array), name
        assert read[name].dtype == array.dtype, name


def test_a_file_of_fluid_1_8():
    read = pdparams.read_pdparams(FORMATS / "fluid_save" / "model.pdparams")
    folder = legacy.read_folder(FORMATS / "inference_model")
    assert read.keys() == folder.keys()
    assert all(np.array_equal(read[name], folder[name]) for name in folder)
    assert pdparams.read_pdparams(FORMATS / "fluid_save" / "model.pdopt") == {}


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(tmp_path, protocol):
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(ARRAYS, protocol))
    check(tmp_path / "x.pdparams")


def test_state_dictionaries_of_paddle(tmp_path):
    content = collections.OrderedDict(
        w=ARRAYS["w"],
        named=("linear_0.w_0", ARRAYS["half"]),
        LR_Scheduler={"last_epoch": 3, "last_lr": 0.1},
        epochs=[1, 2],
    )
    content["StructuredToParameterName@@"] = {"w": "linear_0.w_0"}
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content, 4))
    read = pdparams.read_pdparams(tmp_path / "x.pdparams")
    assert sorted(read) == ["named", "w"]
    assert np.array_equal(read["named"], ARRAYS["half"])


def test_paddle_and_this_reader_read_each_other(tmp_path):
    import paddle

    paddle.save({"w": ARRAYS["w"]}, str(tmp_path / "theirs.pdparams"))
    assert np.array_equal(pdparams.read_pdparams(tmp_path / "theirs.pdparams")["w"], ARRAYS["w"])
    pdparams.write_pdparams(tmp_path / "ours.pdparams", ARRAYS)
    check(tmp_path / "ours.pdparams")
    theirs = paddle.load(str(tmp_path / "ours.pdparams"), return_numpy=True)
    assert all(np.array_equal(theirs[name], array) for name, array in ARRAYS.items())
    assert b"numpy._core" not in (tmp_path / "ours.pdparams").read_bytes()  # numpy 1 has no such module


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


class Subclass(np.ndarray):
    pass


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "content",
    [{"w": Evil()}, Evil(), [Evil()], {"w": np.array([Evil()], object)}, {"w": np.ones(2), "x": {"y": Evil()}}],
)
def test_nothing_is_executed(tmp_path, monkeypatch, content, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(
        WeightsError, match=r"asks for (posix|nt)\.system; only numpy arrays are admitted, and nothing was executed"
    ):
        pdparams.read_pdparams(tmp_path / "x.pdparams")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "cannot be read|not a readable"),
        (b"\x80\x02", "not a readable"),
        (b"}", "not a readable"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({1: np.ones(2)}), "keys are not names"),
        (pickle.dumps({"w": np.array(["a", "b"], object)}), "not a readable"),
        (pickle.dumps({"w": np.zeros(2, "f4,i4")}), "not a readable"),
        (pickle.dumps({"w": np.array(["a"])}), "an array of"),
        (pickle.dumps({"w": np.zeros(1, "f4")}).replace(b"\x02f4", b"\x02(1"), "an array of"),
        (pickle.dumps({"w": np.ones(2).view(Subclass)}), r"Subclass; only numpy arrays"),
        (pickle.dumps({"w": np.ones(64)})[:-20], "not a readable"),
        (b"\x80\x02cbuiltins\neval\nX\x04\x00\x00\x001+1.\x85R.", "asks for builtins.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", "asks for builtins.exec"),
        (b"Pmodule\n.", "instruction PERSID"),
        (b"(i__main__\nX\n.", "instruction INST"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.", "not a readable"),
        (b"}r\xff\xff\xff\xff.", None),
    ],
)
def test_damage_and_tricks(tmp_path, data, message):
    (tmp_path / "x.pdparams").write_bytes(data)
    tracemalloc.start()
    try:
        if message is None:  # a memo index of 4 billion, for which Python's own loader asks for 32 GB
            assert pdparams.read_pdparams(tmp_path / "x.pdparams") == {}
        else:
            with pytest.raises(WeightsError, match=message):
                pdparams.read_pdparams(tmp_path / "x.pdparams")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_repetition_gains_no_memory(tmp_path):
    text = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\x01"
    once = b"c_codecs\nencode\n" + b"h\x01" + b"X\x06\x00\x00\x00latin1\x86R"
    (tmp_path / "x.pdparams").write_bytes(b"\x80\x02(" + text + once * 5000 + b"l.")
    with pytest.raises(WeightsError, match="multiplies its contents"):
        pdparams.read_pdparams(tmp_path / "x.pdparams")


def test_a_million_empty_lists_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(pdparams, "MAX_INSTRUCTIONS", 1000)
    (tmp_path / "x.pdparams").write_bytes(b"\x80\x02(" + b"]" * 2000 + b"l.")
    with pytest.raises(WeightsError, match="more than 1,000 instructions"):
        pdparams.read_pdparams(tmp_path / "x.pdparams")


def test_random_damage_never_does_more_than_raise(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole = pickle.dumps({"a": ARRAYS["w"], "b": ARRAYS["half"]}, 2)
    outcomes = set()
    for _ in range(1500):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(1, len(whole))])])
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "x.pdparams").write_bytes(data)
        try:
            pdparams.read_pdparams(tmp_path / "x.pdparams")
            outcomes.add("read")
        except WeightsError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_writing_is_all_or_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be written"):
        pdparams.write_pdparams(tmp_path / "file" / "x.pdparams", ARRAYS)
    with pytest.raises(WeightsError, match="cannot be written"):
        pdparams.write_pdparams(Path("/proc/x.pdparams"), ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_reading_imports_neither_paddle_nor_torch():
    file = str(FORMATS / "fluid_save" / "model.pdparams")
    code = f"import sys\nfrom fluid.formats import pdparams\npdparams.read_pdparams({file!r})\n"
    subprocess.run(
        [sys.executable, "-c", code + "assert not {'paddle', 'torch', 'jax'} & set(sys.modules)"],
        check=True,
        cwd=Path(__file__).parents[2],
    )
