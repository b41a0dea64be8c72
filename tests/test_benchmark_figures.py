"""What benchmarks write: whole files that say their command and machine, and rates of the steps that were made."""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import figures

import pytest


def test_a_result_says_by_what_command_on_what_machine_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = str(figures.ROOT / "benchmarks" / "some.py")
    monkeypatch.setattr(sys, "argv", [script, "time", "two words"])
    rows: list[dict] = []
    for number in range(2):
        figures.add_row(rows, {"number": number}, tmp_path / "new" / "out.json")
    found = json.loads((tmp_path / "new" / "out.json").read_text())
    assert found["command"] == "python benchmarks/some.py time 'two words'"
    assert found["machine"]["date"] == figures.machine()["date"] and found["machine"]["cores"] >= 1
    assert found["rows"] == [{"number": 0}, {"number": 1}]


def test_a_result_that_is_cut_off_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out.json"
    figures.save(file, rows=[1])
    before = file.read_text()

    def cut_off(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text[:9].encode(encoding))
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(KeyboardInterrupt):
        figures.save(file, rows=[1, 2])
    assert file.read_text() == before and [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_place_that_cannot_be_written_is_refused_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    parser = argparse.ArgumentParser()
    figures.add_json(parser)
    for place, reason in ((tmp_path, "is a folder"), (tmp_path / "file" / "out.json", "cannot be written")):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(["--json", str(place)])
        assert ended.value.code == 2 and reason in capsys.readouterr().err
    assert parser.parse_args(["--json", str(tmp_path / "new" / "out.json")]).json == tmp_path / "new" / "out.json"


def test_every_step_of_a_round_is_made_and_its_last_waited_for() -> None:
    made, waited = [], []

    def step() -> int:
        time.sleep(0.002)
        made.append(len(made))
        return made[-1]

    found = figures.measure(step, waited.append, per_step=10, seconds=0.02, rounds=3)
    assert len(made) == 3 + found["steps"] and found["steps"] % 3 == 0
    round_length = found["steps"] // 3
    assert waited == [0, 1, 2, *(2 + round_length * number for number in (1, 2, 3))]
    assert found["min"] <= found["median"] <= found["max"] <= 10 / 0.002
