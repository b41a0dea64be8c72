"""The commands of the READMEs, as a new user types them: the quick ones run here, of the others commands.toml says when they did.

tests/commands.toml, of each folder its own and of the main page the one here, has lists of commands without their comments:

    quick        run here, on stand-ins for the files that they name (readmes.py)
    full         run by ./zoo test --full, in this order
    tested       {where: commands} that other tests run as they stand or on little
    ran          {date and machine: commands} that were run by hand or for a figure of the README
    not_run      {why: commands}
"""

import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

from fluid.tests.tasks import Task, call, open_task, train
from tests.readmes import READMES, ROOT, commands, lay_out, script_of

import pytest

FOLDERS = {str(readme.parent.relative_to(ROOT)): readme for readme in READMES}


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


LISTED = {name: _read(readme.parent / "tests" / "commands.toml") for name, readme in FOLDERS.items()}


def listed(name: str) -> list[str]:
    """The commands that commands.toml has for a folder."""
    kinds = LISTED[name]
    others = [group for kind in ("tested", "ran", "not_run") for group in kinds.get(kind, {}).values()]
    return [line for group in (kinds.get("quick", []), kinds.get("full", []), *others) for line in group]


@pytest.mark.parametrize("name", FOLDERS)
def test_every_command_runs_here_or_is_listed_with_its_date_or_reason(name: str) -> None:
    shown, known = set(commands(FOLDERS[name])), listed(name)
    assert {"missing in commands.toml": shown - set(known)} == {"missing in commands.toml": set()}
    assert {"no longer in the README": set(known) - shown} == {"no longer in the README": set()}
    assert len(known) == len(set(known)), "listed twice"
    for when in LISTED[name].get("ran", {}):
        assert when[:10].replace("-", "").isdigit() and len(when) > 12, f"{when}: a date and a machine"
    assert all(len(why) > 10 for kind in ("tested", "not_run") for why in LISTED[name].get(kind, {}))


def run_as_shown(name: str, lines: list[str], place: Path) -> None:
    """Run commands one after the other in a folder, with stand-ins for what they name."""
    readme = FOLDERS[name]
    task = open_task(readme.parent, place / "tiny") if (readme.parent / "tests" / "tiny.py").is_file() else None
    for line in lines:
        found = script_of(readme, shlex.split(line))
        assert found is not None, line
        script, words = found
        (place / "tiny").mkdir(exist_ok=True)
        lay_out(place, line, task)
        if "output" in words and task is not None and not (place / "output").exists():
            run = place / "tiny" / "run"
            shutil.copytree(run if run.exists() else train(task, run), place / "output", symlinks=True)
        said = call(Task(script.parent, None, place), script.stem, *words)  # type: ignore[arg-type]
        assert said.code == 0, f"{line}\n{said.out}{said.err}"
        assert (said.out + said.err).strip(), f"{line} says nothing"
        # Commands that name no weights mean those that come along, here as there.
        shutil.rmtree(place / "output", ignore_errors=True)


@pytest.mark.parametrize("name", [name for name in FOLDERS if LISTED[name].get("quick")])
def test_quick_commands_run_as_shown(name: str, tmp_path: Path) -> None:
    run_as_shown(name, LISTED[name]["quick"], tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in FOLDERS if LISTED[name].get("full")])
def test_other_commands_run_as_shown(name: str, tmp_path: Path) -> None:
    run_as_shown(name, LISTED[name]["full"], tmp_path)
