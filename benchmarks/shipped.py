"""Evaluates what comes along, each model by the command that READMEs name, and writes what was found.

    python -m benchmarks.shipped                        all of them, some forty minutes of one core
    python -m benchmarks.shipped --only digits streets  those whose weights or data changed
    python -m benchmarks.table                          then the tables of the READMEs

Entries of results/shipped_cpu.json are replaced one by one, so that a run that was cut off loses nothing. Data that an
evaluation needs beside what comes along lies in --work, and is made there if it can be.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import ROOT
from fluid import files

FILE = ROOT / "benchmarks" / "results" / "shipped_cpu.json"


class Evaluation(NamedTuple):
    """How one model is measured."""

    command: str
    """After `./zoo`; `{work}` is the folder of data."""
    data: str = ""
    """What it needs below that folder."""
    prepare: str = ""
    """The command that makes it, after `./zoo`; without one somebody has to."""


EVALUATIONS = {
    "clothes": Evaluation("eval image_classification"),
    "streets": Evaluation(
        "eval icnet --pretrained_model streets --data_dir {work}/streets",
        "streets",
        "prepare icnet streets --output_dir {work}/streets --size 512 1024 --train 0 --val 100",
    ),
    "streets_simple": Evaluation("eval icnet"),
    "translation": Evaluation("eval neural_machine_translation"),
    "translation_everyday": Evaluation(
        "eval neural_machine_translation --test_file_pattern neural_machine_translation/data/everyday.tsv"
    ),
    "translation_corpora": Evaluation(
        "eval neural_machine_translation --data_dir {work}/corpora",
        "corpora",
        "prepare neural_machine_translation debian --output_dir {work}/corpora",
    ),
    "pong": Evaluation("eval DeepQNetwork"),
    "breakout": Evaluation("eval DeepQNetwork --env Breakout --test_episodes 30 --seed 1"),
    "breakout_2018": Evaluation("eval DeepQNetwork --pretrained_model breakout_2018 --seed 0"),
    "shapes": Evaluation("eval object_detection"),
    "commands": Evaluation("eval DeepASR"),
    "digits": Evaluation(
        "eval DeepASR --pretrained_model digits --data_dir {work}/takes",
        "takes",
        "prepare DeepASR digits --recordings {work}/free-spoken-digit-dataset/recordings --output_dir {work}/takes "
        "--synthetic 0 --tested_takes 5 --times 1 --noise 12 30 --seed 1",
    ),
    "signs": Evaluation("eval ocr_recognition --pretrained_model english --data_dir ocr_recognition/data/signs"),
    "words": Evaluation("eval ocr_recognition --pretrained_model english --num_words 1000"),
    "simple_words": Evaluation("eval ocr_recognition --pretrained_model simple --num_words 500"),
}


def evaluate(evaluation: Evaluation, work: Path) -> dict[str, Any]:
    """What the command found, how long it took and when. Raises SystemExit with its words if it fails."""
    if evaluation.data and not (work / evaluation.data).exists():
        _zoo(evaluation.prepare.format(work=work))
    with tempfile.TemporaryDirectory() as folder:
        before, began = _cpu_seconds(), time.perf_counter()
        _zoo(f"{evaluation.command.format(work=work)} --output_dir {shlex.quote(folder)}")
        spent = {"cpu_seconds": round(_cpu_seconds() - before, 1), "seconds": round(time.perf_counter() - began, 1)}
        found = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
    numbers = {name: value for name, value in found.items() if name != "seconds" and _is_number(value)}
    command = f"./zoo {evaluation.command.format(work='DATA')}"
    return {"command": command, "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), **spent, "found": numbers}


def _is_number(value: Any) -> bool:
    """Whether it is one, or a list of them (an interval)."""
    return isinstance(value, int | float) or (isinstance(value, list) and all(map(_is_number, value)))


def _zoo(command: str) -> None:
    verb, task, *flags = shlex.split(command)
    script = [f"{task}/{verb}.py"] if verb == "eval" else [f"{task}/prepare_{flags.pop(0)}.py"]
    result = subprocess.run([sys.executable, *script, *flags], cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"./zoo {command}:\n{result.stdout[-500:]}\n{result.stderr[-1500:]}")


def _cpu_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    """Measure those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(EVALUATIONS), default=list(EVALUATIONS))
    parser.add_argument(
        "--work", type=Path, default=ROOT / "output" / "shipped", help="folder of data beside what comes along"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        row = evaluate(EVALUATIONS[name], arguments.work.resolve())
        print(json.dumps({name: row}), flush=True)
        rows = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
        kept = {known: rows[known] for known in EVALUATIONS if known in rows}
        with files.whole(FILE) as unfinished:
            unfinished.write_text(json.dumps({**kept, name: row}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
