"""Released weights: the list agrees with the networks, and an archive goes all the way to the historical logits."""

import subprocess
import sys
import tarfile
from pathlib import Path

from fluid import cache
from fluid.arrays import read_npz
from fluid.formats import legacy
from fluid.tests.golden_values import golden_value
from fluid.weights import registry
from image_classification.models import find_model
from image_classification.tests.networks import (
    GOLDEN,
    golden_image,
    integers,
    read_table,
    relative_difference,
)

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1]
ENTRIES = registry.load_registry(FOLDER)
RELEASED = read_table("released_parameters.tsv.gz")
AUTOMATIC = read_table("automatic_names.tsv.gz")


@pytest.mark.parametrize("entry", [e for e in ENTRIES.values() if e.urls], ids=lambda entry: entry.name)
def test_the_list_agrees_with_the_networks(entry):
    model = find_model(entry.model)
    assert (entry.image_shape, entry.resize_short) == (model.image_shape, model.resize_short)
    assert (entry.mean, entry.std, entry.class_dim) == (model.mean, model.std, 1000)
    rows = (AUTOMATIC if entry.naming == "auto_2018" else RELEASED)[entry.model]
    assert entry.variables == len(rows)
    assert entry.size == 4 * sum(int(np.prod(integers(row["shape"]))) for row in rows)


def test_what_is_in_the_list():
    archives = {entry.archive_name: entry for entry in ENTRIES.values()}
    assert archives["ResNet200_vd_pretrained.tar"].model == "ResNet200_vd"
    assert archives["ResNet152_vd_pretrained.tar"].model == "ResNet152_vd"
    assert archives["ResNet50_vd_v2_pretrained.tar"].model == "ResNet50_vd"
    assert archives["VGG11_pretained.zip"].model == "VGG11"
    automatic = {entry.archive_name for entry in ENTRIES.values() if entry.naming == "auto_2018"}
    assert {"alexnet_model.tar", "resnet_50_model.tar", "se_resnext_50_model.tar"} < automatic
    assert not any("ShuffleNet" in name for name in archives)


CASES = [
    pytest.param("MobileNetV1", "MobileNetV1_pretrained", False, id="named"),
    pytest.param("ResNet50_2018-06-15", "resnet_50/115", True, id="automatic"),
    pytest.param("GoogLeNet", "GoogLeNet_pretrained", False, id="auxiliary heads", marks=pytest.mark.full),
    pytest.param("ResNet18", "ResNet18_pretrained", False, id="ResNet18", marks=pytest.mark.full),
    pytest.param("AlexNet_2018-06-15", "alexnet/116", True, id="AlexNet automatic", marks=pytest.mark.full),
]


@pytest.mark.parametrize("name, inside, automatic", CASES)
def test_from_archive_to_historical_logits(tmp_path, name, inside, automatic):
    entry = ENTRIES[name]
    slots = {row["name"]: row["slot"] for row in RELEASED[entry.model]}
    if automatic:
        kinds = {"w_1": "Mean", "w_2": "Variance", "w_0": "Scale"}
        slots = {
            row["name"]: kinds.get(row["name"][-3:], "Bias") if row["name"].startswith("batch_norm") else ""
            for row in AUTOMATIC[entry.model]
        }
    shapes = {row["name"]: integers(row["shape"]) for row in (AUTOMATIC if automatic else RELEASED)[entry.model]}
    legacy.write_folder(tmp_path / inside, {n: golden_value(n, s, slots[n]) for n, s in shapes.items()})
    momentum = next(iter(shapes)) + "_velocity_0"
    legacy.write_tensor(tmp_path / inside / momentum, np.zeros(3, np.float32))
    # Where a user without a connection is told to put the file.
    place = tmp_path / "cache" / "image_classification" / name / entry.archive_name
    place.parent.mkdir(parents=True)
    with tarfile.open(place, "w") as archive:
        archive.add(tmp_path / inside.split("/")[0], inside.split("/")[0])

    np.savez(tmp_path / "in.npz", image=golden_image())
    subprocess.run(
        [sys.executable, str(FOLDER / "infer.py"), "--pretrained_model", name, "--engine", "paddle"]
        + ["--feed", str(tmp_path / "in.npz"), "--fetch", str(tmp_path / "out.npz")],
        check=True,
        env={"PATH": "", "OMP_NUM_THREADS": "1", cache.VARIABLE: str(tmp_path / "cache")},
        cwd=tmp_path,
    )
    golden = read_npz(GOLDEN / "historical_logits.npz")[f"{entry.model}/automatic" if automatic else entry.model]
    assert relative_difference(read_npz(tmp_path / "out.npz")["logits"][0], golden) < 1e-4
