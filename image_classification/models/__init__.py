"""The networks by name.

    model = find_model("ResNet50")
    logits = model.build(image, class_dim=1000, training=False)

Each file holds one family and says which paper it follows and where it differs from it.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from fluid.errors import UserError
from image_classification.models.alexnet import alexnet, caffe_alexnet
from image_classification.models.dpn import dpn
from image_classification.models.googlenet import caffe_googlenet, googlenet
from image_classification.models.inception_v4 import inception_v4
from image_classification.models.mobilenet_v1 import mobilenet_v1
from image_classification.models.mobilenet_v2 import TENSORFLOW, mobilenet_v2
from image_classification.models.resnet import resnet
from image_classification.models.se_resnext import se_resnext
from image_classification.models.small_net import small_net
from image_classification.models.vgg import vgg

from paddle.pir import Value

Logits = Value | tuple[Value, ...]


@dataclass(frozen=True)
class Model:
    """A network and how its images are prepared."""

    name: str
    network: Callable[..., Logits]
    """(image [N, C, H, W], class_dim, training) -> logits [N, class_dim], or a tuple with auxiliary heads behind."""
    paper: str
    image_shape: tuple[int, int, int] = (3, 224, 224)
    """Channels, height and width of the images that the released weights are for."""
    min_size: int = 1
    """Height and width below which the window of some layer is larger than what it slides over."""
    resize_short: int = 256
    """Length in pixels of an image's short side before the central crop of `image_shape`."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue in 0..1 ..."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """... before they are divided by this."""
    aux_weights: tuple[float, ...] = ()
    """Weights of the auxiliary heads in the training loss."""

    def build(self, image: Value, class_dim: int, training: bool) -> Logits:
        """Append the network to the current Program.

        Args:
            image: [N, C, H, W] float32, normalised with `mean` and `std`.
            class_dim: number of classes.
            training: whether dropout and batch normalisation take their training form.

        Returns:
            logits [N, class_dim]; a network with auxiliary heads returns a tuple, the main logits first.

        Raises:
            UserError: the network does not admit this image shape or number of classes.
        """
        height, width = image.shape[2:]
        if min(height, width) < self.min_size:
            raise UserError(
                f"{self.name} needs images of at least {self.min_size} x {self.min_size} pixels, not {height} x {width}: "
                f"give a larger --image_shape (the released weights are for {','.join(map(str, self.image_shape))})"
            )
        if class_dim < 1:
            raise UserError(f"--class_dim must be at least 1, not {class_dim}")
        return self.network(image, class_dim, training)


def _models() -> Iterator[Model]:
    # the mean and deviation of grey images are those of Fashion-MNIST, on which the demo trains it
    grey = {"mean": (0.286, 0.286, 0.286), "std": (0.353, 0.353, 0.353)}
    yield Model("SmallNet", small_net, "arXiv:1412.6806", (3, 28, 28), resize_short=28, **grey)
    yield Model("AlexNet", alexnet, "arXiv:1404.5997", min_size=63)
    # what Caffe's authors released of it is for images of 227
    krizhevsky = {"paper": "NIPS 2012", "image_shape": (3, 227, 227), "min_size": 11}
    yield Model("AlexNet_caffe", partial(caffe_alexnet, pool_first=False), **krizhevsky)
    yield Model("AlexNet_caffenet", partial(caffe_alexnet, pool_first=True), **krizhevsky)
    for depth in (11, 13, 16, 19):
        yield Model(f"VGG{depth}", partial(vgg, depth=depth), "arXiv:1409.1556", min_size=32)
        biased = partial(vgg, depth=depth, conv_bias=True)
        yield Model(f"VGG{depth}_bias", biased, "arXiv:1409.1556", min_size=32)
    yield Model("GoogLeNet", googlenet, "arXiv:1409.4842", min_size=93, aux_weights=(0.3, 0.3))
    yield Model("GoogLeNet_caffe", caffe_googlenet, "arXiv:1409.4842")
    for depth in (18, 34, 50, 101, 152):
        yield Model(f"ResNet{depth}", partial(resnet, depth=depth), "arXiv:1512.03385")
    for depth in (50, 101, 152):
        yield Model(f"ResNet{depth}_vc", partial(resnet, depth=depth, variant="vc"), "arXiv:1812.01187")
        yield Model(f"ResNet{depth}_caffe", partial(resnet, depth=depth, variant="caffe"), "arXiv:1512.03385")
    for depth in (18, 34, 50, 101, 152, 200):
        yield Model(f"ResNet{depth}_vd", partial(resnet, depth=depth, variant="vd"), "arXiv:1812.01187")
    yield Model("InceptionV4", inception_v4, "arXiv:1602.07261", (3, 299, 299), min_size=75, resize_short=320)
    for scale in (0.25, 0.5, 0.75, 1.0):
        yield Model(_scaled("MobileNetV1", scale), partial(mobilenet_v1, scale=scale), "arXiv:1704.04861")
    for scale in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0):
        yield Model(_scaled("MobileNetV2", scale), partial(mobilenet_v2, scale=scale), "arXiv:1801.04381")
    # images in -1..1
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    yield Model("MobileNetV2_tf", partial(mobilenet_v2, form=TENSORFLOW), "arXiv:1801.04381", **half)
    for depth in (68, 92, 98, 107, 131):
        yield Model(f"DPN{depth}", partial(dpn, depth=depth), "arXiv:1707.01629")
    for depth in (50, 101, 152):
        yield Model(f"SE_ResNeXt{depth}_32x4d", partial(se_resnext, depth=depth), "arXiv:1709.01507")
    for depth in (50, 101):
        caffe = partial(se_resnext, depth=depth, variant="caffe")
        yield Model(f"SE_ResNeXt{depth}_32x4d_caffe", caffe, "arXiv:1709.01507")


def _scaled(name: str, scale: float) -> str:
    return name if scale == 1.0 else f"{name}_x{scale}".replace(".", "_")


MODELS: dict[str, Model] = {model.name: model for model in _models()}

ALIASES = {
    "GoogleNet": "GoogLeNet",
    "CaffeNet": "AlexNet_caffenet",
    "MobileNet": "MobileNetV1",
    "MobileNetV1_x1_0": "MobileNetV1",
    "MobileNetV2_x1_0": "MobileNetV2",
}
"""Further names under which these networks were known."""


def find_model(name: str) -> Model:
    """The model called `name`, upper or lower case, or by one of its aliases.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    names = {known.lower(): known for known in MODELS} | {alias.lower(): target for alias, target in ALIASES.items()}
    if name.lower() in names:
        return MODELS[names[name.lower()]]
    nearest = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.0)[0]
    raise UserError(f"There is no model {name!r}; did you mean {names[nearest]}? All models: {', '.join(MODELS)}")
