"""The commands that READMEs show: their scripts exist and take the flags."""

import contextlib
import functools
import importlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

from tests.readmes import ROOT, commands, script_of

import pytest

SECTIONS = ["Results", "Data", "Train", "Evaluate", "Infer", "Export", "Speed", "Differences", "Troubleshooting"]
INSTEAD = {"caffe2fluid": {"Data": "Convert"}}
"""Tasks with another section in place of one: nets are what the converter works on, and it has no data."""


@pytest.mark.parametrize("task", [*sorted(path.parent.name for path in ROOT.glob("*/infer.py")), "tests/points_task"])
def test_readmes_have_the_same_sections_in_the_same_order(task: str) -> None:
    """Whatever else a folder has to say stands below one of them, in sections of its own."""
    text = (ROOT / task / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "code", text, flags=re.DOTALL | re.MULTILINE)
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections == [INSTEAD.get(task, {}).get(section, section) for section in SECTIONS]
    bodies = re.split(r"^## .*$", text, flags=re.MULTILINE)
    assert [section for section, body in zip(sections, bodies[1:], strict=True) if not body.strip()] == []


EVALUATION = r"evaluation after step \d+:(?: [\w/]+ -?\d[\d.]*)+(?: \(best so far\))?"
"""As train.py prints it, of every task (`fluid.keeper`)."""


def test_evaluations_are_shown_as_they_are_printed() -> None:
    pages = [*ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]
    shown = {
        (page.parent.name, line)
        for page in pages
        for line in re.findall("^evaluation after step .*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert shown and {(task, line) for task, line in shown if not re.fullmatch(EVALUATION, line)} == set()


CASES = [
    pytest.param(path, line, id=f"{path.relative_to(ROOT)}: {line}")
    for path in sorted([*ROOT.glob("README*.md"), *ROOT.glob("*/README.md")])
    for line in commands(path)
]


@functools.cache
def flags_of(script: Path, subcommand: str) -> set[str]:
    """What `--help` names, of a subcommand where there are some, and the older spellings."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as said,
        contextlib.suppress(SystemExit),
        mock.patch.object(sys, "argv", [str(script), *filter(None, [subcommand]), "--help"]),
    ):
        runpy.run_path(str(script), run_name="__main__")
    module = importlib.import_module(f"{script.parent.name}.{script.stem}")
    older = [*getattr(module, "ALIASES", ()), *getattr(module, "RETIRED", ())]
    return {*older, *re.findall(r"--([a-z]\w*)", said.getvalue())}


@pytest.mark.parametrize(("readme", "line"), CASES)
def test_a_command_runs_a_script_that_takes_its_flags(readme: Path, line: str) -> None:
    """Switches are shown in one way: their name turns them on, `False` behind it off."""
    words = shlex.split(line, comments=True)
    assert "True" not in words
    found = script_of(readme, words)
    if found is None:
        return
    script, rest = found
    assert script.is_file(), script
    if (script.parent / "infer.py").is_file():
        subcommand = rest[0] if rest and re.fullmatch(r"[a-z]+", rest[0]) else ""
        named = {word[2:].partition("=")[0] for word in rest if word.startswith("--")}
        assert named <= flags_of(script, subcommand), f"{script.parent.name}/{script.name}"
