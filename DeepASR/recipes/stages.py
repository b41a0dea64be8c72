"""Recipes in numbered stages: those that are done are not done again, and what a script of the task says is shown."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from fluid.errors import UserError
from fluid.records import make_folder, writing
from fluid.run import console

SCRIPTS = Path(__file__).resolve().parent.parent


class StageFlags(Protocol):
    """What every recipe has."""

    work: Path
    """Folder for everything."""
    stage: int | None
    """Stage to begin with, anew; None: the first that is not done."""
    stop_stage: int
    """Stage to end with."""


Flags = TypeVar("Flags", bound=StageFlags)


def run_stages(stages: Sequence[Callable[[Flags], None]], flags: Flags) -> list[int]:
    """Do what is not done yet; returns the numbers of the stages that ran."""
    done = make_folder(flags.work / "done")
    ran = []
    for number, stage in enumerate(stages[: flags.stop_stage], 1):
        mark = done / f"{number}_{stage.__name__}"
        if number < (flags.stage or 1) or (flags.stage is None and mark.exists()):
            continue
        console.rule(f"stage {number}: {stage.__name__}")
        stage(flags)
        with writing(mark):
            mark.touch()
        ran.append(number)
    if not ran:
        console.print(f"all stages are done; --stage N does them from N on anew ({done} says which there are)")
    return ran


def run(name: str, *words: str, **values: object) -> str:
    """Run a script of the task, show what it prints, and return that. Raises UserError if it fails."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *words]
    command += [word for key, value in values.items() for word in (f"--{key}", str(value))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line)
            console.print(line.rstrip("\n"))
    if process.returncode:
        raise UserError(
            f"{name}.py ended with {process.returncode}; mend what it says, and run this again to go on from here"
        )
    return "".join(told)


def sweep(path: Path, *words: str, **values: object) -> None:
    """Write the acoustic scale that makes the fewest errors on dev, of those that eval.py is asked to try, into a file.

    Raises UserError if eval.py fails or the file cannot be written.
    """
    told = run("eval", *words, "--split", "dev", **values)
    found = re.search(r"fewest errors with --acoustic_scale (\S+)", told)
    assert found is not None, told
    make_folder(path.parent)
    with writing(path):
        path.write_text(f"{found[1]}\n", encoding="ascii")


def remade(folder: Path) -> Path:
    """The name of a folder that a stage makes; what an earlier run of it left is moved aside.

    Raises UserError if it cannot be moved.
    """
    if folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        with writing(folder):
            folder.rename(aside)
        console.print(f"{folder} of an earlier run is {aside} now")
    return folder


def write_tables(folder: Path, texts: dict[str, list[str]], files: dict[str, Path], speakers: dict[str, str]) -> None:
    """text, utt2spk and wav.scp, as prepare_wav.py reads them. Raises UserError if they cannot be written."""
    make_folder(folder)
    lines = {
        "text": [f"{name} {' '.join(words)}" for name, words in texts.items()],
        "utt2spk": [f"{name} {speakers[name]}" for name in texts],
        "wav.scp": [f"{name} {files[name].resolve()}" for name in texts],
    }
    for file, table in lines.items():
        with writing(folder / file):
            (folder / file).write_text("\n".join([*table, ""]), encoding="utf-8")
