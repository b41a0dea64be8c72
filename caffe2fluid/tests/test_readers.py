"""The readers of prototxt and caffemodel, on what is right and on what is hostile."""

from __future__ import annotations

import contextlib
import math
import os
import random
import tracemalloc

from caffe2fluid.caffemodel import read_caffemodel, read_mean
from caffe2fluid.errors import ConvertError
from caffe2fluid.prototxt import MAX_DEPTH, Message, format_message, parse_prototxt, read_prototxt
from caffe2fluid.tests.tools import MICRO, blob, caffemodel, field, translate_files, varint

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def test_text_format():
    message = parse_prototxt(
        """
        name: "a" 'b' "\\n\\x41\\101\\"" # a comment
        number: -1.5e-3f, hexadecimal: 0x1F; octal: 017
        list: [1, 2, 3] list: 4
        inner { flag: true } inner: < flag: false >
        [some.extension]: 1
        infinite: -inf
        word: MAX
        """
    )
    assert message.text("name") == 'ab\nAA"'
    assert message.number("number") == -1.5e-3
    assert (message.integer("hexadecimal"), message.integer("octal")) == (31, 15)
    assert message.integers("list") == [1, 2, 3, 4]
    assert [inner.flag("flag", None) for inner in message.messages("inner")] == [True, False]
    assert message.number("infinite") == -math.inf
    assert message.choice("word", ["MAX", "AVE"], "AVE") == "MAX"
    assert message.integer("some.extension") == 1


def test_enumerations_by_number():
    assert parse_prototxt("pool: 1").choice("pool", ["MAX", "AVE"], "MAX") == "AVE"
    with pytest.raises(ConvertError, match="prototxt: pool must be one of MAX, AVE, but is 2"):
        parse_prototxt("pool: 2").choice("pool", ["MAX", "AVE"], "MAX")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {", "net:1: the file ends inside a message"),
        ("a: 1 }", "net:1: expected the name of a field"),
        ('\n\na: "open', "net:3: cannot read"),
        ("a 1", "net:1: expected : or {"),
        ("a: [1 2]", "net:1: expected , or ]"),
        ("a: 1" + "0" * 5000, "net:1: a number of 5001 characters"),
        ("a { " * (MAX_DEPTH + 2), "net:1: messages are nested more than 100 deep"),
        ("a: \x00", "net:1: cannot read"),
        ("a: :", "net:1: expected a value for a"),
    ],
)
def test_errors_say_where(text, message):
    with pytest.raises(ConvertError) as error:
        parse_prototxt(text, "net")
    assert message in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\xff\xfe", b"name: 3", b"layer: 4"])
def test_files_that_are_no_net(content, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(ConvertError):
        translate_files(path)


_scalars = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)
_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
_messages = st.recursive(
    st.dictionaries(_names, st.lists(_scalars, min_size=1, max_size=3), max_size=4),
    lambda inner: st.dictionaries(_names, st.lists(inner, min_size=1, max_size=3), max_size=4),
    max_leaves=10,
)


def _as_message(fields: dict) -> Message:
    values = {k: [_as_message(v) if isinstance(v, dict) else v for v in values] for k, values in fields.items()}
    return Message("", values)


def _as_fields(message: Message) -> dict:
    return {k: [_as_fields(v) if isinstance(v, Message) else v for v in values] for k, values in message.fields.items()}


@settings(deadline=None, max_examples=40)
@given(_messages)
def test_writing_and_reading_is_the_identity(fields):
    try:
        text = format_message(_as_message(fields))
    except UnicodeEncodeError:  # lone surrogates are no text
        return
    assert _as_fields(parse_prototxt(text)) == fields


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="layer{}<>[]:;,\"'\\ \n#019.-+eExfabMAX_", max_size=80))
def test_any_text_parses_or_is_an_error_of_ours(text):
    with contextlib.suppress(ConvertError):
        parse_prototxt(text)


def test_long_input_takes_linear_time():
    """A quadratic tokenizer would take minutes."""
    parse_prototxt('layer { name: "x" type: "ReLU" top: "a" bottom: "a" }\n' * 20_000)
    with pytest.raises(ConvertError):
        parse_prototxt('a: "' + "\\" * 200_001)


# caffemodel


@pytest.mark.parametrize("kind", ["packed", "unpacked", "double", "float16", "legacy"])
def test_encodings_of_a_blob(kind, tmp_path):
    weights = np.array([[0.5, -1.25, 3.0], [4.0, 0.0, 65.0]])
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel({"ip": ("InnerProduct", [weights])}, kind))
    layer = read_caffemodel(path)["ip"]
    assert layer.type == "InnerProduct"
    np.testing.assert_array_equal(layer.blobs[0].reshape(2, 3), weights)
    assert layer.blobs[0].shape == ((1, 1, 2, 3) if kind == "legacy" else (2, 3))


def test_layers_of_the_older_formats(tmp_path):
    weights = blob(np.arange(6.0), "legacy")
    v1 = field(2, field(4, "one") + field(5, 14) + field(6, weights))
    v0 = field(2, field(1, field(1, "zero") + field(2, "conv") + field(50, weights)))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(v1 + v0)
    layers = read_caffemodel(path)
    assert {name: layer.type for name, layer in layers.items()} == {"one": "InnerProduct", "zero": "conv"}
    assert all(layer.blobs[0].size == 6 for layer in layers.values())


def test_mean_image(tmp_path):
    mean = np.arange(3 * 4 * 5.0).reshape(3, 4, 5)
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(blob(mean[None]))
    np.testing.assert_array_equal(read_mean(path), mean)


GOOD = caffemodel(
    {"conv": ("Convolution", [np.ones((2, 3, 3, 3)), np.ones(2)]), "ip": ("InnerProduct", [np.ones((4, 5))])}
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"name: 'text'", "damaged or no Caffe file"),
        (b"\0" * 64, "a field numbered 0, which no file of Caffe has (at byte 1 of 64)"),
        (field(1, "only a name"), "no layers in it"),
        (GOOD[:-10], "claims"),
        (
            field(100, field(1, "x") + field(7, field(7, field(1, varint(10**6) * 2)) + field(5, b"\0" * 8))),
            "with 2 values",
        ),
        (field(100, field(7, field(7, field(1, varint(2**62))) + field(5, b"\0" * 4))), "a blob of shape"),
        (field(100, field(7, field(7, field(1, varint(1) * 40)) + field(5, b"\0" * 4))), "more than 32 axes"),
        (field(100, field(7, field(5, b"\0" * 3))), "no whole number of values"),
        (field(100, field(7, field(10, 9) + field(12, b"\0" * 4))), "unknown type 9"),
        (b"\xff" * 20, "more than 10 bytes"),
        (b"\xa2\x06\xff\xff\xff\xff\x7f", "claims"),
    ],
)
def test_damaged_caffemodels(content, message, tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ConvertError) as error:
        read_caffemodel(path)
    assert message in str(error.value)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(1, len(GOOD)),
)
def test_mutated_caffemodels_are_read_or_refused(tmp_path, changes, length):
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value
    path = tmp_path / "fuzz.caffemodel"
    path.write_bytes(content[:length])
    try:
        layers = read_caffemodel(path)
    except ConvertError:
        return
    assert all(np.prod(b.shape) == b.size for layer in layers.values() for b in layer.blobs)


def test_mutated_prototxts_are_translated_or_refused(tmp_path):
    """Bytes of real nets changed at random: an error of ours or a translation, within Caffe's limits on sizes."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    generator = random.Random(seed)
    words = [
        "-1",
        "0",
        "99999999999999999999",
        "2147483647",
        "{",
        "}",
        '"',
        "dim:",
        "kernel_size:",
        "1e400",
        "nan",
        "true",
    ]
    sources = [path.read_text() for path in sorted(MICRO.glob("*.prototxt"))]
    for _ in range(400):
        text = generator.choice(sources)
        for _ in range(generator.randint(1, 3)):
            position = generator.randrange(len(text))
            end = position + generator.randint(0, 4)
            text = text[:position] + generator.choice([*words, chr(generator.randrange(32, 127))]) + text[end:]
        path = tmp_path / "fuzz.prototxt"
        path.write_text(text)
        try:
            translation = translate_files(path)
        except ConvertError:
            continue
        assert all(np.prod(shape, dtype=object) < 2**31 for shape in translation.shapes.values()), text


def test_a_large_caffemodel_is_mapped_and_not_loaded(tmp_path):
    path = tmp_path / "large.caffemodel"
    path.write_bytes(caffemodel({"fc6": ("InnerProduct", [np.zeros((4096, 4096), np.float32)])}))
    tracemalloc.start()
    blobs = read_caffemodel(path)["fc6"].blobs
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert blobs[0].nbytes == 64 << 20
    assert peak < 1 << 20


def test_text_in_utf_16_is_told(tmp_path):
    (tmp_path / "net.prototxt").write_text("name: 'net'", "utf-16")
    with pytest.raises(ConvertError, match="net.prototxt: text in UTF-16, .*; save it as UTF-8"):
        read_prototxt(tmp_path / "net.prototxt")


def test_weights_must_be_a_file():
    """Where `<(command)` gives the name of a pipe, or /dev/zero has no end."""
    reading, writing = os.pipe()
    for path in (f"/dev/fd/{reading}", "/dev/zero"):
        with pytest.raises(ConvertError, match=f"{path}: a pipe or a device"):
            read_caffemodel(path)
    os.close(reading)
    os.close(writing)


def test_a_prototxt_must_be_text(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(GOOD)
    with pytest.raises(ConvertError, match="is this the .caffemodel"):
        read_prototxt(path)


def test_what_never_ends_is_no_text():
    with pytest.raises(
        ConvertError, match="/dev/zero: more than 16,777,216 bytes, and not the text that belongs there"
    ):
        read_prototxt("/dev/zero")
