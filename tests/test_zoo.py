"""The front door: what `./zoo COMMAND TASK` runs, and that a new folder needs no list to be found."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = 'if __name__ == "__main__":\n    pass\n'


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one worker only")
def test_the_tests_of_a_module_share_a_worker(request: pytest.FixtureRequest) -> None:
    """Where the group is no part of the name, pytest-xdist spreads them, and every worker makes their fixtures anew."""
    assert request.node.nodeid.endswith(f"@{request.path}")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The zoo with one task of its own, and an environment whose Python says what it was called with."""
    for name in ("zoo", "pyproject.toml", "requirements.txt", "conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "caffe2fluid").mkdir()
    for path in (ROOT / "caffe2fluid").glob("*.py"):
        (tmp_path / "caffe2fluid" / path.name).write_text(
            SCRIPT if "__main__" in path.read_text(encoding="utf-8") else ""
        )
    task = tmp_path / "new_task"
    for name in ("train", "infer", "tally", "prepare_small", "score_words", "_helper"):
        task.mkdir(exist_ok=True)
        (task / f"{name}.py").write_text(SCRIPT)
    (task / "network.py").write_text(f"TEMPLATE = '''\n{SCRIPT}'''\n")
    (task / "data").mkdir()
    (task / "data" / "words.txt").write_text("one\n")
    (task / "tests").mkdir()
    (task / "tests" / "test_new.py").write_text("def test_it():\n    assert False\n")
    (tmp_path / "benchmarks").mkdir()
    for name, text in (("new_task", SCRIPT), ("table", SCRIPT), ("torch_part", SCRIPT), ("figures", "")):
        (tmp_path / "benchmarks" / f"{name}.py").write_text(text)
    (tmp_path / "fluid" / "commands").mkdir(parents=True)
    for name in ("legacy", "list"):
        (tmp_path / "fluid" / "commands" / f"{name}.py").write_text("")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "python $*"\n')
    python.chmod(0o755)
    return tmp_path


def environment(house: Path) -> dict[str, str]:
    """That of the tests, but for what is said to ./zoo there."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
    return {**outside, "ZOO_VENV": str(house / "venv")}


def zoo(house: Path, *words: str) -> tuple[int, str]:
    """Exit code and the last line said."""
    done = subprocess.run([house / "zoo", *words], env=environment(house), capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).strip().rpartition("\n")[2].replace(str(house), ".")


def test_two_first_installations_wait_for_each_other(house: Path) -> None:
    log = house / "log"
    (house / "venv" / "bin" / "python").write_text(
        f'#!/bin/bash\ncase "$*" in *install*) echo begin >>{log}; sleep 0.5; echo end >>{log};; esac\n'
    )
    running = [subprocess.Popen([house / "zoo", "install"], env=environment(house)) for _ in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert log.read_text().split() == ["begin", "end"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "new_task", "--lr", "0.1"), "python ./new_task/train.py --lr 0.1"),
        (("train", "new_task/", "--lr", "0.1"), "python ./new_task/train.py --lr 0.1"),
        (("tally", "new_task", "a b"), "python ./new_task/tally.py a b"),
        (("score", "new_task", "words", "--ref", "a b"), "python ./new_task/score_words.py --ref a b"),
        (("score", "new_task"), "./zoo score new_task words --help"),
        (("prepare", "new_task", "small", "--help"), "python ./new_task/prepare_small.py --help"),
        (("prepare", "new_task"), "./zoo prepare new_task small --help"),
        (("legacy", "run", "DIR"), "python -m fluid.commands.legacy run DIR"),
        (
            ("capture", "new_task", "--lr", "1", "--programs", "a b", "--state=seed"),
            "python ./new_task/train.py --lr 1 --capture a b --capture_state=seed",
        ),
        (
            ("test", "new_task/"),
            "python -m pytest -n auto --maxprocesses 4 --dist loadgroup --max-worker-restart 0 -m not full new_task tests -k new_task",
        ),
        (("test", "--full"), "python -m pytest -n auto --maxprocesses 4 --dist loadgroup --max-worker-restart 0"),
        (("benchmark", "new_task", "time", "a b"), "python ./benchmarks/new_task.py time a b"),
        (("launch", "2", "new_task"), "python -m fluid.commands.launch 2 ./new_task/train.py"),
        (("list", "weights"), "python -m fluid.commands.list weights"),
        (("convert", "net.prototxt", "--output", "a b"), "python ./caffe2fluid/convert.py net.prototxt --output a b"),
        (("convert", "caffe2fluid", "net.prototxt"), "python ./caffe2fluid/convert.py net.prototxt"),
        (("infer", "caffe2fluid", "a b", "x.png"), "python ./caffe2fluid/infer.py a b x.png"),
        (("export", "caffe2fluid", "a b", "--onnx", "x"), "python ./caffe2fluid/export.py a b --onnx x"),
        (("compare", "caffe2fluid", "a b"), "python ./caffe2fluid/compare.py a b"),
        (("eval", "caffe2fluid", "a b", "val.txt"), "python ./caffe2fluid/eval.py a b val.txt"),
    ],
)
def test_what_runs(house: Path, words: tuple[str, ...], said: str) -> None:
    assert zoo(house, *words) == (0, said)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("train", "elsewhere"), 1, "error: 'elsewhere' is no task; choose one of: caffe2fluid new_task"),
        (("train",), 1, "error: '' is no task; choose one of: caffe2fluid new_task"),
        (
            ("network", "new_task"),
            1,
            "error: new_task has no script network.py; it has: infer prepare_small score_words tally train",
        ),
        (
            ("prepare", "new_task", "x"),
            1,
            "error: new_task has no script prepare_x.py; it has: infer prepare_small score_words",
        ),
        (("benchmark",), 1, "error: '' is no benchmark; choose one of: new_task table"),
        (("benchmark", "figures"), 1, "error: 'figures' is no benchmark; choose one of: new_task table"),
        (("launch", "new_task"), 1, "error: ./zoo launch N TASK ...: N is the number of processes"),
        (("capture", "new_task"), 1, "error: ./zoo capture TASK ... --programs DIR: the folder to write is missing"),
        (("test", "elsewhere"), 1, "error: there is neither a task nor a file or folder 'elsewhere'"),
        (("frobnicate", "new_task"), 2, "The environment is made in"),
        (("../zoo", "new_task"), 2, "The environment is made in"),
    ],
)
def test_what_is_refused(house: Path, words: tuple[str, ...], code: int, said: str) -> None:
    returned, last = zoo(house, *words)
    assert returned == code and last.startswith(said), (returned, last)


def test_it_finds_its_own_folder(house: Path) -> None:
    (house / "elsewhere").mkdir()
    (house / "elsewhere" / "zoo link").symlink_to(house / "zoo")
    surroundings = environment(house) | {"CDPATH": str(house.parent)}
    for start in (house / "elsewhere" / "zoo link", f"{house.name}/zoo"):
        done = subprocess.run(
            ["bash", start, "train", "new_task"], env=surroundings, cwd=house.parent, capture_output=True
        )
        assert (done.returncode, done.stdout.decode()) == (0, f"python {house}/new_task/train.py\n"), done.stderr


@pytest.mark.parametrize("version", ["3.10.13", "3.14.1", None])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_python_that_does_not_fit_is_refused_in_one_line(house: Path, version: str | None, by_name: bool) -> None:
    """Named in PYTHON, no other takes its place; where none is named and none fits, python3 is the one told of."""
    shutil.rmtree(house / "venv")
    commands = house / "commands"
    commands.mkdir()
    for command in ("bash", "cat", "dirname", "readlink"):
        (commands / command).symlink_to(str(shutil.which(command)))
    program = "import sys; version, code = sys.argv[1], sys.argv[3]; sys.version = version; "
    program += "sys.version_info = tuple(map(int, version.split('.'))); exec(code)"
    named = house / "a python" if by_name else commands / "python3"
    if version:
        named.write_text(f'#!{commands}/bash\nexec "{sys.executable}" -c "{program}" {version} "$@"\n')
        named.chmod(0o755)
    if by_name:
        (commands / "python3").symlink_to(sys.executable)
    surroundings = environment(house) | {"PATH": str(commands), "PYTHON": str(named) if by_name else ""}
    done = subprocess.run([house / "zoo", "list"], env=surroundings, capture_output=True, text=True)
    said = f"{named if by_name else 'python3'} here is {f'Python {version}' if version else 'missing'}\n"
    assert done.returncode == 1 and done.stdout == "", done
    assert done.stderr == f"error: Python 3.11, 3.12 or 3.13 is needed (set PYTHON to its path); {said}"


def test_a_place_without_room_for_an_environment_is_told(house: Path) -> None:
    (house / "file").write_text("")
    surroundings = environment(house) | {"ZOO_VENV": str(house / "file" / "venv"), "PYTHON": sys.executable}
    done = subprocess.run([house / "zoo", "install"], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 1 and f"error: no environment can be made in {house}/file/venv" in done.stderr


def test_a_failed_installation_is_told_and_tried_again(house: Path) -> None:
    (house / "venv" / "bin" / "python").write_text("#!/bin/bash\necho no network\nexit 1\n")
    for _ in range(2):
        code, said = zoo(house, "train", "new_task")
        assert code == 1 and said.startswith("error: the installation failed (all of it: ./venv/install.log)")


def test_a_new_folder_is_packaged(house: Path) -> None:
    settings = tomllib.loads((house / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    found = setuptools.find_namespace_packages(str(house), exclude=settings["exclude"])
    assert {"new_task", "new_task.data", "fluid.commands"} <= set(found) and "new_task.tests" not in found


def test_a_new_folder_is_tested_and_its_seconds_are_told(house: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=house, capture_output=True, text=True)
    assert "new_task/tests/test_new.py::test_it" in done.stdout
    assert re.search(r"\n    0\.0 +\d\.\d  new_task\n", done.stdout), done.stdout


MAIN = '\nif __name__ == "__main__":'
SCRIPTS = [
    pytest.param(path, id=f"{path.parent.name}/{path.name}")
    for path in sorted(ROOT.glob("*/*.py"))
    if (path.parent / "infer.py").is_file() and "script(" in path.read_text(encoding="utf-8").partition(MAIN)[2]
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_outside_the_environment_says_how_to_run_it(script: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # -S: a Python without any package.
    done = subprocess.run([sys.executable, "-S", script, "--help"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "./zoo" in done.stderr, done.stderr


def test_an_old_python_is_refused_in_one_line() -> None:
    program = "import sys; sys.version_info = (3, 10); import fluid"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith("3.11, 3.12 or 3.13 is needed\n"), done.stderr


def test_the_recipe_for_a_new_task(tmp_path: Path) -> None:
    """CONTRIBUTING's: copied and renamed, the task in miniature trains and is evaluated."""
    shutil.copytree(ROOT / "tests" / "points_task", tmp_path / "my_task", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "my_task").rglob("*"):
        if path.suffix in (".py", ".toml", ".json"):
            path.write_text(path.read_text(encoding="utf-8").replace("points_task", "my_task"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words in (("train.py", "--max_steps", "2"), ("eval.py", "--checkpoint", "output"), ("eval.py",)):
        command = [sys.executable, tmp_path / "my_task" / words[0], *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
