"""The automatic names of 2018 against those of the historical networks, and their outputs."""

from fluid.arrays import read_npz
from fluid.errors import WeightsError
from fluid.program import initialise
from fluid.tests.golden_values import golden_value
from image_classification.models.auto_names import automatic_names, rename_automatic
from image_classification.tests.networks import (
    GOLDEN,
    build_classifier,
    golden_image,
    integers,
    read_table,
    relative_difference,
    run,
    shapes,
)

import numpy as np
import pytest

TABLES = read_table("automatic_names.tsv.gz")
# their networks of July 2018 had other variables or shapes than all released weights
DIFFERENT = {"GoogLeNet", "DPN68"}
DEEP = {"ResNet101", "ResNet152", "SE_ResNeXt101_32x4d", "SE_ResNeXt152_32x4d"}
ALIKE = [
    pytest.param(name, marks=pytest.mark.full if name in DEEP else [], id=name)
    for name in TABLES
    if name not in DIFFERENT
]


@pytest.mark.parametrize("name", ALIKE)
def test_names_and_shapes_are_those_of_2018(name):
    program = build_classifier(name)
    names, shape_of = automatic_names(program), shapes(program)
    assert sorted(names.values()) == sorted(program.state_names)
    ours = {automatic: shape_of[parameter] for automatic, parameter in names.items()}
    assert ours == {row["name"]: integers(row["shape"]) for row in TABLES[name]}


@pytest.mark.parametrize("name", ["AlexNet", "MobileNetV1", "ResNet50"])
def test_logits_of_weights_with_automatic_names(name):
    slots = {"batch_norm": {"w_0": "Scale", "b_0": "Bias", "w_1": "Mean", "w_2": "Variance"}}
    weights = {}
    for row in TABLES[name]:
        layer, variable = row["name"].split(".")
        slot = slots.get(layer.rsplit("_", 1)[0], {}).get(variable, "")
        weights[row["name"]] = golden_value(row["name"], integers(row["shape"]), slot)
    program = build_classifier(name)
    logits = run(program, rename_automatic(weights, program), golden_image())["logits"][0]
    assert relative_difference(logits, read_npz(GOLDEN / "historical_logits.npz")[f"{name}/automatic"]) < 1e-5


def test_explicit_names_and_optimizer_state_stay():
    program = build_classifier("ResNet18", (3, 32, 32), class_dim=3)
    state = initialise(program, seed=0)
    weights = {**state, "conv2d_0.w_0_velocity_0": np.zeros(1), "learning_rate_0": np.ones(1)}
    assert rename_automatic(weights, program).keys() == weights.keys()


def test_weights_of_another_network_are_refused():
    program = build_classifier("GoogLeNet")
    weights = {row["name"]: np.zeros(1) for row in TABLES["GoogLeNet"]}
    with pytest.raises(WeightsError, match="GoogLeNet: the weights belong to another network"):
        rename_automatic(weights, program)
