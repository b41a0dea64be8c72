"""``Node``: one layer during its translation, and the table of translations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConvertError, UnsupportedError, number_of
from ..fillers import fill, is_fixed
from ..names import literal, quoted
from ..network import Layer, check_shape
from ..prototxt import Message

PIECE = 1 << 22
"""Values that are written at once."""

LAYERS: dict[str, Callable[[Node], None]] = {}
"""Translation by Caffe layer type."""


def register_layer(*types: str) -> Callable[[Callable[[Node], None]], Callable[[Node], None]]:
    """Decorator: makes a function the translation of these Caffe layer types."""

    def decorate(translate: Callable[[Node], None]) -> Callable[[Node], None]:
        LAYERS.update(dict.fromkeys(types, translate))
        return translate

    return decorate


@dataclass
class SharedParameter:
    """A parameter that several layers use: the expression that reads it, its shape, and who stores it how."""

    expression: str
    shape: list[int]
    layout: str


@dataclass
class Parameter:
    """A parameter of the converted net: ``load`` gives its array, None where the caffemodel has none.

    ``initial`` gives what a net starts with that gets it by training.
    """

    shape: list[int]
    load: Callable[[], np.ndarray] | None
    initial: Callable[[], np.ndarray] | None = None
    multipliers: tuple[float, float] = (1.0, 1.0)  # of learning rate and weight decay
    transposed: np.ndarray | None = None  # the blob whose transpose it is, so that it can be written by pieces

    def pieces(self) -> Iterator[np.ndarray]:
        """The array in parts of its first axis."""
        if self.transposed is None:
            yield self.load()
            return
        rows, columns = self.transposed.shape
        step = max(PIECE // max(rows, 1), 1)
        for start in range(0, columns, step):
            yield np.ascontiguousarray(self.transposed[:, start : start + step].T)


@dataclass
class Node:
    """One layer: what it reads and, filled in by its translation, the code and weights it becomes.

    ``inputs`` are Python expressions of the bottoms and ``shapes`` their shapes. ``blobs`` are the arrays of the
    caffemodel, None if there is no caffemodel. ``scale`` is a Scale layer that is folded into this BatchNorm.
    ``any_size``: what depends on the sizes alone is computed by the graph, and not at conversion.
    """

    layer: Layer
    id: str
    inputs: list[str]
    shapes: list[list[int]]
    blobs: list[np.ndarray] | None
    phase: str
    attribute: Callable[[str], str]
    shared: dict[str, SharedParameter]
    scale: Layer | None = None
    scale_blobs: list[np.ndarray] | None = None
    any_size: bool = False
    writers: list[str] = field(default_factory=list)  # types of the layers that wrote the bottoms

    init: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    output_shapes: list[list[int]] = field(default_factory=list)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    helpers: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)  # of custom layers: code by function name
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used_blobs: set[tuple[str, int]] = field(default_factory=set)  # of the caffemodel: layer and index
    multiply_adds: int = 0
    counted: bool = False  # whether the translation has said how many bottoms it takes

    @property
    def x(self) -> str:
        """The expression of the only bottom, or of the first where needs_bottoms allowed others. Raises ConvertError."""
        self._needs_one()
        return self.inputs[0]

    @property
    def shape(self) -> list[int]:
        """The shape of the same bottom. Raises ConvertError."""
        self._needs_one()
        return self.shapes[0]

    def _needs_one(self) -> None:
        if not self.counted:
            self.needs_bottoms(1, 1)

    def needs_bottoms(self, least: int, most: int | None = None) -> None:
        """Raises ConvertError unless the layer has ``least`` to ``most`` bottoms; without a call it must have one."""
        self.counted = True
        if len(self.inputs) < least or (most is not None and len(self.inputs) > most):
            wanted = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
            raise self.error(f"has {number_of(len(self.inputs), 'bottom')}, {self.layer.type} takes {wanted}")

    def needs_axes(self, *counts: int) -> None:
        """Raises ConvertError unless the first bottom has one of these numbers of axes."""
        if len(self.shape) not in counts:
            raise self.error(f"its bottom of shape {self.shape} has not {' or '.join(map(str, counts))} axes")

    def positive(self, params: Message, name: str) -> int:
        """The field of ``params``. Raises ConvertError where it is missing or below 1."""
        value = params.integer(name)
        if value < 1:
            raise self.error(f"{name} must be 1 or more, but is {value}")
        return value

    def params(self, name: str) -> Message:
        """The message of that name (convolution_param, ...), empty if absent."""
        return self.layer.params.message(name)

    def uses_blobs(self, *indices: int) -> None:
        """Says that these blobs of the layer have their effect, so that they are not reported."""
        self.used_blobs.update((self.layer.name, index) for index in indices)

    def error(self, what: str) -> ConvertError:
        return ConvertError(f"{self.layer.where} ({self.layer.type}): {what}")

    def unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"{self.layer.name} ({self.layer.type}): {what}")

    def axis(self, axis: int, count: int | None = None) -> int:
        """The axis counted from the front. Raises ConvertError outside of -count .. count-1."""
        count = len(self.shape) if count is None else count
        if not -count <= axis < count:
            raise self.error(f"axis {axis} of a blob with {number_of(count, 'axis', 'axes')}")
        return axis % count

    def helper(self, name: str) -> str:
        """Puts a function of operators.py into the generated module."""
        self.helpers.add(name)
        return name

    def sublayer(self, call: str) -> str:
        """Creates ``self.<id>`` in the constructor; returns the expression."""
        self.init.append(f"self.{self.id} = {call}")
        return f"self.{self.id}"

    def output(self, expression: str, shape: Sequence[int]) -> None:
        """The value of the next top."""
        self.values.append(expression)
        self.output_shapes.append(check_shape(shape, f"{self.layer.where} ({self.layer.type})"))

    # Parameters

    def shared_with(self, index: int) -> SharedParameter | None:
        """The parameter of an earlier layer that blob ``index`` of this one is to be, if ``param { name }`` says so."""
        names = self.layer.shared_names
        return self.shared.get(names[index]) if index < len(names) and names[index] else None

    def publish(self, index: int, expression: str, shape: Sequence[int], layout: str = "") -> None:
        """Lets later layers share this parameter, if it has a name."""
        names = self.layer.shared_names
        if index < len(names) and names[index]:
            self.shared.setdefault(names[index], SharedParameter(expression, list(shape), layout))

    def weight(
        self,
        suffix: str,
        index: int,
        shape: Sequence[int],
        convert: Callable[[np.ndarray], np.ndarray] | None = None,
        *,
        stored: Sequence[int] | None = None,
        filler: str = "",
        of_scale: bool = False,
        transposed: bool = False,
    ) -> str:
        """Registers the parameter ``<id>_<suffix>`` and returns its name.

        ``stored`` is the shape of Caffe's blob ``index`` (default: ``shape``) and ``convert`` what makes the parameter
        of it (``transposed``: its transpose); ``of_scale``: it is a blob of the Scale layer that is folded in. Raises ConvertError if the blob in the
        caffemodel has another shape.
        """
        name = f"{self.id}_{suffix}"
        stored = check_shape(shape if stored is None else stored, self.layer.where)
        blobs, layer = (self.scale_blobs, self.scale) if of_scale else (self.blobs, self.layer)
        self.used_blobs.add((layer.name, index))
        spec = self._filler(layer, filler)

        def finished(array: np.ndarray) -> np.ndarray:
            array = array.reshape(stored).astype(np.float32, copy=False)
            array = convert(array) if convert else array.T if transposed else array
            return np.ascontiguousarray(array, dtype=np.float32).reshape(shape)

        def initial() -> np.ndarray:
            return finished(fill(spec, suffix, name, stored))

        load, source = None, None
        if blobs is not None and index < len(blobs):
            blob = blobs[index]
            squeezed = [dim for dim in blob.shape if dim != 1]
            if squeezed != [dim for dim in stored if dim != 1]:
                raise self.error(
                    f"blob {index} of the caffemodel has the shape {list(blob.shape)}, the prototxt wants {stored}; "
                    "do the two files belong together?"
                )

            def load() -> np.ndarray:
                return finished(blob)

            source = blob.reshape(stored) if transposed else None

        elif blobs is not None and is_fixed(spec):
            self.notes.append(f"{layer.name}: not in the caffemodel, filled as its {filler} says")
            load = initial
        elif blobs is not None:
            self.missing.append(name)
        self.parameters[name] = Parameter(list(shape), load, initial, layer.multipliers(index), source)
        return name

    def parameter(
        self,
        suffix: str,
        index: int,
        shape: Sequence[int],
        initial: float = 0.0,
        layout: str = "",
        **options: Any,
    ) -> str:
        """A parameter outside of any sublayer: creates it or takes the shared one; returns the expression."""
        shared = self.shared_with(index)
        if shared is not None:
            self.uses_blobs(index)
            if shared.shape != list(shape) or shared.layout != layout:
                raise self.unsupported(f"blob {index} of shape {list(shape)} shares one of shape {shared.shape}")
            return shared.expression
        name = self.weight(suffix, index, shape, **options)
        attribute = self.attribute(name)
        initializer = f", default_initializer=nn.initializer.Constant({initial})" if initial else ""
        self.init.append(f"self.{attribute} = self.create_parameter({list(shape)}, attr={quoted(name)}{initializer})")
        self.publish(index, f"self.{attribute}", shape, layout)
        return f"self.{attribute}"

    def _filler(self, layer: Layer, filler: str) -> Message | None:
        for values in layer.params.fields.values() if filler else ():
            for message in values:
                if isinstance(message, Message) and filler in message:
                    return message.message(filler)
        return None


def arguments(*positional: Any, **keywords: Any) -> str:
    """Source of an argument list; keywords that are None are left out. Strings are taken as source."""
    parts = [value if isinstance(value, str) else literal(value) for value in positional]
    parts += [
        f"{key}={value if isinstance(value, str) else literal(value)}"
        for key, value in keywords.items()
        if value is not None
    ]
    return ", ".join(parts)


def pair(values: Sequence[int]) -> int | list[int]:
    """One number for all axes if they agree, else the list: what Paddle's kernel_size, stride, ... take."""
    return values[0] if len(set(values)) == 1 else list(values)


def transposed_before(node: Node) -> bool:
    """Whether the first bottom is a transpose: oneDNN's pass in Paddle 3.3 fuses one with a reshape into a wrong type."""
    return bool(node.writers) and node.writers[0] in ("Permute", "Transpose")


def same(x: str) -> str:
    """Source of a copy: an inference model refuses an output that is an input, or the same as another output."""
    return f"paddle.assign({x})"
