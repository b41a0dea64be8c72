"""Command lines of today and of 2018."""

from dataclasses import dataclass
from pathlib import Path

from fluid.config import TrainFlags, nearest, parse

import pytest


@dataclass
class Flags(TrainFlags):
    """A task's flags."""

    image_shape: tuple[int, int, int] = (3, 224, 224)
    """Shape."""
    mixup: bool = False
    """Switch."""
    lr: float = 0.1
    """Rate."""


ALIASES = {"model_save_dir": "output_dir", "use_mixup": "mixup"}
RETIRED = {"with_mem_opt": "memory is planned by the engine"}


def read(*words: str) -> Flags:
    return parse(Flags, words, aliases=ALIASES, retired=RETIRED)


@pytest.mark.parametrize(
    "words, field, value",
    [
        (["--use_gpu=True"], "device", "gpu"),
        (["--use_gpu", "false"], "device", "cpu"),
        (["--use-gpu", "0"], "device", "cpu"),
        (["--use_gpu"], "device", "gpu"),
        (["--image_shape", "3,32,32"], "image_shape", (3, 32, 32)),
        (["--image_shape=3,32,32"], "image_shape", (3, 32, 32)),
        (["--image_shape", "3", "32", "32"], "image_shape", (3, 32, 32)),
        (["--mixup"], "mixup", True),
        (["--mixup", "1"], "mixup", True),
        (["--no_mixup"], "mixup", False),
        (["--use_mixup=True"], "mixup", True),
        (["--use_mixup", "False"], "mixup", False),
        (["--model_save_dir", "a b"], "output_dir", Path("a b")),
        (["--max-steps", "3"], "max_steps", 3),
        (["--lr", "-1e-3"], "lr", -1e-3),
    ],
)
def test_spellings(words, field, value):
    assert getattr(read(*words), field) == value


def test_a_retired_flag_is_one_note(capsys):
    assert read("--with_mem_opt", "True", "--lr", "1") == read("--lr", "1")
    assert capsys.readouterr().err == "note: --with_mem_opt has no effect any more: memory is planned by the engine\n"


@pytest.mark.parametrize(
    "words", [["--surprise", "1"], ["--lr", "fast"], ["--device", "tpu"], ["--image_shape", "3,2"]]
)
def test_wrong_flags_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        read(*words)
    assert stopped.value.code == 2
    assert words[0].strip("-") in capsys.readouterr().err


def test_help_documents_every_flag(capsys):
    with pytest.raises(SystemExit) as stopped:
        read("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in Flags.__dataclass_fields__:
        assert f"--{name}" in text


def test_nearest():
    assert nearest("resnet5", ["ResNet50", "AlexNet"]) == " Did you mean ResNet50?"
    assert nearest("zzz", ["ResNet50"]) == ""
