"""The models that come along: each says what it is and is what it says, and all of them are small."""

import importlib
import json
import lzma
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import models
from fluid import shipped
from fluid.commands import recapture
from fluid.weights import compact, registry

import pytest
from packaging import licenses

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = models.shipped()
WITH_PROGRAMS = sorted(path.parent.name for path in ROOT.glob("*/shipped.py") if (path.parent / "infer.py").is_file())
"""Tasks with which Programs come along."""


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_a_model_that_comes_along(entry):
    assert registry.content_digest(entry.file) == entry.sha256
    assert entry.source and entry.metric and entry.licence.startswith(entry.spdx)
    assert licenses.canonicalize_license_expression(entry.spdx) == entry.spdx
    # How it was made, or where it was first published.
    assert bool(entry.command) != bool(entry.listed) and "..." not in entry.command


def figures(text: str) -> list[tuple[float, int]]:
    """Each number of a text, and how many decimals it has."""
    found = re.findall(r"(?<![\w.,])(?:\d[\d,]*(?:\.\d+)?|\.\d+)", text)
    return [(float(number.replace(",", "")), len(number.partition(".")[2])) for number in found]


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_figures_of_a_model_are_those_of_its_readme(entry):
    """To as many decimals as the list gives; 93.8 % may be 0.938 there."""
    texts = [(ROOT / folder / "README.md").read_text(encoding="utf-8") for folder in (entry.task, ".")]
    known = [number * factor for text in texts for number, _ in figures(text) for factor in (1, 100, 0.01)]
    for number, decimals in figures(entry.metric):
        near = 0.5 * 10.0**-decimals + 1e-9
        assert any(abs(other - number) <= near for other in known), f"{number}: README.md has other figures"


def test_all_models_that_come_along_are_small():
    assert len({entry.task for entry in SHIPPED}) >= 3
    assert 10e6 < sum(entry.stored for entry in SHIPPED) < 44e6


def test_the_page_of_models_is_that_of_the_lists_and_files():
    assert models.PAGE.read_text(encoding="utf-8") == models.page(), "python -m benchmarks.models writes it anew"
    sizes = [float(size) for size in re.findall(r"^\| .*? \| (\d+\.\d+) \|", models.page(), re.MULTILINE)]
    assert len(sizes) == len(SHIPPED) + 1 and sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.005 * len(sizes))


def test_weights_that_come_along_name_no_place_of_a_machine():
    for entry in SHIPPED:
        if entry.file.suffix == ".safetensors" and (said := compact.describe(entry.file)) is not None:
            places = [value for value in said.origin.values() if isinstance(value, str) and value.startswith("/")]
            assert places == [], entry.file


def test_the_checkout_is_small():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert models.checkout() < 56e6
    (stated,) = re.findall(r"checkout takes (\d+) MB", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert f"{models.checkout() / 1e6:.0f}" == stated, "README says another size"


@pytest.mark.parametrize("task", WITH_PROGRAMS)
def test_programs_that_come_along_are_what_the_code_builds(task):
    recipes = importlib.import_module(f"{task}.shipped").recipes()
    files = {recipe.file(ROOT / task): recipe for recipe in recipes}
    advice = f"./zoo recapture {task} writes them anew"
    assert set((ROOT / task / shipped.FOLDER).iterdir()) == set(files), advice
    for file, recipe in files.items():
        stored = json.loads(lzma.decompress(file.read_bytes()))
        assert stored == json.loads(json.dumps(shipped.described(ROOT / task, recipe))), advice


def test_programs_of_a_task_without_any_cannot_be_written(capsys):
    with pytest.raises(SystemExit) as stop:
        recapture.main(["caffe2fluid"])
    assert stop.value.code == 2 and "no Programs come along with caffe2fluid" in capsys.readouterr().err


WITHOUT_PADDLE = """
import runpy, sys
sys.modules["paddle"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("task", WITH_PROGRAMS)
def test_infer_needs_no_paddle_where_its_program_comes_along(tmp_path, task):
    words = {
        "neural_machine_translation": ["Where is it?"],
        "DeepQNetwork": ["--max_seconds", "0.5"],
        # Paddle's executor is quicker at a handful of pictures.
        "image_classification": ["--engine", "xla"],
    }.get(task, [])
    command = [sys.executable, "-c", WITHOUT_PADDLE, str(ROOT / task / "infer.py"), "--device", "cpu", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
