"""The wheel of the project works without the checkout: what pip makes of it, in an environment where nothing else is the zoo's."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import fluid

import pytest

ROOT = Path(__file__).resolve().parents[1]
TASKS = {path.parent.name for path in ROOT.glob("*/infer.py")}
NOT_FOR_THE_WHEEL = shutil.ignore_patterns(".*", "__pycache__", "output*", "build", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip wheel . --no-deps` makes of a copy of the project."""
    source, folder = tmp_path_factory.mktemp("copy") / "zoo", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, source, ignore=NOT_FOR_THE_WHEEL)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, cwd=folder)
    shutil.rmtree(source)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; what it depends on it finds in this one's, whose links to a checkout it does not."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    # The .pth files there, by which pip links a checkout, are read of environments' own folders alone.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)
    return folder / "bin" / "python"


def run(python: Path, place: Path, *words: str) -> str:
    """What a command prints there, in an empty folder."""
    place.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(python), *words], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
def test_a_wheel_holds_the_tasks_and_no_tests(wheel: Path) -> None:
    assert wheel.name.startswith(f"fluid_model_zoo-{fluid.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"{task}/{file}" for task in TASKS for file in ("infer.py", "README.md")} <= set(names)
    assert [name for name in names if re.search(r"(^|/)(tests|docs|images|benchmarks|locks)/", name)] == []
    (stated,) = re.findall(r"the wheel (\d+) MB", (ROOT / "README.md").read_text(encoding="utf-8"))
    # Rounded, and what another zlib makes of it.
    assert wheel.stat().st_size / 1e6 == pytest.approx(int(stated), abs=0.6), "README says another size"


@pytest.mark.full
def test_commands_work_without_the_checkout(python: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    said = run(python, place, "-c", "import fluid; print(fluid.__version__, fluid.__file__)").split()
    assert said[0] == fluid.__version__ and Path(said[1]).is_relative_to(python.parents[1])
    listed = run(python, place, "-m", "fluid.commands.list", "tasks")
    assert set(re.findall(r"^(\w+)  ", listed, re.MULTILINE)) == TASKS
    assert "included" in run(python, place, "-m", "fluid.commands.list", "weights", "icnet")
    small = python.parents[1] / "small.safetensors"
    weights = next(python.parents[1].rglob("DeepQNetwork/data/pong.safetensors"))
    assert "small.safetensors" in run(
        python, place, "-m", "fluid.commands.weights", "convert", str(weights), str(small)
    )
    run(python, place, "-m", "fluid.commands.demo", "DeepASR", "caffe2fluid")
    assert {path.name for path in (place / "output" / "demo").iterdir()} >= {"index.html", "demo.png"}
    assert run(python, place, "-m", "neural_machine_translation.infer", "Where is it?").strip()
