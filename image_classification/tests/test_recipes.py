"""What is trained, from what, and how, where no flag says so."""

from pathlib import Path

from fluid.config import parse
from fluid.errors import UserError
from image_classification import recipes, train
from image_classification.models import MODELS

import numpy as np
import pytest
from PIL import Image


def folder(place: Path, side: int, count: int = 6) -> Path:
    for split in ("train", "val"):
        for number in range(count):
            path = place / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((side, side + 9, 3), number, np.uint8)).save(path)
    return place


def applied(*words: object) -> train.Flags:
    return recipes.applied(parse(train.Flags, [str(word) for word in words]), lambda line: None)


def test_the_size_of_the_pictures_chooses_the_network(tmp_path):
    small, large = folder(tmp_path / "s", 64), folder(tmp_path / "l", 65)
    assert applied("--data_dir", small).model == "SmallNet"
    flags = applied("--data_dir", large)
    assert (flags.model, flags.pretrained_model) == ("MobileNetV2_tf", "mobilenet_v2_imagenet")
    assert flags.freeze == "backbone" and applied("--data_dir", large, "--freeze", "none").freeze == "none"
    assert flags.lr < 0.1 and flags.l2_decay < 5e-4 and flags.batch_size < 64
    assert applied("--data_dir", large, "--image_shape", "3,28,28").model == "SmallNet"
    assert applied("--data_dir", large, "--model", "SmallNet").lr == train.Flags.lr


def test_what_is_named_holds(tmp_path):
    large = folder(tmp_path / "l", 80)
    flags = applied("--data_dir", large, "--lr", 0.3, "--batch_size", 2, "--from_scratch")
    assert (flags.lr, flags.batch_size, flags.pretrained_model) == (0.3, 2, None)
    # The rate goes with the batch, and the recipe of a network trained from nothing is another.
    fine, scratch = applied("--data_dir", large, "--batch_size", 16), applied("--data_dir", large, "--from_scratch")
    assert fine.lr == pytest.approx(recipes.FINE_TUNING.lr * 16 / recipes.FINE_TUNING.batch_size)
    assert scratch.num_epochs == recipes.FROM_SCRATCH["MobileNetV2"].num_epochs
    with pytest.raises(UserError, match="contradict"):
        applied("--data_dir", large, "--from_scratch", "--pretrained_model", "x")


def test_all_layers_have_a_recipe_of_their_own(tmp_path):
    large = folder(tmp_path / "l", 80)
    head = applied("--data_dir", large)
    assert (head.optimizer, head.head_lr) == ("momentum", 1.0)
    for freeze in ("none", "statistics"):
        layers = applied("--data_dir", large, "--freeze", freeze)
        assert (layers.optimizer, layers.head_lr, layers.freeze) == ("adamw", 10, freeze) and layers.lr < head.lr / 100
    assert applied("--data_dir", large, "--freeze", "backbone").optimizer == "momentum"


def test_the_embedded_images_are_trained_on_as_ever():
    flags = applied()
    assert (flags.model, flags.pretrained_model, flags.lr, flags.batch_size) == ("SmallNet", None, 0.1, 64)


def test_every_network_has_a_recipe():
    assert all(recipes.recipe_of(name) for name in MODELS)
    assert recipes.recipe_of("ResNet101_vd") == recipes.FROM_SCRATCH["ResNet"]
    assert recipes.recipe_of("SE_ResNeXt50_32x4d") == recipes.FROM_SCRATCH["SE_ResNeXt50"]


def test_pictures_that_cannot_be_read_do_not_choose(tmp_path):
    large = folder(tmp_path / "l", 90)
    (large / "train" / "a" / "0.png").write_bytes(b"")
    assert applied("--data_dir", large).model == "MobileNetV2_tf"
