"""PyTorch weights of another network are told by the network that they fit; without PyTorch."""

from fluid.errors import WeightsError
from image_classification.models.torch_names import from_torch

import numpy as np
import pytest


def resnet34() -> dict[str, np.ndarray]:
    """The names of torchvision's resnet34; what an array holds does not matter."""
    convolutions, norms = ["conv1"], ["bn1"]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            place = f"layer{stage}.{block}"
            convolutions += [f"{place}.conv1", f"{place}.conv2"]
            norms += [f"{place}.bn1", f"{place}.bn2"]
            if stage > 1 and block == 0:
                convolutions.append(f"{place}.downsample.0")
                norms.append(f"{place}.downsample.1")
    names = [f"{name}.weight" for name in convolutions] + ["fc.weight", "fc.bias"]
    names += [f"{name}.{part}" for name in norms for part in ("weight", "bias", "running_mean", "running_var")]
    return {name: np.zeros((1, 1), np.float32) for name in names}


def test_the_network_that_arrays_fit_is_named():
    state = resnet34()
    assert from_torch("ResNet34", state)
    with pytest.raises(WeightsError, match=r"ResNet18: .* have no place in this network; they fit ResNet34$"):
        from_torch("ResNet18", state)


def test_a_prefix_and_a_part_are_told():
    state = resnet34()
    with pytest.raises(
        WeightsError,
        match=r"ResNet34: the PyTorch weights have no conv1\.weight but net\.conv1\.weight; .* prefix other",
    ):
        from_torch("ResNet34", {f"net.{name}": array for name, array in state.items()})
    del state["layer3.1.bn2.running_var"]
    with pytest.raises(
        WeightsError, match=r"no layer3\.1\.bn2\.running_var, \d+ arrays were found before it; .* not all of it"
    ):
        from_torch("ResNet34", state)
