"""Layers of your own: ``register`` in a file given with --custom_layers. Used as in 2018:

    def clamp_shape(input_shape, low, high):
        return input_shape

    def clamp_layer(input, name, low, high):
        return paddle.clip(input, low, high)

    register(kind="Clamp", shape=clamp_shape, layer=clamp_layer)

The functions get the fields of the layer's messages (clamp_param { low: 0 high: 1 }) as keyword arguments, as far as
they name them. Several bottoms come as a list. ``layer`` builds the value with paddle, F, nn and np; its source goes
into the generated module, so it imports anything else inside.
"""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ConvertError
from .layers.node import LAYERS, Node, Parameter, arguments
from .names import literal
from .prototxt import Message, Symbol, is_infinite

COMMON_MESSAGES = {"param", "include", "exclude", "transform_param", "loss_param", "python_param"}


def register(
    kind: str | Sequence[str],
    shape: Callable[..., Any],
    layer: Callable[..., Any],
    weights: Callable[[list[np.ndarray]], dict[str, np.ndarray]] | None = None,
) -> None:
    """Makes ``layer`` the translation of the Caffe layer type(s) ``kind`` (of a Python layer: the name of its class).

    ``shape(input_shape, **fields)`` returns the shape of the top, or a list of shapes for several tops.
    ``layer(input, name, **fields, **weights)`` returns its value, or a list of values.
    ``weights(blobs)`` names the layer's blobs: {argument of layer: array}.
    """

    def translate(node: Node) -> None:
        fields = _fields(node.layer.params)
        several = len(node.inputs) > 1
        shapes = _call(node, shape, node.shapes if several else node.shape, **_accepted(shape, fields))
        try:
            shapes = _listed(shapes)
        except (TypeError, ValueError):
            raise node.error(f"{shape.__name__} of the custom layer gives {shapes!r}, which is no shape") from None
        keywords = {key: literal(value) for key, value in _accepted(layer, fields).items()}
        if weights is not None:
            if node.blobs is None:
                raise node.error("a custom layer with weights needs --caffemodel to know their shapes")
            for suffix, array in _call(node, weights, node.blobs).items():
                keywords[suffix] = _parameter(node, suffix, np.asarray(array, np.float32))
        inputs = f"[{', '.join(node.inputs)}]" if several else node.x
        node.sources[layer.__name__] = textwrap.dedent(inspect.getsource(layer))
        call = f"{layer.__name__}({arguments(inputs, repr(node.layer.name), **keywords)})"
        node.uses_blobs(*range(len(node.blobs or []) if weights is not None else 0))
        for index, top_shape in enumerate(shapes):
            node.output(f"{call}[{index}]" if len(shapes) > 1 else call, top_shape)

    for name in [kind] if isinstance(kind, str) else kind:
        LAYERS[name] = translate


def load_custom_layers(paths: Sequence[str | Path]) -> None:
    """Runs the given files and those that the variable CAFFE2FLUID_CUSTOM_LAYERS names (a file or a folder of them).

    Raises ConvertError if one cannot be read or fails.
    """
    from_environment = os.environ.get("CAFFE2FLUID_CUSTOM_LAYERS")
    for path in map(Path, [*paths, *([from_environment] if from_environment else [])]):
        files = sorted(path.glob("*.py")) if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                raise ConvertError(f"{file}: no such file of custom layers")
            try:
                code = compile(file.read_text("utf-8"), str(file), "exec")
                exec(code, {"__name__": f"custom_layers_{file.stem}", "__file__": str(file), "register": register})
            except ConvertError:
                raise
            except Exception as error:
                raise ConvertError(f"{file}: {type(error).__name__}: {error}") from error


def _fields(params: Message) -> dict[str, Any]:
    """All fields of the layer's own messages; a list where a field is repeated, a dict for an inner message."""

    def plain(values: list[Any]) -> Any:
        converted = [_fields_of(v) if isinstance(v, Message) else _plain(v) for v in values]
        return converted[0] if len(converted) == 1 else converted

    def _fields_of(message: Message) -> dict[str, Any]:
        return {key: plain(message.values(key)) for key in message.fields}

    result: dict[str, Any] = {}
    for name in params.fields:
        if name.endswith("_param"):
            message = params.message(name)
            message.used.update(message.fields)  # which of them count is the custom layer's business
            result |= _fields_of(message) if name not in COMMON_MESSAGES else {}
    return result


def _plain(value: Any) -> Any:
    if is_infinite(value):
        return float(value)
    if isinstance(value, Symbol):
        return {"true": True, "false": False}.get(value, str(value))
    return value


def _accepted(function: Callable[..., Any], fields: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return fields
    return {key: value for key, value in fields.items() if key in parameters}


def _call(node: Node, function: Callable[..., Any], *positional: Any, **keywords: Any) -> Any:
    try:
        return function(*positional, **keywords)
    except Exception as error:
        raise node.error(f"{function.__name__} of the custom layer: {type(error).__name__}: {error}") from error


def _listed(shape: Any) -> list[list[int]]:
    """The shapes of all tops, of one shape or several."""
    several = len(shape) > 0 and isinstance(shape[0], (list, tuple))
    return [[int(dim) for dim in top] for top in (shape if several else [shape])]


def _parameter(node: Node, suffix: str, array: np.ndarray) -> str:
    name = f"{node.id}_{suffix}"
    if not suffix.isidentifier() or "_" in suffix:
        raise node.error(f"the custom layer calls a weight {suffix!r}; letters and digits only, please")
    node.parameters[name] = Parameter(list(array.shape), lambda: np.ascontiguousarray(array))
    attribute = node.attribute(name)
    node.init.append(f"self.{attribute} = self.create_parameter({list(array.shape)}, attr={name!r})")
    return f"self.{attribute}"
