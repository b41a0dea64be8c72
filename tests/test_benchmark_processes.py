"""Measurements in processes of their own: what they find comes back, and a failed one fails the benchmark."""

import argparse
from pathlib import Path

from benchmarks import processes

import pytest

SCRIPT = """
import argparse, os, sys
from benchmarks.processes import add_one, run

def half(number):
    print("words of a library")
    if number % 2:
        raise ValueError(f"{number} is odd")
    return {"half": number // 2}

parser = argparse.ArgumentParser()
add_one(parser.add_subparsers(), {"half": half})
run(parser.parse_args())
"""


def test_what_a_process_finds_comes_back_and_a_failed_one_fails_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "_failed", [])
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found: list[dict | None] = []

    def halves(numbers: list[int]) -> None:
        processes.run(
            argparse.Namespace(
                run=lambda arguments: found.extend(
                    processes.in_a_process(str(script), "half", number) for number in numbers
                )
            )
        )

    halves([4])
    with pytest.raises(SystemExit, match=r"error: not measured, see above: half\(3,\)"):
        halves([3, 8])
    assert found == [{"half": 2}, None, {"half": 4}]
    assert "ValueError: 3 is odd" in capsys.readouterr().err
