"""Any number of devices and processes translates and trains alike, also where batches of words do not divide by them."""

import shutil
import subprocess
import sys
from pathlib import Path

from fluid import checkpoint
from fluid.checkpoint import Meta
from fluid.run import events
from fluid.tests.devices import with_devices
from neural_machine_translation import train

import numpy as np
import pytest

ROOT = Path(train.__file__).resolve().parents[1]
WORDS = (
    "--digit_copy --n_layer 1 --d_model 16 --d_inner_hid 32 --n_head 2 --dropout 0 --beam_size 2 --max_out_len 10 "
    "--batch_size 120 --engine xla --device cpu --seed 3 --log_every 1 --eval_every 4"
)


def run(output: Path, *words: str, devices: int = 1, processes: int = 1) -> str:
    start = [] if processes == 1 else ["-m", "fluid.commands.launch", str(processes)]
    environment = {**with_devices(devices), "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "neural_machine_translation" / "train.py")
    done = subprocess.run(
        [sys.executable, *start, script, "--output_dir", str(output), *WORDS.split(), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def course(output: Path) -> list[list[float]]:
    """The losses of the updates, then what the evaluations measured."""
    measured = [[event[key] for key in ("loss", "bleu", "chrf")] for event in events(output, "eval")]
    return [[event["loss"] for event in events(output, "train")], *measured]


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("two") / "run"
    run(output, "--max_steps", "8", devices=2)
    return output


@pytest.fixture(scope="module")
def interrupted(two_devices, tmp_path_factory) -> Path:
    """The same run as it was after four updates."""
    output = tmp_path_factory.mktemp("half") / "run"
    shutil.copytree(two_devices, output)
    shutil.rmtree(output / "checkpoints" / "step_00000008")
    return output


@pytest.mark.full
def test_two_processes_train_like_two_devices(two_devices, tmp_path):
    said = run(tmp_path / "run", "--max_steps", "8", "--test_batch_size", "31", processes=2)
    assert "attention maps need one process" in said and "perplexity" in said
    expected, found = course(two_devices), course(tmp_path / "run")
    assert len(found) == len(expected) == 3 and len(found[0]) == 8
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.full
def test_a_run_goes_on_with_fewer_devices_on_the_same_batches(two_devices, interrupted, tmp_path):
    output = shutil.copytree(interrupted, tmp_path / "run")
    said = run(output, "--max_steps", "8", "--checkpoint", str(output))
    assert "cut anew" not in said
    np.testing.assert_allclose(course(output)[0], course(two_devices)[0], rtol=1e-4)
    assert checkpoint.load(output)[1].extra[train.MULTIPLE] == 2


@pytest.mark.full
def test_a_run_goes_on_with_devices_that_cannot_share_its_batches(two_devices, interrupted, tmp_path):
    output = shutil.copytree(interrupted, tmp_path / "run")
    said = run(output, "--max_steps", "8", "--checkpoint", str(output), devices=3)
    assert "3 devices cannot share the batches of this run: they are cut anew" in said
    losses = course(output)[0]
    assert losses[:4] == pytest.approx(course(two_devices)[0][:4], rel=1e-4) and losses[-1] < losses[0]
    assert checkpoint.load(output)[1].extra[train.MULTIPLE] == 3


def test_what_the_sentences_of_a_batch_are_a_multiple_of():
    assert train.sentences_in_multiples_of(4, None) == (4, False)
    before = Meta("neural_machine_translation", 7, extra={train.MULTIPLE: 8})
    assert train.sentences_in_multiples_of(4, before) == (8, False)
    assert train.sentences_in_multiples_of(3, before) == (3, True)
    assert train.sentences_in_multiples_of(1, Meta("neural_machine_translation", 7)) == (1, False)
