"""Command lines of today and of 2018."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fluid.config import (
    Count,
    Decay,
    Range,
    Share,
    TrainFlags,
    Was,
    WasSwitch,
    declared,
    defaults,
    from_dict,
    named,
    nearest,
    parse,
)
from fluid.errors import UserError

import pytest
import tyro


@dataclass
class Flags(TrainFlags):
    """A task's flags."""

    image_shape: tuple[int, int, int] = (3, 224, 224)
    """Shape."""
    mixup: bool = False
    """Switch."""
    lr: float = 0.1
    """Rate."""
    dropout: Decay | None = None
    """Share of zeros."""
    top_k: Annotated[Count, Was("topk", "best")] = 5
    """Classes."""
    mean: tuple[Share, Share] = (0.5, 0.5)
    """Mean."""


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
        (["--topk", "3"], "top_k", 3),
        (["--best=3"], "top_k", 3),
        (["--use_cuda", "0"], "device", "cpu"),
        (["--num_workers", "0"], "num_workers", 0),
        (["--dropout", "0"], "dropout", 0.0),
        (["--mean", "0", "1"], "mean", (0.0, 1.0)),
    ],
)
def test_spellings(words, field, value):
    assert getattr(read(*words), field) == value


@dataclass
class Named:
    """Files and switches."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Files."""
    flip: bool = False
    """Switch."""
    device: Annotated[str, Was("use_gpu")] = "auto"
    """Was a switch."""
    smoothing: Annotated[Share, WasSwitch("use_smoothing", 0.1)] = 0.0
    """Was a switch."""


@pytest.mark.parametrize(
    "words, named",
    [
        *(
            (words, {"flip": True})
            for words in ("a.png --flip", "--flip a.png", "--flip True a.png", "--flip on a.png")
        ),
        *((words, {}) for words in ("--no_flip a.png", "--with_mem_opt True a.png", "--with_mem_opt=1 a.png")),
        *((words, {"device": "gpu"}) for words in ("--use_gpu a.png", "--use_gpu True a.png", "--use_gpu=1 a.png")),
        *((words, {"smoothing": 0.1}) for words in ("--use_smoothing a.png", "--use_smoothing True a.png")),
    ],
)
def test_a_word_behind_a_switch_is_no_part_of_it(words, named):
    assert parse(Named, words.split(), retired=RETIRED) == Named(("a.png",), **named)


@pytest.mark.parametrize("flag", ["--use_gpu", "--mixup", "--no_mixup"])
def test_a_word_that_is_neither_true_nor_false_exits_with_2(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        read(flag, "maybe")
    assert stopped.value.code == 2 and "maybe" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    "words, line",
    [
        (["--num_workers", "-1"], "--num_workers -1: must be at least 0 and at most 1024"),
        (["--seed", "4294967296"], "--seed 4294967296: must be at least 0 and at most 4294967295"),
        (["--max_minutes", "0"], "--max_minutes 0.0: must be above 0"),
        (["--max_minutes", "nan"], "--max_minutes nan: must be a finite number"),
        (["--max_minutes", "inf"], "--max_minutes inf: must be a finite number"),
        (["--dropout", "1"], "--dropout 1.0: must be at least 0 and below 1"),
        (["--topk", "0"], "--top_k 0: must be at least 1 and at most 2147483647"),
        (["--topk", "1" + 400 * "0"], f"--top_k 1{400 * '0'}: must be at least 1 and at most 2147483647"),
        (["--mean", "0.5", "1.5"], "--mean 1.5: must be at least 0 and at most 1"),
    ],
)
def test_what_lies_outside_its_range_is_one_line(words, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        read(*words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("place", ["nonsense", "host:", ":1", "host:port", "a b:1"])
def test_a_coordinator_without_host_or_port_is_refused(place):
    with pytest.raises(UserError, match=f"--coordinator {place}: give HOST:PORT"):
        _ = read("--coordinator", place, "--num_hosts", "1", "--host_id", "0").hosts
    assert read("--coordinator", "[::1]:1234").hosts.coordinator == "[::1]:1234"


def test_ranges_are_found_anywhere_in_a_type():
    kind = tuple[Annotated[int, Range(2)], Annotated[float, Range(0, 3)] | None] | None
    assert list(declared(kind, Range)) == [Range(2), Range(0, 3)]


@dataclass
@defaults(keep_checkpoints=7, lr=0.5)
class Others(Flags):
    """Flags with other defaults."""


def test_other_defaults_keep_help_and_range(capsys):
    assert (Others().keep_checkpoints, Others().lr, Flags().keep_checkpoints) == (7, 0.5, 3)
    with pytest.raises(SystemExit):
        parse(Others, ["--help"])
    assert "Newest checkpoints to keep, beside the best one. (default: 7)" in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )
    with pytest.raises(SystemExit):
        parse(Others, ["--keep_checkpoints", "0"])


def test_runs_remember_flags_by_names_they_had():
    assert from_dict(Flags, {"topk": 3, "lr": 0.5, "gone": 1}) == Flags(top_k=3, lr=0.5)
    assert "top_k" in named(read("--topk", "3"))


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
