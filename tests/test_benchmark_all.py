"""`./zoo benchmark all`: which job runs where and when, with commands of a second in the place of benchmarks."""

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks import all as everything
from benchmarks.all import PLAN, Job, capture, measure, record

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import json, os, pathlib, sys, time
graphs, target, code = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
began = time.monotonic()
time.sleep(.2)
if code < 2:
    target.write_text(json.dumps({"gpus": os.environ["CUDA_VISIBLE_DEVICES"], "times": [began, time.monotonic()],
                                  "programs": (graphs / "programs").read_text()}))
print("told")
sys.exit(code)
"""


def job(folder: Path, name: str, code: int = 0, all_gpus: bool = False) -> Job:
    """A job that writes on which GPUs and when it ran, and ends with a code."""
    (folder / "stub.py").write_text(SCRIPT)
    (folder / "stub_capture.py").write_text(
        "import os, sys; os.mkdir(sys.argv[1]); open(sys.argv[1] + '/programs', 'w').write('x')"
    )
    measured = f"{folder}/stub.py {{graphs}} {{json}} {code}"
    return Job(name, f"{folder}/stub_capture.py {{graphs}}", measured, all_gpus)


def test_each_job_has_a_gpu_and_the_last_has_all(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "both", all_gpus=True), *(job(tmp_path, name) for name in "abcde")]
    capture(jobs, tmp_path)
    outcomes = list(measure(jobs, ["3", "5"], tmp_path, tmp_path))
    assert outcomes[-1].name == "both" and {outcome.said for outcome in outcomes} == {"measured"}
    assert sorted(outcome.name for outcome in outcomes[:-1]) == list("abcde")
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in (*"abcde", "both")}
    assert found["both"]["gpus"] == "3,5" and {found[name]["gpus"] for name in "abcde"} == {"3", "5"}
    for gpu in ("3", "5"):
        spans = sorted(row["times"] for row in found.values() if gpu in row["gpus"])
        assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))
    assert (tmp_path / "a.log").read_text() == "told\n" and not list(tmp_path.glob("*.partial*"))
    assert "stub.py" in outcomes[0].command and outcomes[0].seconds > 0


def test_a_short_job_is_told_while_a_long_one_runs(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(.05)"
    )
    long = Job("long", "", f"{tmp_path}/waits.py {tmp_path}/told")
    short = job(tmp_path, "short")
    capture([short], tmp_path)
    release = threading.Timer(10, (tmp_path / "told").touch)  # where it is told late, the test fails and does not hang
    outcomes = measure([long, short], ["0", "1"], tmp_path, tmp_path)
    try:
        release.start()
        assert next(outcomes).name == "short"
    finally:
        release.cancel()
        (tmp_path / "told").touch()
    assert [outcome.name for outcome in outcomes] == ["long"]


@pytest.mark.parametrize("code", [1, 2])
def test_what_failed_runs_again_and_what_is_there_does_not(tmp_path: Path, code: int) -> None:
    jobs = [job(tmp_path, "good"), job(tmp_path, "bad", code)]
    capture(jobs, tmp_path)
    for good in ("measured", "there already"):
        said = {outcome.name: outcome.said for outcome in measure(jobs, ["0"], tmp_path, tmp_path)}
        assert said == {"good": good, "bad": "failed"} and not (tmp_path / "bad.json").exists()


def test_no_job_begins_when_the_minutes_are_over(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name) for name in "ab"]
    capture(jobs, tmp_path)
    assert [outcome.said for outcome in measure(jobs, ["0"], tmp_path, tmp_path, minutes=0)] == 2 * ["not begun"]
    assert [outcome.said for outcome in measure(jobs, ["0"], tmp_path, tmp_path, minutes=0.1 / 60)] == [
        "measured",
        "not begun",
    ]


def test_a_job_that_ran_again_replaces_its_record(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        record(everything.Outcome("a", "measured", "python a.py", seconds=seconds), tmp_path / "jobs.json")
    record(everything.Outcome("b", "failed", "python b.py"), tmp_path / "jobs.json")
    assert [(row["name"], row["seconds"]) for row in json.loads((tmp_path / "jobs.json").read_text())] == [
        ("a", 2.0),
        ("b", 0.0),
    ]


def test_a_record_that_is_cut_off_leaves_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(everything.Outcome("a", "measured", "python a.py"), tmp_path / "jobs.json")
    before = (tmp_path / "jobs.json").read_text()

    def cut_off(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text[:9].encode(encoding))
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(KeyboardInterrupt):
        record(everything.Outcome("b", "measured", "python b.py"), tmp_path / "jobs.json")
    assert (tmp_path / "jobs.json").read_text() == before


def test_a_capture_that_was_cut_off_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "a.partial" / "half").mkdir(parents=True)
    capture([job(tmp_path, "a")], tmp_path)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["programs"]


def test_programs_that_cannot_be_made_here_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(SystemExit, match="--only_capture where Paddle is"):
            capture([job(tmp_path, "a")], tmp_path)
    broken = Job("b", f"{tmp_path}/nowhere.py", "")
    with pytest.raises(SystemExit, match="Programs of b could not be written"):
        capture([broken], tmp_path)
    assert not (tmp_path / "b").exists()


def test_the_plan_names_scripts_that_there_are() -> None:
    assert len({item.name for item in PLAN}) == len(PLAN)
    for item in PLAN:
        assert all((ROOT / words.split()[0]).is_file() for words in (item.capture, item.measure))


@pytest.mark.full
def test_the_plan_names_flags_that_there_are() -> None:
    for item in PLAN:
        for words in (item.capture, item.measure):
            script, *rest = words.split()
            command = rest[:1] if rest[0].isalpha() else []
            told = subprocess.run([sys.executable, ROOT / script, *command, "--help"], capture_output=True, text=True)
            assert told.returncode == 0 and all(word in told.stdout for word in rest if word[:2] == "--"), item.name


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "all.py", "--results", tmp_path / "out"]
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (
        ended.returncode == 1
        and ended.stderr.startswith("error: CUDA shows no GPU")
        and not (tmp_path / "out").exists()
    )
