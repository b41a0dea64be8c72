"""What must travel with a set of weights for them to be used rightly. Imports no paddle."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluid.config import Count, Positive, Share, WeightsFlags
from fluid.errors import UserError
from image_classification.reader import Interpolation, Preprocess

TASK = "image_classification"
FOLDER = Path(__file__).resolve().parent
NETWORK = ("model", "class_dim", "image_shape")
"""The flags of NetworkFlags that weights which describe themselves may not contradict."""
SMALL, IMAGENET = "small_net", "mobilenet_v2_imagenet"
"""What comes along: SmallNet, trained on the embedded images, and MobileNetV2 for photographs of 1,000 kinds of things."""


@dataclass
class PreprocessFlags:
    """How images are prepared, where it is to be otherwise than the weights or the network say."""

    resize_short_size: Count | None = None
    """Short side of an image before its central crop; by default the network's own."""
    interpolation: Interpolation | None = None
    """How images are resized; by default as the weights say, or linear."""
    image_mean: tuple[Share, Share, Share] | None = None
    """Mean of red, green, blue in 0..1; by default the network's own."""
    image_std: tuple[Positive, Positive, Positive] | None = None
    """Standard deviation of red, green, blue; by default the network's own."""


@dataclass
class NetworkFlags(WeightsFlags, PreprocessFlags):
    """Which weights, and the network of those that do not say it themselves."""

    model: str | None = None
    """Network of --pretrained_model, where that does not say."""
    class_dim: Count | None = None
    """Classes of --pretrained_model, where that does not say; 1000 by default."""
    image_shape: tuple[Count, Count, Count] | None = None
    """Input of the network, where it is another than its own."""


@dataclass(frozen=True)
class Classifier:
    """A network, its classes and its preprocessing: stored in checkpoints and exported models."""

    model: str
    class_dim: int
    preprocess: Preprocess
    mean: tuple[float, float, float]
    """Subtracted from red, green, blue in 0..1 ..."""
    std: tuple[float, float, float]
    """... which are then divided by this."""
    class_names: list[str] = field(default_factory=list)
    """Names in the order of the labels; empty where the data set does not tell."""

    def name_of(self, label: int) -> str:
        """The class's name, or its number where it has none."""
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def prepared_as(self, flags: PreprocessFlags) -> "Classifier":
        """The same with what the flags say of the preparation of images."""
        own = self.preprocess
        return dataclasses.replace(
            self,
            preprocess=dataclasses.replace(
                own,
                resize_short=flags.resize_short_size or own.resize_short,
                interpolation=flags.interpolation or own.interpolation,
            ),
            mean=flags.image_mean or self.mean,
            std=flags.image_std or self.std,
        )

    @property
    def preparation(self) -> str:
        """How images are prepared, for people."""
        _, height, width = self.preprocess.image_shape
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return (
            f"{height} x {width} pixels out of a short side of {self.preprocess.resize_short} "
            f"({self.preprocess.interpolation}), mean {mean}, deviation {std}"
        )

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Classifier":
        """The inverse of `to_facts`; raises UserError if something is missing."""
        try:
            preprocess = {**facts["preprocess"], "image_shape": tuple(facts["preprocess"]["image_shape"])}
            values = {item.name: facts[item.name] for item in dataclasses.fields(Classifier)}
            values |= {"preprocess": Preprocess(**preprocess), "mean": tuple(facts["mean"]), "std": tuple(facts["std"])}
            return Classifier(**values)
        except (KeyError, TypeError) as error:
            raise UserError(f"the weights do not say how images are prepared for them ({error} is missing)") from error
