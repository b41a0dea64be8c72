"""What users of 2018 know: every flag acts or is told of, the recipe, the releases as archives of their names and order."""

import csv
import struct
import zipfile
from pathlib import Path

from fluid import config as configuration
from fluid import weights
from fluid.config import former_names
from fluid.interface import Window
from fluid.program import initialise
from fluid.weights import registry
from ocr_recognition import eval as evaluate
from ocr_recognition import infer, train
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.network import inference_program, training_programs
from ocr_recognition.opening import open_recognizer
from ocr_recognition.options import ALIASES, NEVER, RETIRED, NetworkFlags, with_never
from ocr_recognition.recipe import with_recipe
from ocr_recognition.recognizer import FOLDER, Recognizer

import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).parent / "golden"
RELEASES = {"ocr_ctc": "crnn_ctc", "ocr_attention": "attention"}
# What 2018 wrote -> the field of today and its value; None: a note.
CTC_TRAIN = {
    "--batch_size 64": ("batch_size", 64),
    "--total_step 720000": ("max_steps", 720_000),
    "--log_period 1000": ("log_every", 1000),
    "--save_model_period 15000": ("save_every", 15_000),
    "--save_model_period -1": ("save_every", NEVER),
    "--eval_period 15000": ("eval_every", 15_000),
    "--save_model_dir ./models": ("output_dir", Path("models")),
    "--init_model weights": ("pretrained_model", "weights"),
    "--use_gpu True": ("device", "gpu"),
    "--use_gpu False": ("device", "cpu"),
    "--min_average_window 100": ("min_average_window", 100),
    "--max_average_window 125": ("max_average_window", 125),
    "--average_window 0.15": ("average_window", 0.15),
    "--parallel False": None,
    "--train_images a": ("train_images", Path("a")),
    "--train_list b": ("train_list", Path("b")),
    "--test_images c": ("test_images", Path("c")),
    "--test_list d": ("test_list", Path("d")),
    "--model attention": ("model", "attention"),
    "--profile True": ("profile", True),
    "--skip_batch_num 5": None,
    "--iterations 10": None,
    "--lr 0.5": ("lr", 0.5),
    "--l2decay 0.0004": ("l2_decay", 4e-4),
    "--momentum 0.8": ("momentum_rate", 0.8),
    "--gradient_clip 10": ("grad_clip", 10.0),
    "--lr_decay_strategy piecewise_decay": ("lr_strategy", "piecewise_decay"),
}
EVAL = {
    "--model_path weights": ("pretrained_model", "weights"),
    "--input_images_dir a": ("test_images", Path("a")),
    "--input_images_list b": ("test_list", Path("b")),
    "--use_gpu True": ("device", "gpu"),
    "--model crnn_ctc": ("model", "crnn_ctc"),
}
INFER = {
    "--model_path weights": ("pretrained_model", "weights"),
    "--input_images_dir a": ("image_dir", Path("a")),
    "--input_images_list b": ("image_list", Path("b")),
    "--use_gpu False": ("device", "cpu"),
    "--dict d": ("dict", Path("d")),
    "--use_mkldnn True": None,
    "--profile True": None,
    "--skip_batch_num 5": None,
    "--iterations 10": None,
}
OF_EVAL = {"input_images_list": "test_list", "input_images_dir": "test_images"}


@pytest.mark.parametrize(
    ("script", "table", "aliases"), [(train, CTC_TRAIN, {}), (evaluate, EVAL, OF_EVAL), (infer, INFER, {})]
)
def test_every_flag_acts_or_is_told_of(script, table, aliases, capsys) -> None:
    for words, wanted in table.items():
        flags = configuration.parse(
            script.Flags, with_never(words.split()), aliases={**ALIASES, **aliases}, retired=RETIRED
        )
        noted = capsys.readouterr().err
        if wanted is None:
            assert noted.count("note: ") == 1, words
        else:
            name, value = wanted
            assert getattr(flags, name) == value and not noted, words
    known = {*ALIASES, *RETIRED, *former_names(script.Flags)}
    assert {words.split()[0][2:] for words, wanted in table.items() if wanted is None} <= known


def test_the_recipes() -> None:
    plain = train.Flags(recipe="2018")
    flags = with_recipe(plain)
    assert (flags.model, flags.optimizer, flags.momentum_rate, flags.lr, flags.l2_decay) == (
        "crnn_ctc",
        "momentum",
        0.9,
        1e-3,
        4e-4,
    )
    assert (flags.height, flags.batch_size, flags.max_steps, flags.lr_strategy) == (48, 32, 720_000, "constant")
    assert flags.averaging == Window(0.15, 10_000, 12_500) and flags.grad_clip is None
    flags = with_recipe(train.Flags(recipe="2018", model="attention", lr=0.5))
    assert (flags.optimizer, flags.lr, flags.grad_clip, flags.beam_size, flags.longest) == (
        "adadelta",
        0.5,
        10.0,
        2,
        100,
    )
    assert with_recipe(train.Flags()) == train.Flags()
    assert train.epochs_of(with_recipe(plain), 1000) == 720
    assert train.epochs_of(with_recipe(train.Flags(recipe="2018", num_epochs=3)), 1000) == 3
    assert with_recipe(train.Flags(recipe="2018", use_ema=True)).averaging == 0.9999


def test_the_loss_of_2018_is_a_sum_whose_gradient_is_divided_by_the_frames() -> None:
    from fluid.engine.paddle import PaddleEngine
    from fluid.schedule import Constant

    recognizer = Recognizer("crnn_ctc", Alphabet(tuple("ab")))
    feed = {
        "pixel": np.random.default_rng(0).integers(0, 256, (2, 1, 48, 40)).astype(np.uint8),
        "width": np.array([40, 40]),
        "label": np.array([[0, 1], [1, 1]], np.int32),
        "label_length": np.array([2, 1]),
    }
    losses, offsets = [], []
    for old in (False, True):
        options = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(1.0), "as_in_2018": old}
        program = training_programs(recognizer, **options)["train"]
        state = initialise(program, seed=0)
        assert (state["conv2d_1.w_0"].std() < 0.02) == old
        engine = PaddleEngine()
        # From the same numbers; what differs is the loss.
        fixed = np.random.default_rng(0)
        engine.load(
            {
                name: fixed.normal(0, 0.1, array.shape).astype(array.dtype) if array.ndim > 1 else array
                for name, array in state.items()
            }
        )
        losses.append(float(engine.run(program, feed)["loss"]))
        offsets.append(engine.state(["fc_2.b_0"])["fc_2.b_0"])
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)
    # A mean over two words against a sum over two, each over five frames.
    np.testing.assert_allclose(offsets[1] * 5, offsets[0] * 2, rtol=1e-4, atol=1e-6)


def combined(arrays: list[np.ndarray]) -> bytes:
    """A file of all variables one after the other, as Fluid wrote it."""
    parts = []
    for array in arrays:
        described = b"\x08\x05" + b"".join(b"\x10" + varint(length) for length in array.shape)
        parts.append(struct.pack("<IQIi", 0, 0, 0, len(described)) + described + array.tobytes())
    return b"".join(parts)


def varint(number: int) -> bytes:
    found = bytearray()
    while True:
        number, low = number >> 7, number & 127
        found.append(low | (128 if number else 0))
        if not number:
            return bytes(found)


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_is_read_from_an_archive_of_its_names_and_order(name: str, tmp_path) -> None:
    entry = registry.load_registry(FOLDER)[name]
    with open(GOLDEN / f"{RELEASES[name]}_variables.tsv", encoding="utf-8") as file:
        shapes = {
            row["name"]: [int(length) for length in row["shape"].strip("[]").split(",")]
            for row in csv.DictReader(file, delimiter="\t")
        }
    rng = np.random.default_rng(0)
    state = {variable: rng.normal(size=shapes[variable]).astype(np.float32) for variable in sorted(shapes)}
    assert (entry.model, entry.variables, entry.size) == (
        RELEASES[name],
        len(state),
        4 * sum(a.size for a in state.values()),
    )
    assert entry.licence and entry.class_dim == 95
    archive = tmp_path / f"{name}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{name}/{name}_params", combined(list(state.values())))
    flags = NetworkFlags(pretrained_model=str(archive), model=RELEASES[name])
    opened = open_recognizer(flags, say=lambda line: None)
    assert opened.facts == Recognizer(RELEASES[name], Alphabet.ascii()) and opened.state.keys() == state.keys()
    assert all(np.array_equal(opened.state[variable], array) for variable, array in state.items())


def test_another_alphabet_is_told(tmp_path) -> None:
    recognizer = Recognizer("crnn_ctc", Alphabet(tuple("abc")))
    state = initialise(inference_program(recognizer), seed=0)
    path, letters = tmp_path / "abc.safetensors", tmp_path / "letters.txt"
    weights.write_weights(path, state)
    with pytest.raises(weights.opening.UserError, match="knows 3 characters, and the 95 of ASCII"):
        open_recognizer(NetworkFlags(pretrained_model=str(path), model="crnn_ctc"), say=lambda line: None)
    letters.write_text("x\ny\nz\n")
    flags = NetworkFlags(pretrained_model=str(path), model="crnn_ctc", dict=letters)
    assert open_recognizer(flags, say=lambda line: None).facts.alphabet == Alphabet(tuple("xyz"))
