"""What crosses folders: imports point one way, every task follows one pattern, and a task can be taken away."""

import ast
import graphlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TASKS = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
"""A folder with a train.py is a task."""
SCRIPTS = {"train.py", "eval.py", "infer.py", "export.py"}
PACKAGES = {path.parent.name for path in ROOT.glob("*/*.py")}
"""Every folder with modules."""


def imported_packages(folder: Path) -> dict[str, set[str]]:
    """Top-level name of every import -> the files that have it; tests are left out."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_a_task_imports_no_other_task(task):
    imports = imported_packages(ROOT / task)
    others = {name: imports[name] for name in PACKAGES - {task, "fluid"} if name in imports}
    assert not others


def is_script(path: Path) -> bool:
    """Whether a file can be run."""
    return path.is_file() and '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/pictures.py")), ids=lambda path: path.parent.name)
def test_a_picture_that_cannot_be_written_is_told_by_name(path):
    """Matplotlib and Pillow raise an OSError of a full disk without it; `writing` adds it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and ast.unparse(block.items[0].context_expr).startswith("writing(")
        for node in ast.walk(block)
    }
    writes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in ("save", "savefig")]
    assert not [node.lineno for node in writes if id(node) not in within]


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.glob("*/*.py")) if path.name in SCRIPTS],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_script_imports_no_script(path):
    """What two of them need stands in a module named for what it is."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.parent.name if node.level else ""
            module = ".".join(filter(None, (package, node.module)))
            imported |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    own = {name for name in imported if name.startswith(f"{path.parent.name}.")}
    assert not {name for name in own if is_script(ROOT / (name.replace(".", "/") + ".py"))}


@pytest.mark.parametrize("task", TASKS)
def test_results_of_an_earlier_call_are_set_aside(task):
    """Where infer.py writes into a folder."""
    writes = re.search(r"^    output_dir: ", (ROOT / task / "infer.py").read_text(encoding="utf-8"), re.MULTILINE)
    modules = [path.read_text(encoding="utf-8") for path in (ROOT / task).glob("*.py")]
    assert not writes or any("set_aside(" in text for text in modules)


LONGEST_MAIN = 45
"""Lines."""


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.glob("*/*.py")) if (path.parent / "infer.py").is_file()],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_main_is_short(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            assert node.end_lineno - node.lineno < LONGEST_MAIN


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.glob("*/*.py")) if path.name in SCRIPTS],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_one_image_is_no_images(path):
    """What is counted is told by `number_of`."""
    plurals = [
        f"{ast.unparse(count)}{text.value}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr)
        for count, text in itertools.pairwise(node.values)
        if isinstance(count, ast.FormattedValue) and ast.unparse(count.value).startswith("len(")
        if isinstance(text, ast.Constant) and re.match(r" ([a-z]+ )*?[a-z]+s\b", text.value)
    ]
    assert plurals == []


OTHER_NAMES = {"confidence": "score", "probability": "score", "prob": "score", "begin": "start", "stop": "end"}
"""Of what records have in every task."""


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in ROOT.glob("*/infer.py")}))
def test_the_same_has_the_same_name_in_every_record(folder):
    keys = {
        key.value
        for path in (ROOT / folder).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert {name: OTHER_NAMES[name] for name in keys & OTHER_NAMES.keys()} == {}


LONGEST_OPENING = 15
"""Lines."""


@pytest.mark.parametrize("task", TASKS)
def test_weights_are_opened_in_one_place_and_few_lines(task):
    """By one call of `fluid.weights.open`, in a function of which nothing else is to be understood."""
    openings = [
        node.end_lineno - node.lineno + 1
        for path in (ROOT / task).glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and "weights.open(" in ast.unparse(node)
    ]
    assert len(openings) == 1 and openings[0] < LONGEST_OPENING


def test_fluid_imports_no_task():
    imports = imported_packages(ROOT / "fluid")
    assert not {name: imports[name] for name in PACKAGES - {"fluid"} if name in imports}


def modules_of(package: str) -> dict[str, Path]:
    """The modules of a package by dotted name, without tests."""
    paths = [path for path in (ROOT / package).rglob("*.py") if "tests" not in path.parts]
    names = [path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__") for path in paths]
    return {name.replace("/", "."): path for name, path in zip(names, paths, strict=True)}


def imported_when_loaded(path: Path, modules: Collection[str]) -> set[str]:
    """Those of `modules` that one of them imports while it is loaded itself."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, path
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in inner}
    return names & set(modules)


@pytest.mark.parametrize("package", ["fluid", *TASKS])
def test_imports_go_in_no_circles(package: str) -> None:
    modules = modules_of(package)
    graph = {name: imported_when_loaded(path, modules) for name, path in modules.items()}
    assert any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()


def test_the_converter_stands_alone():
    imports = imported_packages(ROOT / "caffe2fluid")
    assert not {name: imports[name] for name in PACKAGES - {"caffe2fluid"} if name in imports}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_works_in_an_empty_place(tmp_path, task):
    """The folder and fluid/ alone, run by path from elsewhere: --help needs every import of train.py."""
    for name in (task, "fluid"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("tests", "__pycache__", "output*"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{str(tmp_path / task / 'train.py')!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "import fluid\nprint(fluid.__file__)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # -P and -S-like isolation: neither the project's folder nor an installed copy of it may answer for `fluid`.
    result = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(tmp_path / "fluid" / "__init__.py")


OWN_PATH = re.compile(r"(?<![\w./-])/(?:home|Users|root|work|workspace)/\w+")


def test_the_project_speaks_of_itself_only():
    """No path of a developer's machine in a tracked text file."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    suffixes = {".py", ".md", ".toml", ".txt", ".json", ".sh", ""}
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in suffixes and path.is_file() and path != Path(__file__):
            text = path.read_text(encoding="utf-8", errors="ignore")
            found = OWN_PATH.search(text)
            assert found is None, f"{name} mentions {found[0]}"
