"""Several processes and captured Programs train like one process: the same batches, the same losses, every image once."""

import os
import re
import subprocess
import sys
from pathlib import Path

from fluid import config as configuration
from fluid.errors import DataError
from fluid.run import events
from image_classification import train
from image_classification.reader import embedded_dataset

import numpy as np
import pytest

ROOT = Path(train.__file__).resolve().parents[1]
COMMON = ["--seed", "3", "--engine", "xla", "--device", "cpu", "--max_steps", "4", "--log_every", "1"]
TRAINING = ["--batch_size", "32", "--statistics_batch", "16", "--color_jitter"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The first embedded images and a broken one; 33 test images, which two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "broken.png").touch()
    for split, count in (("train", 96), ("val", 33)):
        lines = (embedded_dataset() / f"{split}_list.txt").read_text().splitlines()[:count]
        lines = [f"{embedded_dataset()}/{line}" for line in lines]
        lines[0] = f"{folder}/broken.png 1" if split == "train" else lines[0]
        (folder / f"{split}_list.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Path:
    """The run of one process, with an evaluation after the third update."""
    output = tmp_path_factory.mktemp("alone") / "run"
    in_processes(1, "train.py", "--data_dir", data, "--class_dim", 10, "--output_dir", output, *TRAINING, *COMMON)
    return output


def in_processes(count: int, script: str, *words: object) -> subprocess.CompletedProcess:
    start = [] if count == 1 else ["-m", "fluid.commands.launch", str(count)]
    return subprocess.run(
        [sys.executable, *start, str(ROOT / "image_classification" / script), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def assert_same_course(one: Path, other: Path) -> None:
    for kind, steps in (("train", [1, 2, 3, 4]), ("eval", [3, 4])):
        expected, found = events(one, kind), events(other, kind)
        assert [event["step"] for event in found] == [event["step"] for event in expected] == steps
        for key in ("loss", "acc1"):
            values = ([event[key] for event in course] for course in (found, expected))
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6, err_msg=f"{kind} {key}")
    replaced = [re.findall(r"(\d+) unreadable", (run / "train.log").read_text()) for run in (one, other)]
    assert replaced[0] == replaced[1] and int(replaced[0][0]) >= 1


def test_two_processes_share_every_batch_and_every_test_image(alone, data, tmp_path):
    words = ["--data_dir", data, "--class_dim", 10, "--test_batch_size", 9, "--num_workers", 1]
    done = in_processes(2, "train.py", *words, "--output_dir", tmp_path / "run", *TRAINING, *COMMON)
    assert done.returncode == 0, done.stderr
    assert "33 test images" in done.stdout
    assert_same_course(alone, tmp_path / "run")


def test_a_batch_that_processes_cannot_share_is_refused_at_the_start(data, tmp_path):
    words = ["--data_dir", data, "--class_dim", 10, "--batch_size", 64]
    done = in_processes(3, "train.py", *words, "--output_dir", tmp_path / "run", *COMMON)
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert done.stderr.count("error: --batch_size 64 cannot be shared evenly by 3 devices") == 1


@pytest.fixture(scope="module")
def captured(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captured") / "programs"
    words = ["--data_dir", str(data), "--class_dim", "10", "--seed", "3", "--capture", str(folder), *TRAINING]
    train.main(configuration.parse(train.Flags, words))
    return folder


@pytest.mark.parametrize("processes", [1, 2])
def test_programs_from_files_train_alike_in_any_number_of_processes(alone, data, captured, tmp_path, processes):
    words = ["--programs", captured, "--data_dir", data, "--test_batch_size", 9, "--output_dir", tmp_path / "run"]
    done = in_processes(processes, "train.py", *words, *COMMON)
    assert done.returncode == 0, done.stderr
    assert_same_course(alone, tmp_path / "run")


def test_programs_from_files_need_data_of_their_length(captured, tmp_path):
    with pytest.raises(DataError, match=r"were built for 3 updates an epoch, and these data make \d+"):
        train.main(train.Flags(programs=captured, data_dir=embedded_dataset(), output_dir=tmp_path / "run"))
