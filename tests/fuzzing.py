"""Damaged and hostile files by the thousand, for every reader: each must be read or refused with one of the zoo's errors, within
bounds of memory and time, in a process of its own.

    python -m tests.fuzzing NAME COUNT [SEED]

prints how many were read and refused, the slowest and the largest, and what else came of some; exit code 1 if anything did.
"""

import ast
import base64
import contextlib
import copy
import io
import json
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 2 * 2**30
"""Bytes of addresses beyond those of the imported packages."""
SECONDS = 5
"""For one file."""

Damage = Callable[[bytes, random.Random], bytes]


@dataclass
class Target:
    """A reader under attack."""

    seeds: Sequence[bytes]
    """Files that it reads."""
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    """What it may raise."""
    damage: Damage


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same with some bytes changed, inserted or left out, or only its beginning."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        place, kind = rng.randrange(min(len(changed), rng.choice([40, 200, 10**9])) or 1), rng.randrange(6)
        if not changed or kind == 2:
            changed[place:place] = rng.randbytes(rng.randrange(1, 12))
        elif kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 3:
            del changed[place : place + rng.randrange(1, 50)]
        elif kind == 4:
            changed[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
        elif rng.random() < 0.2:
            del changed[place:]
    return bytes(changed) or b"\xff"


_WORDS = (
    *(
        "0",
        "-1",
        "1e999",
        "nan",
        "9" * 30,
        "9" * 5000,
        "2147483648",
        "1.5",
        "-0",
        "true",
        "null",
        "[]",
        "{}",
        "<",
        ">",
        '"',
    ),
    *(
        "'",
        "]",
        "}",
        "\\",
        "\0",
        "\ud800",
        "é",
        "²",
        "\r",
        "\t",
        "\n",
        " ",
        "../../x",
        "/dev/zero",
        "a" * 5000,
        "#",
        ":",
        "|",
    ),
)


_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"2",
    b"3",
    b"7",
    b"0.5",
    b"1e30",
    b"nan",
    b"1000000",
    b"2147483648",
    b"9223372036854775808",
)


def damaged_text(data: bytes, rng: random.Random) -> bytes:
    """The same with words or lines put elsewhere, twice, away, or replaced by words that programs stumble over."""
    choice = rng.random()
    if choice < 0.2:
        return damaged(data, rng)
    if choice < 0.5 and (numbers := list(re.finditer(rb"-?\d+(\.\d+)?", data))):
        found = rng.choice(numbers)
        return data[: found.start()] + rng.choice(_NUMBERS) + data[found.end() :]
    for _ in range(rng.choice([1, 1, 2, 4])):
        separator = rng.choice([b" ", b"\n", b"\t", b",", b'"', b">"])
        parts = data.split(separator)
        place, kind = rng.randrange(len(parts)), rng.randrange(4)
        if kind == 0:
            parts[place] = rng.choice(_WORDS).encode(errors="surrogatepass")
        elif kind == 1:
            del parts[place]
        elif kind == 2:
            parts.insert(rng.randrange(len(parts)), parts[place])
        else:
            parts.insert(place, rng.choice(_WORDS).encode(errors="surrogatepass"))
        data = separator.join(parts)
    return data


def damaged_as_it_is(data: bytes, rng: random.Random) -> bytes:
    """Of text `damaged_text`, else `damaged`."""
    return damaged(data, rng) if b"\0" in data else damaged_text(data, rng)


_VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e308,
    float("nan"),
    10**30,
    "",
    "x",
    "\0",
    "../../x",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    "9" * 99,
)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """The same with values of other types."""
    if rng.random() < 0.25:
        return damaged_text(data, rng)
    content = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        content = _with_another_value(content, rng)
    return json.dumps(content).encode()


def _with_another_value(content: Any, rng: random.Random) -> Any:
    if not isinstance(content, (dict, list)) or not content or rng.random() < 0.1:
        return copy.deepcopy(rng.choice(_VALUES))
    key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
    if rng.random() < 0.15:
        del content[key]
    else:
        content[key] = _with_another_value(content[key], rng)
    return content


def _in_file(path: Path, read: Callable[[], object]) -> Callable[[bytes], object]:
    def write_and_read(data: bytes) -> object:
        path.write_bytes(data)
        return read()

    return write_and_read


# Weights, models and records.


def program(folder: Path) -> Target:
    from fluid.errors import WeightsError
    from fluid.formats import legacy, legacy_model
    from fluid.tests import test_legacy_model as made

    import numpy as np

    layer = made.operator(
        "mul",
        {"X": ["x"], "Y": ["w"]},
        {"Out": ["out"]},
        made.message((1, "x_num_col_dims"), (2, legacy_model.INT), (3, 1)),
        made.message((1, "axes"), (2, legacy_model.INTS), (6, 1), (6, 2)),
        made.message((1, "scale"), (2, legacy_model.FLOAT), (4, 1.5)),
    )
    variables = [made.variable("x", [-1, 4]), made.variable("w", [4, 3], True), made.variable("out", [-1, 3])]
    path = made.model_folder(folder / "model", variables, [layer])
    legacy.write_tensor(path / "w", np.zeros((4, 3), np.float32))
    seed = (path / "__model__").read_bytes()
    return Target([seed], _in_file(path / "__model__", lambda: legacy_model._runnable(path)), (WeightsError,), _fields)


def _fields(data: bytes, rng: random.Random) -> bytes:
    """Damage to one field somewhere in a nest of protobuf messages, or anywhere."""
    from fluid.formats import wire

    if rng.random() < 0.4:
        return damaged(data, rng)
    with contextlib.suppress(ValueError):
        return _with_another_field(data, rng, wire, 0)
    return damaged(data, rng)


def _with_another_field(data: bytes, rng: random.Random, wire: Any, depth: int) -> bytes:
    items = list(wire.fields(data))
    if not items:
        return data
    place = rng.randrange(len(items))
    number, kind, value = items[place]
    if kind == wire.BYTES and len(value) > 2 and depth < 6 and rng.random() < 0.8:
        with contextlib.suppress(ValueError):
            items[place] = (number, kind, _with_another_field(value, rng, wire, depth + 1))
            return wire.encode(items)
    items[place : place + 1] = rng.choice(
        [
            [(number, wire.VARINT, rng.choice([0, 1, 2**31 - 1, 2**32, 2**63 - 1, 2**64 - 1, rng.getrandbits(64)]))],
            [(number, wire.BYTES, rng.randbytes(rng.choice([0, 1, 3, 4, 8, 200])))],
            [(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 300]), kind, value)],
            [items[place]] * 2,
            [],
            [(number, wire.FIXED64, rng.randbytes(8))],
        ]
    )
    return wire.encode(items)


def arrays(folder: Path) -> Target:
    from fluid.errors import UserError
    from fluid.formats import legacy, pdparams, safetensors_file
    from fluid.weights import compact, files

    import numpy as np

    content = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "half": np.ones(3, np.float16)}
    pdparams.write_pdparams(folder / "a.pdparams", content)
    safetensors_file.write(folder / "a.safetensors", content)
    legacy.write_tensor(folder / "record", content["w"])
    compact.write(folder / "int8.safetensors", content, compact.Description("t", {"a": 1}, {"b": 2}, "int8"))
    deflated = {"w": np.eye(40, dtype=np.float32), "half": content["half"]}
    compact.write(folder / "int6.safetensors", deflated, compact.Description("t", {"a": 1}, {"b": 2}, "int6"))
    names = ("a.pdparams", "a.safetensors", "int8.safetensors", "int6.safetensors", "record")
    seeds = [(folder / name).read_bytes() for name in names]
    return Target(seeds, _in_file(folder / "w", lambda: files.read_weights(folder / "w")), (UserError,), damaged)


def checkpoint_json(folder: Path) -> Target:
    from fluid import checkpoint
    from fluid.errors import UserError

    import numpy as np

    meta = checkpoint.Meta("t", 10, config={"a": 1}, metrics={"acc": 0.5}, position={"step": 0}, due=["eval"])
    path = checkpoint.save(folder, {"w": np.zeros(3, np.float32)}, meta) / checkpoint.META_FILE
    read = _in_file(path, lambda: checkpoint.load(folder, task="t"))
    return Target([path.read_bytes()], read, (UserError,), damaged_json)


def registry_toml(folder: Path) -> Target:
    from fluid.errors import UserError
    from fluid.weights import registry

    seeds = [path.read_bytes() for path in ROOT.glob("*/weights.toml")]
    read = _in_file(folder / "weights.toml", lambda: registry.load_registry(folder))
    return Target(seeds, read, (UserError,), damaged_text)


def captured(folder: Path) -> Target:
    from fluid import programs
    from fluid.errors import UserError
    from fluid.tests import test_programs as made

    built = {"train": made.build(made.network, made.INPUTS, name="train", training=True, optimizer=made.adam)}
    made.write(folder / "toy", built)
    path = folder / "toy" / "train.json"
    seeds = [path.read_bytes()]
    return Target(seeds, _in_file(path, lambda: programs.read(folder / "toy", task="toy")), (UserError,), damaged_json)


# Pictures and lists.


def image(folder: Path) -> Target:
    from fluid.errors import DataError
    from fluid.media import decode_image, image_size

    import numpy as np
    from PIL import Image

    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        *(("RGB", kind, {}) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")),
        *(("RGB", "JPEG", {"progressive": True}), ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("CMYK", "JPEG", {})),
        *((mode, "PNG", {}) for mode in ("P", "L", "LA", "RGBA", "1")),
    ]
    seeds = []
    for mode, kind, options in kinds:
        buffer = io.BytesIO()
        pixels.convert(mode).save(buffer, kind, **options)
        seeds.append(buffer.getvalue())

    def read(data: bytes) -> object:
        return image_size(data), decode_image(data)

    return Target(seeds, read, (DataError,), _with_right_checksums)


def _with_right_checksums(data: bytes, rng: random.Random) -> bytes:
    """Damage, of a PNG mostly such that its checksums do not tell."""
    changed = damaged(data, rng)
    if not data.startswith(b"\x89PNG") or rng.random() < 0.3:
        return changed
    out, place = bytearray(changed[:8]), 8
    while place + 12 <= len(changed):
        (size,) = struct.unpack(">I", changed[place : place + 4])
        if place + 12 + size > len(changed):
            break
        chunk = changed[place + 4 : place + 8 + size]
        out += changed[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        place += 12 + size
    return bytes(out) + changed[place:]


def _picture(folder: Path, name: str) -> Path:
    from PIL import Image

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24)).save(path)
    return path


def image_list(folder: Path) -> Target:
    from fluid.errors import DataError
    from image_classification.reader import open_images

    _picture(folder, "a b.png"), _picture(folder, "b.png")
    seeds = [b"a b.png 0\nb.png 1\n\n./b.png 1\n"]
    read = _in_file(folder / "train_list.txt", lambda: open_images(folder, "train", 2))
    return Target(seeds, read, (DataError,), damaged_text)


def class_weights(folder: Path) -> Target:
    from fluid.errors import DataError
    from image_classification.balance import read_weights

    path = folder / "weights.txt"
    seeds = ["\ufeffold cats 3\n\n1 0.5\nDogs 1e-3\n".encode()]
    read = _in_file(path, lambda: read_weights(path, 3, ["Dogs", "mice", "old cats, felines"]))
    return Target(seeds, read, (DataError,), damaged_text)


def voc(folder: Path) -> Target:
    from fluid.errors import DataError
    from object_detection.annotations import open_data

    _picture(folder, "a.jpg")
    (folder / "train.txt").write_text("a.jpg a.xml\n")
    (folder / "label_list").write_text("cat\ndog\n")
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    item = f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
    seed = f"<annotation><size><width>32</width><height>24</height></size>{item}{item}</annotation>"
    read = _in_file(folder / "a.xml", lambda: open_data(folder, "train"))
    return Target([seed.encode()], read, (DataError,), damaged_text)


def coco(folder: Path) -> Target:
    from fluid.errors import DataError
    from object_detection.annotations import open_data

    (folder / "annotations").mkdir()
    content = {
        "images": [{"id": 1, "width": 32, "height": 24, "file_name": "a.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 12], "area": 120.0, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 7, "bbox": [5, 5, 3.5, 4], "area": 14.0, "iscrowd": 1},
        ],
    }
    path = folder / "annotations" / "instances_train.json"
    read = _in_file(path, lambda: open_data(folder, "train"))
    return Target([json.dumps(content).encode()], read, (DataError,), damaged_json)


def yolo(folder: Path) -> Target:
    from fluid.errors import DataError
    from object_detection.annotations import open_data

    _picture(folder / "images" / "train", "a.jpg")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "classes.txt").write_text("cat\ndog\n")
    read = _in_file(folder / "labels" / "train" / "a.txt", lambda: open_data(folder, "train"))
    return Target([b"0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.1 0.1\n"], read, (DataError,), damaged_text)


def polygons(folder: Path) -> Target:
    from fluid.errors import DataError
    from icnet.prepare_cityscapes import draw_polygons

    square = [[1, 1], [20, 1], [20, 20], [1, 20]]
    objects = [{"label": "road", "polygon": square}, {"label": "cargroup", "polygon": square, "deleted": 1}]
    content = {"imgWidth": 64, "imgHeight": 32, "objects": objects}
    path = folder / "a_gtFine_polygons.json"
    return Target(
        [json.dumps(content).encode()], _in_file(path, lambda: draw_polygons(path)), (DataError,), damaged_json
    )


def labels(folder: Path) -> Target:
    from fluid.errors import DataError
    from icnet.classes import CITYSCAPES
    from icnet.reader import Pairs, image_size, read_label

    import numpy as np
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 34, (24, 32)).astype(np.uint8)
    seeds = []
    for picture in (
        Image.fromarray(values),
        Image.fromarray(values).convert("RGB"),
        Image.fromarray(values.astype(np.uint16)),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        seeds.append(buffer.getvalue())
    path = folder / "a.png"
    pairs = Pairs("here", (str(path),), (str(path),), CITYSCAPES)

    def read() -> object:
        return image_size(str(path)), read_label(str(path), pairs)

    return Target(seeds, _in_file(path, read), (DataError,), _with_right_checksums)


def segmentation_lists(folder: Path) -> Target:
    from fluid.errors import DataError
    from icnet.reader import open_pairs

    _picture(folder, "a.png"), _picture(folder, "b.png")
    pairs, classes = b"a.png\tb.png\nb.png a.png\n", b"id,name,red,green,blue\n0,sky,1,2,3\n7,road,4,5,6\n"

    def read(data: bytes) -> object:
        named = b"," in data
        (folder / "classes.csv").write_bytes(data if named else classes)
        (folder / "train.list").write_bytes(pairs if named else data)
        return open_pairs(folder, "train")

    return Target([pairs, classes], read, (DataError,), damaged_text)


def words(folder: Path) -> Target:
    from fluid.errors import DataError
    from ocr_recognition.reader import read_list

    _picture(folder, "a.png")
    path = folder / "train.list"
    seeds = ["a.png\tword\na.png\tÄ b\n".encode(), b"32 24 a.png 1,2,3\n32 24 a.png 0\n"]
    return Target(seeds, _in_file(path, lambda: read_list(path)), (DataError,), damaged_text)


def dictionary(folder: Path) -> Target:
    from fluid.errors import DataError
    from ocr_recognition.alphabet import read_dictionary

    path = folder / "dictionary.txt"
    return Target(["a\nb\nÄ\n中\n".encode()], _in_file(path, lambda: read_dictionary(path)), (DataError,), damaged_text)


def boxes(folder: Path) -> Target:
    from fluid.errors import DataError
    from ocr_recognition.boxes import read_boxes, rectify, refuse_outside

    import numpy as np

    path, picture = folder / "boxes.txt", np.zeros((24, 32, 3), np.uint8)

    def read() -> object:
        found = read_boxes(path)
        refuse_outside(path, found, picture.shape)
        return [rectify(picture, box) for box in found]

    seeds = [b"1,2,30,2,30,20,1,20,a word\n\n0,0,10.5,0,10.5,8,0,8\n"]
    return Target(seeds, _in_file(path, read), (DataError,), damaged_text)


def font(folder: Path) -> Target:
    from fluid.errors import DataError
    from ocr_recognition import fonts

    seeds = [min(fonts.FOLDER.glob("*.woff2"), key=lambda path: path.stat().st_size).read_bytes()]
    path = folder / "a.ttf"
    return Target(seeds, _in_file(path, lambda: fonts.inspect(path, "sans")), (DataError,), damaged)


def word_set(folder: Path) -> Target:
    from fluid.errors import DataError
    from ocr_recognition.alphabet import Alphabet
    from ocr_recognition.word_set import read_set, write_set

    import numpy as np

    alphabet, path = Alphabet.ascii(), folder / "set"
    written = [(np.full((48, 60), 200, np.uint8), alphabet.encode(word)) for word in ("ab", "cde")]
    write_set(path, written, 48, alphabet, {})
    seeds = [(path / name).read_bytes() for name in ("set.json", "index.npz")]

    def read(data: bytes) -> object:
        for name, whole in zip(("set.json", "index.npz"), seeds, strict=True):
            (path / name).write_bytes(data if data[:1] == whole[:1] else whole)
        words = read_set(path)
        return [(words.picture(index), words.text(index)) for index in range(len(words))]

    return Target(
        seeds, read, (DataError,), lambda data, rng: (damaged_json if data[:1] == b"{" else damaged)(data, rng)
    )


def npz(folder: Path) -> Target:
    from fluid.arrays import read_npz
    from fluid.errors import DataError

    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(12, dtype=np.float32).reshape(3, 4), y=np.array(["a", "b"]))
    path = folder / "in.npz"
    return Target([buffer.getvalue()], _in_file(path, lambda: read_npz(path)), (DataError,), damaged)


def named_pictures(folder: Path) -> Target:
    from fluid.errors import DataError
    from fluid.media import find

    _picture(folder, "a.png"), _picture(folder / "b c", "d.jpg")
    path = folder / "list.txt"
    # Relative: what is left of a damaged name shall not be the whole disk.
    os.chdir(folder)
    return Target([b"a.png\nb c\n\n*.png\n"], _in_file(path, lambda: find([f"@{path}"])), (DataError,), damaged_text)


def vocabulary(folder: Path) -> Target:
    from fluid.errors import UserError
    from neural_machine_translation.vocabulary import read_vocabulary

    path = folder / "vocab"
    seeds = ["<s>\n<e>\n<unk>\nthe\n,\nÄ@@\n".encode()]
    return Target(seeds, _in_file(path, lambda: read_vocabulary(path)), (UserError,), damaged_text)


def sentences(folder: Path) -> Target:
    from fluid.errors import UserError
    from neural_machine_translation.reader import read_tsv

    path = folder / "train.tsv"
    seeds = ["a b\tc d\ne f g\th Ä\n".encode()]
    return Target(seeds, _in_file(path, lambda: read_tsv(path)), (UserError,), damaged_text)


# Speech.


def kaldi_archive(folder: Path) -> Target:
    from DeepASR.kaldi.tables import ArchiveWriter, read_archive
    from fluid.errors import DataError

    import numpy as np

    seeds = [b"a [ 1 2 3 ]\nb [\n 1 2\n 3 4 ]\n", b"a 1 2 3\nb 4 5\n"]
    for kind in ("FM", "DM", "CM", "CM2", "CM3"):
        with ArchiveWriter(folder / "seed.ark", kind=kind) as archive:  # type: ignore[arg-type]
            archive.write("a", np.arange(60, dtype=np.float32).reshape(20, 3))
            archive.write("b", np.arange(5))
        seeds.append((folder / "seed.ark").read_bytes())
    path = folder / "a.ark"
    return Target(seeds, _in_file(path, lambda: list(read_archive(path))), (DataError,), damaged_as_it_is)


def speech_list(folder: Path) -> Target:
    from DeepASR.legacy import read_list
    from fluid.errors import DataError

    import numpy as np

    (folder / "a.bin").write_bytes(np.arange(60, dtype="<f4").tobytes())
    (folder / "train.lst").write_text("a.bin\na.desc\n")
    read = _in_file(folder / "a.desc", lambda: list(read_list(folder / "train.lst")))
    return Target([b"2\na 0 160 20 2\nb 160 80 10 2\n"], read, (DataError,), damaged_text)


def kaldi_script(folder: Path) -> Target:
    from DeepASR.kaldi.tables import ArchiveWriter, read_script
    from fluid.errors import DataError

    import numpy as np

    with ArchiveWriter(folder / "a.ark", folder / "a.scp") as archive:
        for name in "abc":
            archive.write(name, np.arange(60, dtype=np.float32).reshape(20, 3))
    path = folder / "feats.scp"
    plain = (folder / "a.scp").read_bytes().replace(str(folder).encode() + b"/", b"")
    seeds = [plain, plain.replace(b"\n", b"[0:9,0:1]\n")]
    read = _in_file(path, lambda: [entry.read() for entry in read_script(path).values()])
    return Target(seeds, read, (DataError,), damaged_text)


def transition_model(folder: Path) -> Target:
    from DeepASR.kaldi.transition_model import read_transition_model
    from DeepASR.tests import test_transition_model as made
    from fluid.errors import DataError

    path = folder / "final.mdl"
    seeds = [write(chain) for write in (made.binary, made.text) for chain in (False, True)]
    return Target(seeds, _in_file(path, lambda: read_transition_model(path)), (DataError,), damaged_as_it_is)


def decoding_graph(folder: Path) -> Target:
    from DeepASR.decoding.graph import read_graph
    from fluid.errors import DataError

    path = folder / "HCLG.fst"
    seeds = [(ROOT / "DeepASR" / "tests" / "golden" / "graph.fst").read_bytes()]
    return Target(seeds, _in_file(path, lambda: read_graph(path)), (DataError,), damaged)


def speech_texts(folder: Path) -> Target:
    from DeepASR.decoding.grammar import parse_grammar
    from DeepASR.decoding.language_model import from_arpa, to_arpa, train
    from DeepASR.decoding.lexicon import read_lexicon
    from DeepASR.kaldi.tables import read_text
    from DeepASR.preparing.manifests import read_manifest
    from DeepASR.preparing.stretches import read_segments
    from DeepASR.transforms import read_statistics
    from fluid.errors import DataError

    arpa = to_arpa(train([["a", "b"], ["b", "a", "a"]], 2)).encode()
    path = folder / "text"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        done = []
        for reader in (read_text, read_lexicon, read_statistics, read_manifest, read_segments):
            with contextlib.suppress(DataError):
                done.append(reader(path))
        text = data.decode(errors="replace")
        with contextlib.suppress(DataError):
            done.append(from_arpa(text))
        return done, parse_grammar(text)

    seeds = [
        arpa,
        b"one w n\ntwo t w\n",
        b"turn (on|off) [the] light # comment\nstop\n",
        b"a 1 2\nb 3 4\n",
        b"u1 call 0.5 2\nu2 call 2 -1\n",
    ]
    seeds.append(
        b'{"audio_filepath": "a.wav", "text": "one two", "offset": 1, "duration": 0.5}\n{"utt": "b", "feat": "c.wav", "text": "x", "speaker": "y"}\n'
    )
    return Target(seeds, read, (DataError,), damaged_text)


def recording(folder: Path) -> Target:
    from DeepASR.audio import read_audio
    from fluid.errors import DataError

    import numpy as np
    import soundfile

    seeds = []
    for kind in ("WAV", "FLAC", "OGG"):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2)), 8000, format=kind)
        seeds.append(buffer.getvalue())
    return Target(seeds, lambda data: read_audio(data, 16_000), (DataError,), damaged)


def sound_stream(folder: Path) -> Target:
    from DeepASR.incoming import incoming
    from fluid.errors import DataError

    import numpy as np
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2)), 8000, format="WAV")
    given = {"seconds": 0.02, "rate": 8000, "channels": 1, "wanted": 16_000}
    return Target([buffer.getvalue()], lambda data: list(incoming(io.BytesIO(data), **given)), (DataError,), damaged)


def corpus(folder: Path) -> Target:
    import shutil

    from DeepASR.corpus import EMBEDDED, open_corpus, open_part
    from fluid.errors import DataError

    shutil.copytree(EMBEDDED, folder / "corpus")
    part = next(path.parent for path in sorted((folder / "corpus").rglob("text")))
    described, texts = next((folder / "corpus").glob("*.json")), part / "text"
    seeds = [described.read_bytes(), texts.read_bytes()]

    def read(data: bytes) -> object:
        described.write_bytes(data if b"{" in data else seeds[0])
        texts.write_bytes(seeds[1] if b"{" in data else data)
        return open_part(part, open_corpus(folder / "corpus"))

    return Target(
        seeds, read, (DataError,), lambda data, rng: (damaged_json if data[:1] == b"{" else damaged_text)(data, rng)
    )


# Caffe.


def _caffe_models(suffix: str) -> list[bytes]:
    files = sorted((ROOT / "caffe2fluid" / "tests" / "caffe_micro").glob(f"*{suffix}"))
    return [path.read_bytes() for path in files if path.stat().st_size < 20_000]


def prototxt(folder: Path) -> Target:
    from caffe2fluid.codegen import module_source
    from caffe2fluid.errors import ConvertError
    from caffe2fluid.network import read_network
    from caffe2fluid.translate import translate

    path = folder / "n.prototxt"

    def read() -> object:
        source = module_source(translate(read_network(path, "TEST", 0, (), None), None, "TEST", True), "n.prototxt")
        _check_code(source)
        return source

    return Target(_caffe_models(".prototxt"), _in_file(path, read), (ConvertError,), _damaged_net)


_STRINGS = (
    *(
        'x\\"); import os; os.system(\\"true\\") #',
        "a\\nimport os\\nos.abort()",
        '\\"\\"\\"\\nimport os\\n\\"\\"\\"',
        "{0}",
        "%s",
    ),
    *("Network()", "self", "import", "\\\\", "\\'", "é\\377", "", "a" * 500),
)


def _damaged_net(data: bytes, rng: random.Random) -> bytes:
    """Damage to a prototxt; often another string, which must stay one in the code that is made of it."""
    strings = list(re.finditer(rb'"[^"]*"', data))
    if strings and rng.random() < 0.3:
        found = rng.choice(strings)
        return data[: found.start()] + b'"' + rng.choice(_STRINGS).encode() + b'"' + data[found.end() :]
    return damaged_text(data, rng)


def _check_code(source: str) -> None:
    """Raise AssertionError if a module imports or names what no generated one does."""
    tree = ast.parse(source)
    imported = {item.name for node in ast.walk(tree) if isinstance(node, ast.Import) for item in node.names}
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported <= {"sys", "inspect", "math", "numpy", "paddle", "paddle.nn", "paddle.nn.functional"}, imported
    assert not named & {"os", "exec", "eval", "__import__", "subprocess", "open"}, named


def caffemodel(folder: Path) -> Target:
    from caffe2fluid.caffemodel import read_caffemodel
    from caffe2fluid.errors import ConvertError

    path = folder / "n.caffemodel"
    return Target(_caffe_models(".caffemodel"), _in_file(path, lambda: read_caffemodel(path)), (ConvertError,), damaged)


TARGETS: dict[str, tuple[Callable[[Path], Target], int]] = {
    target.__name__: (target, count)
    for target, count in [
        *((program, 25_000), (arrays, 20_000), (checkpoint_json, 4000), (registry_toml, 2000), (captured, 4000)),
        *((image, 6000), (class_weights, 4000), (image_list, 4000), (voc, 4000), (coco, 4000), (yolo, 4000)),
        *((polygons, 4000), (labels, 4000), (segmentation_lists, 4000)),
        *((words, 4000), (dictionary, 4000), (font, 2000), (word_set, 4000), (npz, 4000), (named_pictures, 4000)),
        *((boxes, 4000), (vocabulary, 4000), (sentences, 4000), (corpus, 1000), (sound_stream, 2000)),
        *(
            (kaldi_archive, 10_000),
            (kaldi_script, 4000),
            (speech_list, 4000),
            (transition_model, 4000),
            (decoding_graph, 4000),
        ),
        *((speech_texts, 4000), (recording, 4000)),
        *((prototxt, 20_000), (caffemodel, 20_000)),
    ]
}
"""By name; and how many files a whole run makes."""


class TooLong(BaseException):
    """A file took more than its seconds."""


def attack(name: str, count: int, seed: int) -> dict[str, Any]:
    """What came of so many files: numbers `read` and `refused`, `slowest` in seconds, `megabytes`, and `strange` errors, each
    with a file that leads to it."""
    rng, outcomes, strange, slowest = random.Random(seed), Counter[str](), {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        target = TARGETS[name][0](Path(folder))
        for data in target.seeds:
            target.read(data)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        for _ in range(count):
            data = target.damage(rng.choice(target.seeds), rng)
            began = time.perf_counter()
            try:
                with _in_time():
                    target.read(data)
                outcome = "read"
            except target.errors as error:
                outcome = "refused"
                assert 0 < len(str(error)) < 20_000, error
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcome = f"{type(error).__name__}: {str(error)[:80]}"
                strange.setdefault(outcome, base64.b64encode(data[:3000]).decode())
            outcomes[outcome] += 1
            slowest = max(slowest, time.perf_counter() - began)
    # Not getrusage: its maximum is also that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    megabytes = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) // 1024  # type: ignore[index]
    counts = {"read": outcomes["read"], "refused": outcomes["refused"]}
    return {
        "name": name,
        "files": count,
        **counts,
        "slowest": round(slowest, 3),
        "megabytes": megabytes,
        "strange": strange,
    }


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    found = attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    print(json.dumps(found))
    sys.exit(1 if found["strange"] else 0)
