"""What the flags of train.py are where none is named: the network by the size of the pictures, and each network's recipe."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fluid import config as configuration
from fluid.errors import DataError, UserError
from fluid.media import image_size, read_bytes
from image_classification.classifier import IMAGENET
from image_classification.reader import ImageList, open_images

if TYPE_CHECKING:
    from image_classification.train import Flags

SMALL_NET, PHOTOGRAPHS = "SmallNet", "MobileNetV2_tf"
STARTS = {PHOTOGRAPHS: IMAGENET}
"""Networks whose weights come along: training starts from these if nothing else is named."""
SMALL_SIDE = 64
"""Pixels up to which SmallNet is chosen."""
LOOKED_AT = 32
"""Pictures whose size is looked at."""
UPDATES_AN_EPOCH = 10
"""Fewer are too few: then the batch of a recipe is halved, and the rate with it (Goyal et al., arXiv:1706.02677)."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, as published by the original for the released weights."""

    batch_size: int
    lr: float
    num_epochs: int
    l2_decay: float
    lr_strategy: str = "cosine_decay"
    label_smoothing: float = 0.0
    use_mixup: bool = False
    freeze: str | None = None
    lower_scale: float | None = None
    head_lr: float | None = None
    optimizer: str | None = None


STEPS = "piecewise_decay"
MIXED = {"label_smoothing": 0.1, "use_mixup": True}
FINE_TUNING = Recipe(32, 0.05, 12, 4e-5, freeze="backbone", lower_scale=0.5)
"""From weights of another data set: the head alone learns, which takes little time and data, and cannot spoil the rest."""
ALL_LAYERS = Recipe(32, 2e-4, 12, 4e-5, optimizer="adamw", lower_scale=0.5, head_lr=10)
"""The same where --freeze says that more than the head is to learn. Momentum, at rates of 0.001 to 0.01, made the network that comes
along forget everything within an epoch; steps of one size for each parameter do not depend on how a network is scaled."""
FROM_SCRATCH = {
    SMALL_NET: Recipe(64, 0.1, 40, 5e-4),
    "AlexNet": Recipe(256, 0.01, 120, 1e-4, STEPS),
    "VGG11": Recipe(512, 0.1, 90, 2e-4),
    "VGG13": Recipe(256, 0.01, 90, 3e-4),
    "VGG16": Recipe(256, 0.01, 90, 3e-4),
    "VGG19": Recipe(256, 0.01, 150, 4e-4),
    "GoogLeNet": Recipe(256, 0.01, 200, 1e-4),
    "MobileNetV1": Recipe(256, 0.1, 120, 3e-5, STEPS),
    "MobileNetV2": Recipe(500, 0.1, 240, 4e-5),
    "ResNet18": Recipe(256, 0.1, 120, 1e-4),
    "ResNet34": Recipe(256, 0.1, 120, 1e-4),
    "ResNet": Recipe(256, 0.1, 120, 1e-4, STEPS),
    "ResNet50_vd": Recipe(256, 0.1, 200, 1e-4, **MIXED),
    "SE_ResNeXt50": Recipe(400, 0.1, 200, 1.2e-4),
    "SE_ResNeXt": Recipe(400, 0.1, 200, 1.5e-5),
    "DPN": Recipe(256, 0.1, 200, 1e-4, **MIXED),
    "InceptionV4": Recipe(256, 0.045, 200, 1e-4, **MIXED),
}
"""Network, or what its name begins with, the longest counts -> its recipe."""


def applied(flags: "Flags", say: Callable[[str], None]) -> "Flags":
    """The flags with a network and its recipe, except what the command line names, and says which.

    A run that goes on and Programs from files remember what was set. Raises UserError for flags that contradict each other,
    DataError as `open_images`.
    """
    if flags.checkpoint is not None or flags.programs is not None:
        return flags
    model = flags.model or SMALL_NET
    images = None if flags.data_dir is None else open_images(flags.data_dir, "train", 2**31)
    if flags.model is None and images is not None:
        side = min(flags.image_shape[1:]) if flags.image_shape else usual_side(images)
        model = SMALL_NET if side <= SMALL_SIDE else PHOTOGRAPHS
        say(f"pictures of {side} pixels: {model} is trained (--model names another)")
    start = starting_weights(replace(flags, model=model))
    named = configuration.named(flags)
    values = {"model": model, "pretrained_model": start}
    if model != SMALL_NET or start is not None:
        layers = "freeze" in named and flags.freeze != "backbone"
        recipe = recipe_of(model) if start is None else ALL_LAYERS if layers else FINE_TUNING
        values |= fitted(recipe, named, len(images) if images is not None else None, flags.batch_size)
        shown = [f"--{name} {value}" for name, value in values.items() if value and name not in named | {"model"}]
        say(f"{'fine-tuning' if start else 'training from scratch'}, where no flag says otherwise: {' '.join(shown)}")
    return configuration.with_recipe(flags, values)


def starting_weights(flags: "Flags") -> str | None:
    """The weights to start from; None for random numbers. Raises UserError if the flags contradict each other."""
    if flags.from_scratch and flags.pretrained_model is not None:
        raise UserError("--from_scratch and --pretrained_model contradict each other; give one of them")
    if flags.from_scratch or flags.pretrained_model is not None:
        return flags.pretrained_model
    return STARTS.get(flags.model or "")


def recipe_of(model: str) -> Recipe:
    """The recipe of a network, by the longest beginning of its name."""
    return FROM_SCRATCH[max((name for name in FROM_SCRATCH if model.startswith(name)), key=len)]


def fitted(recipe: Recipe, named: set[str], images: int | None, batch_size: int) -> dict[str, Any]:
    """Flag -> value; a small set gets smaller batches, and every other batch than the recipe's a rate in proportion."""
    batch = recipe.batch_size
    while images is not None and batch > 8 and images < batch * UPDATES_AN_EPOCH:
        batch //= 2
    batch = batch_size if "batch_size" in named else batch
    values = {name: value for name, value in vars(recipe).items() if value}
    return values | {"batch_size": batch, "lr": float(f"{recipe.lr * batch / recipe.batch_size:.3g}")}


def usual_side(images: ImageList) -> int:
    """The median of the short sides in pixels, of pictures all over the list that can be read. Raises DataError for none."""
    sides = []
    for index in range(0, len(images), max(len(images) // LOOKED_AT, 1)):
        try:
            sides.append(min(image_size(read_bytes(Path(images.path(index))))))
        except DataError:
            continue  # training says which, and bears some
    if not sides:
        raise DataError(f"{images.origin}: none of the pictures that were looked at can be read")
    return round(median(sides))
