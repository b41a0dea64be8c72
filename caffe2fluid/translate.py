"""Translates a network layer by layer, with every problem collected instead of only the first one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import paddle

from .caffemodel import Caffemodel, LayerWeights
from .errors import ConvertError, UnsupportedError, number_of
from .fields import of_layer
from .free_sizes import find_free_sizes
from .layers import LAYERS, Node
from .layers.node import Parameter
from .layers.normalization import has_own_affine
from .names import MODULES, Names, quoted
from .network import Layer, Network, output_blobs

CUSTOM_LAYER_HELP = (
    "add them with --custom_layers FILE.py (see 'Layers of your own' in the README of caffe2fluid): "
    "FILE.py calls register(kind='TYPE', shape=shape_function, layer=layer_function)"
)


@dataclass
class Translation:
    """A translated network. ``free_shapes``: shapes by blob, None where the code is right for any size."""

    network: Network
    phase: str
    nodes: list[Node]
    shapes: dict[str, list[int]]
    outputs: list[str]
    notes: list[str] = field(default_factory=list)
    free_shapes: dict[str, list[int | None]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Parameter]:
        return {name: parameter for node in self.nodes for name, parameter in node.parameters.items()}

    @property
    def has_weights(self) -> bool:
        return all(parameter.load for parameter in self.parameters.values())


def translate(
    network: Network,
    weights: Caffemodel | None,
    phase: str = "TEST",
    allow_missing: bool = False,
    any_size: bool = False,
) -> Translation:
    """Translates all layers. ``weights`` is None without a caffemodel; ``any_size``: images of any size must fit.

    Raises UnsupportedError that lists every layer without translation, and ConvertError for a layer that contradicts
    itself or its weights, (unless ``allow_missing``) has none in the caffemodel, or fits one size only against ``any_size``.
    """
    problems = [
        f"{layer.name} ({_type_of(layer)}): this layer type is unknown"
        for layer in network.layers
        if _type_of(layer) not in LAYERS
    ]
    if problems:
        raise UnsupportedError(_unsupported(problems))
    result = _translate(network, weights, phase, any_size)
    if weights is not None:
        _look_at_weights(weights, result, allow_missing)
    find_free_sizes(
        result,
        lambda inputs: _translate(Network(network.name, inputs, network.layers), weights, phase, any_size),
        required=any_size,
    )
    return result


def _look_at_weights(weights: Caffemodel, result: Translation, allow_missing: bool) -> None:
    """Notes for all that the caffemodel and the translation do not share, and for weights that are no numbers.

    Parameters that it lacks get what training starts with. Raises ConvertError for them unless ``allow_missing``.
    """
    owners = Counter(node.layer.name for node in result.nodes if node.parameters)
    if several := [name for name, count in owners.items() if count > 1 and name in weights]:
        raise ConvertError(
            f"the caffemodel tells layers by their names alone, and several with weights are called {_list(several)}; "
            "in the prototxt, give them names of their own"
        )
    result.notes += [
        f"{name}: several layers of the caffemodel have this name; the weights are the last one's"
        for name in sorted(weights.repeated)
    ]
    strangers = [name for name in weights if name not in {layer.name for layer in result.network.layers}]
    lacking = [node for node in result.nodes if node.missing]
    missing = [name for node in lacking for name in node.missing]
    if missing and not allow_missing:
        layers = f"layers of the prototxt without weights: {_list([node.layer.name for node in lacking])}"
        others = (
            f"\n  layers of the caffemodel that the prototxt does not have: {_list(strangers)}" if strangers else ""
        )
        raise ConvertError(
            f"the caffemodel lacks {number_of(len(missing), 'parameter')}: {_list(missing)}\n  {layers}{others}\n"
            "If the net shall get new ones to be trained, add --allow_missing: they then start as their fillers say"
        )
    for node in lacking:
        for name in node.missing:
            node.parameters[name].load = node.parameters[name].initial
    result.notes += [f"not in the caffemodel, starts as its filler says: {name}" for name in missing]
    if strangers:
        result.notes.append(f"layers of the caffemodel that the prototxt does not have: {_list(strangers)}")
    used = {pair for node in result.nodes for pair in node.used_blobs}
    for layer in result.network.layers:
        for index, blob in enumerate(weights[layer.name].blobs if layer.name in weights else []):
            if (layer.name, index) not in used:
                shape = list(blob.shape)
                result.notes.append(
                    f"{layer.name}: blob {index} of the caffemodel, of shape {shape}, has no use in the prototxt's layer"
                )
            elif not np.isfinite(np.sum(blob)) and not np.isfinite(blob).all():
                count = int((~np.isfinite(blob)).sum())
                result.notes.append(f"{layer.name}: NaN or infinite: {number_of(count, 'value')} of blob {index}")
        weights.release()


def _type_of(layer: Layer) -> str:
    """The layer's type; of a Python layer the class that its python_param names."""
    if layer.type == "Python":
        return layer.params.message("python_param").text("layer", "Python")
    return layer.type


def _list(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _unsupported(problems: list[str]) -> str:
    return "no translation for\n  " + "\n  ".join(problems) + f"\n{CUSTOM_LAYER_HELP}"


def _translate(network: Network, weights: dict[str, LayerWeights] | None, phase: str, any_size: bool) -> Translation:
    """The translation for the sizes that the inputs have now."""
    reserved = {"self", "blob", *MODULES, *dir(paddle.nn.Layer), *vars(paddle.nn.Layer())}
    names = Names(reserved)
    ids = [names(layer.name) for layer in network.layers]
    folded = _scales_to_fold(network, weights or {})
    gone = set(folded.values())
    shapes = {name: list(shape) for name, shape in network.inputs.items()}
    result = Translation(network, phase, [], shapes, output_blobs(network), list(network.notes))
    shared: dict = {}
    writers: dict[str, str] = {}
    problems = []

    def blobs_of(layer: Layer):
        if weights is None:
            return None
        return weights[layer.name].blobs if layer.name in weights else []

    for index, (layer, identifier) in enumerate(zip(network.layers, ids, strict=True)):
        if index in gone:
            continue
        scale = network.layers[folded[index]] if index in folded else None
        node = Node(
            layer=layer,
            id=identifier,
            inputs=[f"blob[{quoted(blob)}]" for blob in layer.bottoms],
            shapes=[shapes[blob] for blob in layer.bottoms],
            blobs=blobs_of(layer),
            phase=phase,
            attribute=names,
            shared=shared,
            scale=scale,
            scale_blobs=blobs_of(scale) if scale else None,
            any_size=any_size,
            writers=[writers.get(blob, "") for blob in layer.bottoms],
        )
        try:
            LAYERS[_type_of(layer)](node)
        except UnsupportedError as error:
            problems.append(str(error))
            break  # the shapes after it are unknown
        tops = scale.tops if scale else layer.tops
        if len(node.values) not in (0, len(tops)):
            raise node.error(f"has {number_of(len(tops), 'top')}, {layer.type} gives {len(node.values)}")
        for top, shape in zip(tops, node.output_shapes, strict=False):
            if top in layer.bottoms and shape != shapes[top]:
                raise node.error(
                    f"works in place on the blob {top!r} of shape {shapes[top]}, and its output is {shape}"
                )
        shapes.update(zip(tops, node.output_shapes, strict=False))
        writers.update(dict.fromkeys(tops, layer.type))
        unread = of_layer(layer.params) + (of_layer(scale.params) if scale else [])
        if unread:
            result.notes.append(
                f"{layer.name}: fields that were not understood and have no effect: {', '.join(unread)}"
            )
        result.notes += node.notes
        result.nodes.append(node)
    if problems:
        raise UnsupportedError(_unsupported(problems))
    result.free_shapes = dict(result.shapes)
    return result


def _scales_to_fold(network: Network, weights: dict[str, LayerWeights]) -> dict[int, int]:
    """BatchNorm -> Scale, as indices: one learned factor a channel, nobody else reads what the BatchNorm wrote."""
    version: dict[str, int] = {}
    written: dict[int, tuple[str, int]] = {}
    readers: dict[tuple[str, int], list[int]] = {}
    for index, layer in enumerate(network.layers):
        for blob in layer.bottoms:
            readers.setdefault((blob, version.get(blob, 0)), []).append(index)
        for blob in layer.tops:
            version[blob] = version.get(blob, 0) + 1
            written[index] = (blob, version[blob])
    result = {}
    for index, layer in enumerate(network.layers):
        reading = readers.get(written.get(index, ("", -1)), [])
        blobs = weights[layer.name].blobs if layer.name in weights else None
        if layer.type != "BatchNorm" or len(reading) != 1 or has_own_affine(layer, blobs):
            continue
        scale = network.layers[reading[0]]
        params = scale.params.message("scale_param")
        per_channel = params.integer("axis", 1) == 1 and params.integer("num_axes", 1) == 1
        sharing = any(layer.shared_names) or any(scale.shared_names)
        if scale.type == "Scale" and len(scale.bottoms) == 1 and len(scale.tops) == 1 and per_channel and not sharing:
            result[index] = reading[0]
    return result
