"""The commands that READMEs show, what they run, and stand-ins for the files that they name."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from fluid.arrays import read_npz
from fluid.tests.tasks import Task

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", *sorted(path.parent / "README.md" for path in ROOT.glob("*/infer.py"))]
FRONT_DOOR = {"demo", "test", "install"}
"""Commands of ./zoo that run no script of a task and no module of fluid.commands."""


def commands(path: Path) -> list[str]:
    """Each command line of a README's code blocks, without its comment."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    text = "".join(block for language, block in blocks if language in ("", "bash"))
    lines = [
        re.sub(r"\s+", " ", re.sub(r"\s#.*", "", line)).strip() for line in re.sub(r"\\\n", " ", text).splitlines()
    ]
    return [line for line in lines if re.match(r"\./zoo |(\.venv/bin/)?python ", line)]


def script_of(readme: Path, words: list[str]) -> tuple[Path, list[str]] | None:
    """The script that a command runs, and its words; None for a command of the front door itself."""
    if words[0].endswith("python"):
        here, above = readme.parent / words[1], ROOT / words[1]
        return here if here.is_file() else above, words[2:]
    command, *rest = words[1:]
    if command in FRONT_DOOR:
        return None
    match command:
        case "capture":
            return ROOT / rest[0] / "train.py", rest[1:]
        case "launch":
            return ROOT / rest[1] / "train.py", rest[2:]
        case "prepare" | "score":
            return ROOT / rest[0] / f"{command}_{rest[1]}.py", rest[2:]
        case "benchmark":
            return ROOT / "benchmarks" / f"{rest[0]}.py", rest[1:]
    module = ROOT / "fluid" / "commands" / f"{command}.py"
    return (module, rest) if module.is_file() else (ROOT / rest[0] / f"{command}.py", rest[1:])


PHOTOGRAPH = ROOT / "object_detection" / "docs" / "detections.jpg"
WORD = ROOT / "ocr_recognition" / "data" / "signs" / "scenetext01_0.jpg"
SPEECH = sorted((ROOT / "DeepASR" / "data" / "examples" / "digits").glob("*.flac"))
NET = ROOT / "caffe2fluid" / "tests" / "caffe_micro" / "conv_group_hw"
FORMATS = ROOT / "fluid" / "tests" / "golden" / "formats"
SENTENCES = "Where is the train station?\nClick the button to save the document.\n"


def folder_of(*sources: Path) -> Callable[[Path], None]:
    """Makes a folder of copies."""

    def make(path: Path) -> None:
        path.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, path)

    return make


def word(path: Path) -> None:
    """A photographed word."""
    Image.open(WORD).save(path)


def words(path: Path) -> None:
    """A folder with one."""
    path.mkdir()
    word(path / "one.png")


def classes(path: Path) -> None:
    """Folders of pictures, a class each, enough for three parts."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (path / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number}.jpg")


def text(content: str) -> Callable[[Path], None]:
    """Makes a file of text."""
    return lambda path: path.write_text(content, encoding="utf-8") and None


def film(path: Path) -> None:
    """Eleven frames of a photograph that moves."""
    image = cv2.resize(cv2.imread(str(PHOTOGRAPH)), (160, 120))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
    for shift in range(11):
        writer.write(np.roll(image, shift, 1))
    writer.release()


STAND_INS: dict[str, Callable[[Path], None] | Path] = {
    "photo.jpg": PHOTOGRAPH,
    "street.jpg": PHOTOGRAPH,
    "aerial.tif": lambda path: Image.open(PHOTOGRAPH).resize((900, 700)).save(path),
    "holiday": folder_of(PHOTOGRAPH),
    "pictures": folder_of(PHOTOGRAPH),
    "more": words,
    "film.mp4": film,
    "list.txt": text("photo.jpg\n"),
    "names.txt": text(f"{PHOTOGRAPH}\n"),
    "word.png": word,
    "tall.png": word,
    "signs": folder_of(WORD),
    "PHOTOS": classes,
    "street.txt": text("5,5,90,5,90,60,5,60\n"),
    "speech.wav": SPEECH[0],
    "calls": folder_of(*SPEECH),
    "recordings": folder_of(*SPEECH),
    "code.txt": text("(one | two) zero [four | five]\n(seven | eight | nine)+\n"),
    "notes.txt": text(SENTENCES),
    "letters": lambda path: folder_of()(path) or text(SENTENCES)(path / "one.txt"),
    "begun.txt": text("Where is the train station?\tWo ist\n"),
    "glossary.tsv": text("train station\tBahnhof\n"),
    "pairs.tsv": text("Where is the train station?\tWo ist der Bahnhof?\n"),
    "deploy.prototxt": NET.with_suffix(".prototxt"),
    "net.caffemodel": NET.with_suffix(".caffemodel"),
    "MODEL_DIR": lambda path: shutil.copytree(FORMATS / "inference_model", path) and None,
    "ResNet50_pretrained": lambda path: shutil.copytree(FORMATS / "fluid_save", path) and None,
}
"""Files and folders that READMEs name, and what stands for them."""


def lay_out(place: Path, line: str, task: Task | None = None) -> None:
    """The files that a command names, as far as stand-ins are known and they are not there yet; MINE by the task's tests/tiny.py."""
    if task is not None and "MINE" in line and not (place / "MINE").exists():
        shutil.copytree(task.data()[1], place / "MINE")
    if "legacy run" in line:
        np.savez(place / "in.npz", image=read_npz(FORMATS / "io.npz")["x"])
    for name in re.findall(r"(?<![\w./])(\w+)/data/", line):
        if (ROOT / name / "data").is_dir() and not (place / name).exists():
            (place / name).mkdir()
            (place / name / "data").symlink_to(ROOT / name / "data")
    for name, source in STAND_INS.items():
        if re.search(rf"(?<![\w./]){re.escape(name)}(?![\w.])", line) and not (place / name).exists():
            if isinstance(source, Path):
                shutil.copy(source, place / name)
            else:
                source(place / name)
