"""./zoo list has everything: each task, its scripts, its networks, the weights that are registered."""

import ast
from pathlib import Path

from fluid.commands import list as listing
from fluid.weights import registry

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in ROOT.glob("*/infer.py"))


def can_be_run(path: Path) -> bool:
    """Whether a module ends in a call of its main."""
    last = ast.parse(path.read_text(encoding="utf-8")).body[-1:]
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in last)


def test_every_task_script_network_and_weights_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    listing.main([])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    for folder in FOLDERS:
        assert folder.name in words
        assert {path.stem for path in folder.glob("[!_]*.py") if can_be_run(path)} <= words, folder.name
        assert registry.load_registry(folder).keys() <= words, folder.name
        assert all(flag.startswith("--") for flag in listing.networks(folder)), folder.name
    networks = {"ResNet50_vd", "ssd_vgg16_512", "crnn_small", "big", "mlp", "C51"}
    assert networks <= words, "a network of each task that has several"
