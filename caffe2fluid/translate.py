"""Translates a network layer by layer, with every problem collected instead of only the first one."""

from __future__ import annotations

from dataclasses import dataclass, field

import paddle

from .caffemodel import LayerWeights
from .errors import ConvertError, UnsupportedError
from .layers import LAYERS, Node
from .layers.node import Parameter
from .names import Names, quoted
from .network import Layer, Network, output_blobs

CUSTOM_LAYER_HELP = (
    "add them with --custom_layers FILE.py (see 'Layers of your own' in the README of caffe2fluid): "
    "FILE.py calls register(kind='TYPE', shape=shape_function, layer=layer_function)"
)


@dataclass
class Translation:
    """A translated network.

    ``dynamic_batch``: the code is right for any size of axis 0 of the inputs. ``free_shapes``: shapes by blob, None
    where that size shows; those of the prototxt if it must not change.
    """

    network: Network
    phase: str
    nodes: list[Node]
    shapes: dict[str, list[int]]
    outputs: list[str]
    notes: list[str] = field(default_factory=list)
    dynamic_batch: bool = False
    free_shapes: dict[str, list[int | None]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Parameter]:
        return {name: parameter for node in self.nodes for name, parameter in node.parameters.items()}

    @property
    def has_weights(self) -> bool:
        return all(parameter.load for parameter in self.parameters.values())


def translate(
    network: Network,
    weights: dict[str, LayerWeights] | None,
    phase: str = "TEST",
    allow_missing: bool = False,
) -> Translation:
    """Translates all layers. ``weights`` is None without a caffemodel.

    Raises UnsupportedError that lists every layer without translation, and ConvertError for a layer that contradicts
    itself or its weights, or (unless ``allow_missing``) has none in the caffemodel.
    """
    problems = [
        f"{layer.name} ({_type_of(layer)}): this layer type is unknown"
        for layer in network.layers
        if _type_of(layer) not in LAYERS
    ]
    if problems:
        raise UnsupportedError(_unsupported(problems))
    result = _translate(network, weights, phase)
    missing = [name for node in result.nodes for name in node.missing]
    if missing and not allow_missing:
        raise ConvertError(
            f"the caffemodel lacks {len(missing)} parameters: {_list(missing)}. If the net shall get new ones to be trained, "
            "add --allow_missing: they are then initialised at random"
        )
    result.notes += [f"not in the caffemodel, initialised at random: {name}" for name in missing]
    if weights is not None:
        used = {layer.name for layer in network.layers}
        unused = [name for name in weights if name not in used]
        if unused:
            result.notes.append(f"layers of the caffemodel that the prototxt does not have: {_list(unused)}")
    result.free_shapes = dict(result.shapes)
    _look_at_batch(network, weights, phase, result)
    return result


def _type_of(layer: Layer) -> str:
    """The layer's type; of a Python layer the class that its python_param names."""
    if layer.type == "Python":
        return layer.params.message("python_param").text("layer", "Python")
    return layer.type


def _list(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _unsupported(problems: list[str]) -> str:
    return "no translation for\n  " + "\n  ".join(problems) + f"\n{CUSTOM_LAYER_HELP}"


def _translate(network: Network, weights: dict[str, LayerWeights] | None, phase: str) -> Translation:
    reserved = {"self", "blob", "paddle", "nn", "np", "F", *dir(paddle.nn.Layer), *vars(paddle.nn.Layer())}
    names = Names(reserved)
    ids = [names(layer.name) for layer in network.layers]
    folded = _scales_to_fold(network)
    gone = set(folded.values())
    shapes = {name: list(shape) for name, shape in network.inputs.items()}
    result = Translation(network, phase, [], shapes, output_blobs(network), list(network.notes))
    shared: dict = {}
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
        )
        try:
            LAYERS[_type_of(layer)](node)
        except UnsupportedError as error:
            problems.append(str(error))
            break  # the shapes after it are unknown
        tops = scale.tops if scale else layer.tops
        if len(node.values) not in (0, len(tops)):
            raise node.error(f"has {len(tops)} tops, {layer.type} gives {len(node.values)}")
        shapes.update(zip(tops, node.output_shapes, strict=False))
        unread = node.unread_fields()
        if unread:
            result.notes.append(
                f"{layer.name}: fields that were not understood and have no effect: {', '.join(unread)}"
            )
        result.notes += node.notes
        result.nodes.append(node)
    if problems:
        raise UnsupportedError(_unsupported(problems))
    return result


def _scales_to_fold(network: Network) -> dict[int, int]:
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
        if layer.type != "BatchNorm" or len(reading) != 1 or "scale_bias" in layer.params.message("batch_norm_param"):
            continue
        scale = network.layers[reading[0]]
        params = scale.params.message("scale_param")
        per_channel = params.integer("axis", 1) == 1 and params.integer("num_axes", 1) == 1
        sharing = any(layer.shared_names) or any(scale.shared_names)
        if scale.type == "Scale" and len(scale.bottoms) == 1 and len(scale.tops) == 1 and per_channel and not sharing:
            result[index] = reading[0]
    return result


def _look_at_batch(network: Network, weights: dict | None, phase: str, result: Translation) -> None:
    """Translates with one more item in the batch: if that gives the very same code, the code fits any batch.

    Tried for all inputs together, then for those that have the batch size of the first one.
    """
    first = next(iter(network.inputs.values()))[0]
    for grows in (lambda shape: True, lambda shape: shape[0] == first):
        larger = {name: [shape[0] + 1, *shape[1:]] if grows(shape) else shape for name, shape in network.inputs.items()}
        try:
            other = _translate(Network(network.name, larger, network.layers), weights, phase)
        except ConvertError:
            continue
        pairs = list(zip(result.nodes, other.nodes, strict=True))
        if all(a.init == b.init and a.values == b.values for a, b in pairs):
            result.dynamic_batch = True
            result.free_shapes = {
                name: [dim if dim == grown else None for dim, grown in zip(shape, other.shapes[name], strict=True)]
                for name, shape in result.shapes.items()
            }
            return
