"""The detectors by name.

    detector = find_model("ssd_mobilenet_v1")
    offsets, logits = detector.build(image, num_classes=20, training=False)

One table, `MODELS`, has image size, width, feature maps and priors of each.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fluid.errors import UserError
from fluid.program import Value
from object_detection.models import mobilenet, vgg
from object_detection.models.layers import conv
from object_detection.priors import PriorMap, prior_boxes

import numpy as np
import paddle


@dataclass(frozen=True)
class Model:
    """A detector: a network that makes feature maps, and what predicts from each of them."""

    name: str
    network: Callable[[Value, bool, float, Collection[str]], dict[str, Value]]
    """(image [N, 3, size, size], training, width, layers) -> maps [N, C, cells, cells] of at least these layers."""
    head_names: Callable[[str], tuple[str, str]]
    """Name of a map's layer -> names of the convolutions that predict boxes and classes."""
    head_size: int
    """Side of these convolutions' kernels."""
    image_size: int
    cells: dict[str, int]
    """Of all maps that may predict, finest first, at `image_size`."""
    priors: dict[str, PriorMap]
    """Of the maps that do predict, finest first."""
    width: float = 1.0
    """Times the filters of the paper."""

    @property
    def prior_boxes(self) -> np.ndarray:
        """[P, 4] float32, 0..1 of the image."""
        return prior_boxes(list(self.priors.values()))

    def with_priors(self, maps: Sequence[PriorMap]) -> "Model":
        """The same network with other priors, as `priors.fit_priors` makes them.

        Raises UserError if the network has no map of so many cells.
        """
        by_cells = {count: layer for layer, count in self.cells.items()}
        for item in maps:
            if item.cells not in by_cells:
                raise UserError(
                    f"{self.name} has no map of {item.cells} x {item.cells} cells, only of {', '.join(map(str, by_cells))}"
                )
        return dataclasses.replace(self, priors={by_cells[item.cells]: item for item in maps})

    def with_image_size(self, size: int | None) -> "Model":
        """The same network for images of another size, whose maps have more or fewer cells; None leaves it as it is.

        Priors keep their share of the image, and those of maps that would repeat a map of one cell are left out. Raises
        UserError if the network does not halve its maps all the way, or the size is too small for it.
        """
        if size in (None, self.image_size):
            return self
        if self.network is not mobilenet.mobilenet:
            raise UserError(f"--image_size {size}: {self.name} takes images of {self.image_size} pixels alone")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"--image_size {size}: must be at least {SMALLEST} and at most {LARGEST}")
        cells: dict[str, int] = {}
        for number, layer in enumerate(self.cells):
            count = math.ceil(size / 2 ** (number + mobilenet.FIRST_MAP_HALVINGS))
            if count not in cells.values():
                cells[layer] = count
        priors = {
            layer: dataclasses.replace(item, cells=cells[layer])
            for layer, item in self.priors.items()
            if layer in cells
        }
        return dataclasses.replace(self, image_size=size, cells=cells, priors=priors)

    def build(self, image: Value, num_classes: int, training: bool) -> tuple[Value, Value]:
        """Append the detector to the current Program.

        Args:
            image: [N, 3, image_size, image_size] float32, normalised.
            num_classes: without background.
            training: whether batch normalisation takes its training form.

        Returns offsets [N, P, 4] from the priors, and logits [N, P, 1 + num_classes], background first; float32.
        """
        maps = self.network(image, training, self.width, self.priors)
        offsets: list[Value] = []
        logits: list[Value] = []
        for layer, item in self.priors.items():
            for outputs, name, columns in zip(
                (offsets, logits), self.head_names(layer), (4, 1 + num_classes), strict=True
            ):
                filters = len(item.shapes) * columns
                x = conv(maps[layer], filters, self.head_size, relu=False, name=name)
                outputs.append(paddle.transpose(x, [0, 2, 3, 1]).reshape([0, len(item.boxes()), columns]))
        return paddle.concat(offsets, axis=1), paddle.concat(logits, axis=1)


SMALLEST, LARGEST = 64, 4096
"""Pixels: below that the deepest layers would have nothing left to halve."""


def _ssd_priors(
    cells: dict[str, int], sizes: Sequence[float], ratios: Sequence[tuple[float, ...]], *, max_of_first: bool = True
) -> dict[str, PriorMap]:
    """Of map k from `sizes[k]` to `sizes[k + 1]`, shares of the image's side."""
    priors = {}
    for number, (layer, count) in enumerate(cells.items()):
        larger = (sizes[number + 1],) if number or max_of_first else ()
        priors[layer] = PriorMap(count, (sizes[number],), larger, ratios[number])
    return priors


def _mobilenet(name: str, width: float) -> Model:
    cells = dict(zip(mobilenet.MAP_LAYERS, (75, 38, 19, 10, 5, 3, 2, 1), strict=True))
    released = {layer: cells[layer] for layer in mobilenet.MAP_LAYERS[2:]}
    sizes = [size / 300 for size in (60, 105, 150, 195, 240, 285, 300)]
    priors = _ssd_priors(released, sizes, [(2.0,), *[(2.0, 3.0)] * 5], max_of_first=False)
    return Model(name, mobilenet.mobilenet, mobilenet.head_names, 1, 300, cells, priors, width)


def _vgg16_300() -> Model:
    cells = dict(zip(vgg.MAP_LAYERS_300, (38, 19, 10, 5, 3, 1), strict=True))
    sizes = [size / 300 for size in (30, 60, 111, 162, 213, 264, 315)]
    priors = _ssd_priors(cells, sizes, [(2.0,), *[(2.0, 3.0)] * 3, (2.0,), (2.0,)])
    return Model("ssd_vgg16_300", vgg.vgg16_300, vgg.head_names, 3, 300, cells, priors)


def _vgg16_512() -> Model:
    cells = dict(zip(vgg.MAP_LAYERS_512, (64, 32, 16, 8, 4, 2, 1), strict=True))
    sizes = [0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05]
    priors = _ssd_priors(cells, sizes, [(2.0,), *[(2.0, 3.0)] * 4, (2.0,), (2.0,)])
    return Model("ssd_vgg16_512", vgg.vgg16_512, vgg.head_names, 3, 512, cells, priors)


MODELS = {
    model.name: model
    for model in (
        _mobilenet("ssd_mobilenet_v1", 1.0),
        _mobilenet("ssd_mobilenet_v1_x0_5", 0.5),
        _mobilenet("ssd_mobilenet_v1_x0_25", 0.25),
        _vgg16_300(),
        _vgg16_512(),
    )
}


def find_model(name: str) -> Model:
    """The detector called `name`. Raises UserError, naming the nearest, if there is none."""
    if name in MODELS:
        return MODELS[name]
    nearest = difflib.get_close_matches(name.lower(), MODELS, n=1, cutoff=0.0)[0]
    raise UserError(f"There is no model {name!r}; did you mean {nearest}? All models: {', '.join(MODELS)}")
