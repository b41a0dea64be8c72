"""The weights released in 2019, on a made archive of their names and format: the backbone without its heads."""

import tarfile
from pathlib import Path

from fluid import cache
from fluid.formats import legacy
from fluid.program import initialise
from fluid.tests.golden_values import golden_value
from fluid.weights import registry
from icnet.network import inference_program
from icnet.opening import load_weights, open_segmenter
from icnet.segmenter import FOLDER, HEADS, NetworkFlags, Segmenter

import numpy as np
import pytest

ENTRY = registry.load_registry(FOLDER)["icnet_backbone"]


@pytest.fixture(scope="module")
def initial() -> dict[str, np.ndarray]:
    """The network's variables."""
    return initialise(inference_program(Segmenter(), (128, 128)), seed=0)


@pytest.fixture
def archive(initial: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The release where a user without a connection is told to put it; returns what is in it."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    arrays = {name: golden_value(name, array.shape) for name, array in initial.items() if not name.startswith(HEADS)}
    legacy.write_folder(tmp_path / "model_1000", arrays)
    legacy.write_tensor(tmp_path / "model_1000" / "conv1_sub1.w_0_velocity_0", np.zeros(3, np.float32))
    place = tmp_path / "cache" / "icnet" / "icnet_backbone" / "model_1000.tar.gz"
    place.parent.mkdir(parents=True)
    with tarfile.open(place, "w:gz") as file:
        file.add(tmp_path / "model_1000", "model_1000")
    return arrays


def test_the_list_says_what_is_in_it(archive: dict[str, np.ndarray]) -> None:
    assert len(archive) == ENTRY.variables == 315
    assert sum(array.nbytes for array in archive.values()) == ENTRY.size
    assert ENTRY.licence and "19" in str(ENTRY.class_dim)


def test_training_starts_from_the_backbone(initial: dict[str, np.ndarray], archive: dict[str, np.ndarray]) -> None:
    state, report = load_weights(initial, "icnet_backbone")
    assert len(report.loaded) == 315 and sorted(report.default) == sorted(set(initial) - set(archive))
    for name in ("conv1_1_3_3_s2.w_0", "conv_sub2_bn.w_2", "conv5_4_k1.w_0"):
        np.testing.assert_array_equal(state[name], archive[name])
    np.testing.assert_array_equal(state["conv6_cls.w_0"], initial["conv6_cls.w_0"])


def test_the_backbone_opens_as_the_released_network(archive: dict[str, np.ndarray]) -> None:
    opened = open_segmenter(NetworkFlags(pretrained_model="icnet_backbone"))
    assert opened.facts == Segmenter() and opened.report is not None and len(opened.report.default) == 6
