"""What must travel with a set of weights for them to be used rightly. Without Paddle: Programs from files are trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fluid.config import Count, Positive, WeightsFlags
from fluid.errors import UserError
from icnet.classes import CITYSCAPES, Classes

FOLDER = Path(__file__).resolve().parent
TASK = FOLDER.name
MEAN = (123.68, 116.779, 103.939)
"""Of red, green and blue, 0..255; subtracted, and nothing is scaled."""

BRANCHES = {"sub4": (16, 0.16), "sub24": (8, 0.4), "sub124": (4, 1.0)}
"""By how much each output is smaller than the image, and the weight of its loss (arXiv:1704.08545, section 3.3)."""
FINEST = "sub124"
"""The output that the labels follow from."""
LabelGrid = Literal["corners", "steps"]
"""Where labels are taken for the smaller outputs."""
OUTPUTS = (*BRANCHES, "logits", "labels")
"""Of the inference Program."""
Blocks = tuple[Count, Count, Count, Count]
BLOCKS: Blocks = (3, 4, 6, 3)
"""Residual blocks of the four groups of the deepest branch: those of ResNet-50 (He et al., arXiv:1512.03385), as released."""
HEADS = ("sub4_out", "sub24_out", "conv6_cls")
"""Layers of the three outputs, whose shape depends on the number of classes."""


@dataclass(frozen=True)
class Segmenter:
    """A network, its classes and the size of its pictures: stored in checkpoints and exported models."""

    width: float = 1.0
    """Factor of the channels of every layer."""
    rounding: Literal["ceil", "floor"] = "floor"
    """Of 1/32 of a side: ceil in July 2018, floor since August 2018."""
    zoom: float = 1.0
    """By how much images are enlarged before the network sees them."""
    classes: Classes = CITYSCAPES
    size: tuple[int, int] = (1024, 2048)
    """Height and width of the pictures that it learnt from."""
    long_side: int | None = None
    """What infer.py makes the longer side of longer pictures; by default that of `size`."""
    blocks: Blocks = BLOCKS
    """Residual blocks of the four groups of the deepest branch."""
    own_statistics: float = 0.0
    """Share of a picture's own means and variances in batch normalisation where it is inferred from; 0 in evaluation."""

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "width": self.width,
            "rounding": self.rounding,
            "zoom": self.zoom,
            "classes": self.classes.to_facts(),
            "size": list(self.size),
            **({} if self.long_side is None else {"long_side": self.long_side}),
            **({} if self.blocks == BLOCKS else {"blocks": list(self.blocks)}),
            **({"own_statistics": self.own_statistics} if self.own_statistics else {}),
        }

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Segmenter":
        """The inverse of `to_facts`; raises UserError if something is missing."""
        try:
            height, width = facts["size"]
            classes = Classes.from_facts(facts["classes"])
            zoom = facts.get("zoom", 1.0)  # weights stored before there was any do not name it
            size = (int(height), int(width))
            first, second, third, fourth = facts.get("blocks", BLOCKS)
            blocks = (int(first), int(second), int(third), int(fourth))
            own, long_side = facts.get("own_statistics", 0.0), facts.get("long_side")
            return Segmenter(facts["width"], facts["rounding"], zoom, classes, size, long_side, blocks, own)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the weights do not say which network they are for ({error} is missing or wrong)"
            ) from None


@dataclass
class NetworkFlags(WeightsFlags):
    """Which weights, and the network of those that do not say it themselves."""

    width: Positive | None = None
    """Factor of the channels of every layer, of --pretrained_model, where that does not say."""
    rounding: Literal["ceil", "floor"] | None = None
    """Of 1/32 of a side that is no multiple of 32: ceil in July 2018, floor since August 2018."""


def scaled(channels: int, width: float) -> int:
    """Channels of a layer that has `channels` in the released network: a multiple of 8."""
    return max(8, round(channels * width / 8) * 8)
