"""From a parsed prototxt to a plain list of layers: old formats upgraded, phase rules applied, train-only layers gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .caffemodel import V1_TYPES
from .errors import ConvertError
from .fields import OF_LAYERS, OF_NETS, RULES, unknown
from .prototxt import Message, Symbol, read_prototxt

MAX_COUNT = (1 << 31) - 1  # a Caffe blob counts its values in an int
MAX_AXES = 32

# Layers that read data: their tops become inputs of the converted net.
DATA_LAYERS = {
    "Input", "Data", "ImageData", "HDF5Data", "WindowData", "MemoryData", "DummyData", "AnnotatedData", "VideoData",
    "ImageSegData", "DenseImageData",
}  # fmt: skip
# Layers that only training or testing needs.
DROPPED_LAYERS = {
    "Accuracy", "SoftmaxWithLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss", "ContrastiveLoss", "MultiBoxLoss", "SmoothL1Loss", "DetectionEvaluate", "HDF5Output",
    "CtcLoss", "LabelsequenceAccuracy", "SegAccuracy",
}  # fmt: skip
# Layers without bottoms that compute, and layers that may stand between labels and a loss.
SOURCES = {"Parameter", "ContinuationIndicator"}
PASSING = {"Slice", "Split", "Silence", "Reshape", "Flatten", "Concat", "Permute", "Power", "Eltwise"}


@dataclass
class Layer:
    """One layer. ``params`` is its message with the fields of the current format (convolution_param, ...)."""

    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    params: Message
    where: str = ""

    @property
    def shared_names(self) -> list[str | None]:
        """The name of each parameter blob (``param { name: }``), None where it is the layer's own."""
        return [spec.text("name", "") or None for spec in self.params.messages("param")]

    def multipliers(self, index: int) -> tuple[float, float]:
        """What the solver multiplies learning rate and weight decay by for this blob; ``blobs_lr`` in V1."""
        specs = self.params.messages("param")
        if index < len(specs) and not self.params.values("blobs_lr"):
            return specs[index].number("lr_mult", 1.0), specs[index].number("decay_mult", 1.0)
        rates, decays = self.params.numbers("blobs_lr"), self.params.numbers("weight_decay")
        return rates[index] if index < len(rates) else 1.0, decays[index] if index < len(decays) else 1.0


@dataclass
class Network:
    """A net ready for translation: inputs [shape by blob name] and layers in execution order."""

    name: str
    inputs: dict[str, list[int]]
    layers: list[Layer]
    notes: list[str] = field(default_factory=list)
    transform: Message | None = None  # transform_param of the data layer, if the prototxt has one


def read_network(
    path: str | Path,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    input_shapes: dict[str, list[int]] | None = None,
    logits: bool = False,
) -> Network:
    """Reads a prototxt of any generation (V0, V1, current) as Caffe does in ``phase``.

    ``input_shapes`` gives or replaces the shapes of inputs by blob name, and makes inputs of blobs that no layer of the
    phase writes. A SoftmaxWithLoss leaves its probabilities unless ``logits``. Raises ConvertError.
    """
    message = read_prototxt(path)
    name = message.text("name", "")
    state = message.message("state")
    level, stages = state.integer("level", level), [*stages, *state.texts("stage")]
    if "layers" in message and "layer" in message:
        raise ConvertError(
            f"{path}: both `layers` (the format until 2014) and `layer`, so their order is unknown, and Caffe refuses it "
            "too; write all of them as `layer`"
        )
    messages = [_upgrade_v1(m) for m in _upgrade_v0(message.messages("layers"))] if "layers" in message else []
    messages += message.messages("layer")
    layers = [_layer(m) for m in messages if _included(m, phase, level, set(stages))]
    if not layers:
        hint = " in this phase" if messages else "; is this a solver, or not a net at all?"
        raise ConvertError(f"{path}: no layers{hint}")

    network = Network(name, {}, [])
    if strangers := unknown(message, OF_NETS):
        network.notes.append(f"fields of the net that were not understood and have no effect: {', '.join(strangers)}")
    wanted = dict(input_shapes or {})
    _declared_inputs(message, network, wanted)
    for layer in layers:
        if layer.type in DATA_LAYERS or (not layer.bottoms and layer.type not in SOURCES):
            _data_layer(layer, network, wanted)
        else:
            network.layers.append(layer)
    _blobs_from_outside(network, wanted)
    if wanted:
        known = ", ".join(network.inputs) or "none"
        raise ConvertError(f"--input_shape names {', '.join(wanted)}; the inputs of {path} are: {known}")
    _check_graph(network, {top for other in messages for top in other.texts("top")}, phase)
    _drop(network, logits)
    if not network.layers:
        raise ConvertError(f"{path}: nothing to convert, only data layers and layers of training")
    if not network.inputs:
        raise ConvertError(f"{path}: no layer reads an input of the net")
    if missing := [blob for blob, shape in network.inputs.items() if not shape]:
        flags = " ".join(f"--input_shape '{blob}=1,3,224,224'" for blob in missing)
        raise ConvertError(
            f"{path}: the shapes of the inputs {', '.join(missing)} are not in the file; give them: {flags}"
        )
    return network


def output_blobs(network: Network) -> list[str]:
    """The blobs that no later layer reads: what Caffe calls the outputs of the net, in order of production."""
    unread: dict[str, None] = {}
    for layer in network.layers:
        for blob in layer.bottoms:
            unread.pop(blob, None)
        for blob in layer.tops:
            unread.pop(blob, None)
            unread[blob] = None
    return list(unread)


def check_shape(shape: Sequence[int], where: str) -> list[int]:
    """Caffe's own limits on a blob. Raises ConvertError."""
    count = 1
    for dim in shape:
        if dim < 0 or dim > MAX_COUNT:
            raise ConvertError(f"{where}: the shape {list(shape)[:MAX_AXES]} has the dimension {dim}")
        count *= dim
    if len(shape) > MAX_AXES or count > MAX_COUNT:
        raise ConvertError(f"{where}: the shape {list(shape)[:MAX_AXES]} is larger than a Caffe blob can be")
    return list(shape)


def layer_messages(net: Message, phase: str) -> list[tuple[str, Message]]:
    """The layers of a parsed prototxt as they stand there, with the name of their field, as far as the phase has them."""
    return [
        (name, message)
        for name in ("layers", "layer")
        for message in net.messages(name)
        if _included(message, phase, 0, set())
    ]


def _layer(message: Message) -> Layer:
    name = message.text("name", "")
    where = f"{message.where.rsplit(',', 1)[0]}, layer {name!r}"
    message.where = where
    kind = message.text("type", "")
    if kind == "":
        raise ConvertError(f"{where}: the layer has no type")
    return Layer(name, kind, message.texts("bottom"), message.texts("top"), message, where)


def _included(message: Message, phase: str, level: int, stages: set[str]) -> bool:
    """NetStateRules: any include that holds keeps a layer; without includes, any exclude that holds drops it."""

    def holds(rule: Message) -> bool:
        return (
            rule.choice("phase", ["TRAIN", "TEST"], phase) == phase
            and rule.integer("min_level", level) <= level <= rule.integer("max_level", level)
            and set(rule.texts("stage")) <= stages
            and not set(rule.texts("not_stage")) & stages
        )

    includes, excludes = message.messages("include"), message.messages("exclude")
    if includes and excludes:
        raise ConvertError(f"{message.where}: include and exclude in one layer; Caffe allows one of them")
    return any(map(holds, includes)) if includes else not any(map(holds, excludes))


def _declared_inputs(message: Message, network: Network, wanted: dict) -> None:
    """``input:`` with ``input_shape`` or with four ``input_dim`` each."""
    names, shapes, dims = message.texts("input"), message.messages("input_shape"), message.integers("input_dim")
    for index, name in enumerate(names):
        shape = None
        if index < len(shapes):
            shape = shapes[index].integers("dim")
        elif len(dims) >= 4 * index + 4:
            shape = dims[4 * index : 4 * index + 4]
        _add_input(network, name, shape, wanted, message.where)


def _add_input(network: Network, name: str, shape: list[int] | None, wanted: dict, where: str) -> None:
    """An input of that shape; an empty one if nothing gives it, because not every input (a label) needs one."""
    if name in network.inputs:
        raise ConvertError(f"{where}: two inputs are called {name!r}")
    network.inputs[name] = check_shape(wanted.pop(name, shape) or [], f"{where}, input {name!r}")
    if 0 in network.inputs[name]:
        raise ConvertError(f"{where}: the input {name!r} of shape {network.inputs[name]} is empty")


def _blobs_from_outside(network: Network, wanted: dict) -> None:
    """Inputs of what --input_shape names and no layer of this phase writes."""
    written = {top for layer in network.layers for top in layer.tops}
    read = {bottom for layer in network.layers for bottom in layer.bottoms}
    for blob in [blob for blob in wanted if blob in read - written]:
        _add_input(network, blob, None, wanted, "--input_shape")


def _data_layer(layer: Layer, network: Network, wanted: dict) -> None:
    params = layer.params
    strange = [name for name in unknown(params, OF_LAYERS) if not name.endswith("_param") and name not in RULES]
    if strange:
        network.notes.append(f"{layer.name}: fields that were not understood and have no effect: {', '.join(strange)}")
    transform = params.message("transform_param")
    if "transform_param" in params:
        network.transform = transform
    shapes: list[list[int] | None] = []
    if layer.type == "Input":
        shapes = [shape.integers("dim") for shape in params.message("input_param").messages("shape")]
    elif layer.type == "DummyData":
        dummy = params.message("dummy_data_param")
        old = zip(*(dummy.integers(key) for key in ("num", "channels", "height", "width")), strict=False)
        shapes = [shape.integers("dim") for shape in dummy.messages("shape")] or [list(dims) for dims in old]
    elif layer.type == "MemoryData":
        memory = params.message("memory_data_param")
        dims = [memory.integer(key) for key in ("batch_size", "channels", "height", "width")]
        shapes = [dims, [dims[0]]]
    else:
        source = Message(layer.where)
        for name in ("data_param", "image_data_param", "window_data_param", "hdf5_data_param"):
            if name in params and layer.type in DATA_LAYERS:
                source = params.message(name)
        batch = source.integer("batch_size", 1)
        crop = transform.integer("crop_size", source.integer("crop_size", 0))
        resized = _resized(transform.message("resize_param"))
        height = crop or resized[0] or source.integer("new_height", 0)
        width = crop or resized[1] or source.integer("new_width", 0)
        gray = transform.flag("force_gray", False) or not source.flag("is_color", True)
        if height and width and layer.type != "HDF5Data":
            shapes = [[batch, 1 if gray else 3, height, width], [batch]]
    if shapes and len(shapes) < len(layer.tops):
        shapes = shapes * len(layer.tops) if len(shapes) == 1 else shapes
    for index, top in enumerate(layer.tops):
        _add_input(network, top, shapes[index] if index < len(shapes) else None, wanted, layer.where)


def _resized(params: Message) -> tuple[int, int]:
    """Height and width that SSD's data layers resize to; 0 where they depend on the image."""
    modes = ["", "WARP", "FIT_SMALL_SIZE", "FIT_LARGE_SIZE_AND_PAD"]
    if params.choice("resize_mode", modes, "WARP") == "FIT_SMALL_SIZE":
        return 0, 0
    return params.integer("height", 0), params.integer("width", 0)


def _check_graph(network: Network, known_elsewhere: set[str], phase: str) -> None:
    known = set(network.inputs)
    writers = {blob: layer.name for layer in reversed(network.layers) for blob in layer.tops}
    for layer in network.layers:
        for blob in layer.bottoms:
            if blob not in known:
                where = f"{layer.where}: reads the blob {blob!r}, which no layer before it writes"
                if blob in writers:
                    raise ConvertError(
                        f"{where}, but {writers[blob]!r} behind; Caffe runs layers as they follow each other"
                    )
                other = "train" if phase == "TEST" else "test"
                raise ConvertError(
                    f"{where} in this phase. Convert the other one with --phase {other}, or make the blob an input: "
                    f"--input_shape '{blob}=1,3,224,224'"
                    if blob in known_elsewhere
                    else where
                )
        for blob in layer.tops:
            if blob in known and blob not in layer.bottoms:
                raise ConvertError(f"{layer.where}: writes the blob {blob!r}, which another layer wrote already")
        known.update(layer.tops)


def _drop(network: Network, logits: bool) -> None:
    """Removes the layers of training, what reads their results or feeds them alone, and inputs that nobody reads then."""
    gone: set[str] = set()
    kept: list[Layer] = []
    losses = [layer for layer in network.layers if layer.type == "SoftmaxWithLoss"]
    names = {blob for layer in network.layers for blob in layer.tops} | network.inputs.keys()
    for layer in network.layers:
        if layer.type == "MarginInnerProduct":  # the label and the weight of the margin are for training
            layer.bottoms, layer.tops = layer.bottoms[:1], layer.tops[:1]
        if layer.type in DROPPED_LAYERS or layer.type.endswith(("Loss", "LossLayer")) or gone & set(layer.bottoms):
            probabilities = None if logits or gone & set(layer.bottoms) else _probabilities(layer, len(losses), names)
            left = f"; its probabilities are {probabilities.tops[0]}" if probabilities else ""
            network.notes.append(f"dropped {layer.name} ({layer.type}): needed for training only{left}")
            gone.update(set(layer.tops) - set(layer.bottoms))
            kept += [probabilities] if probabilities else []
        else:
            kept.append(layer)
    network.layers = kept
    _drop_labels(network)
    read = {blob for layer in network.layers for blob in layer.bottoms}
    for blob in [blob for blob in network.inputs if blob not in read]:
        network.notes.append(f"dropped the input {blob}: no layer that remains reads it")
        del network.inputs[blob]


def _probabilities(loss: Layer, losses: int, names: set[str]) -> Layer | None:
    """The Softmax inside a SoftmaxWithLoss, as a layer: what a deploy prototxt has in its place."""
    if loss.type != "SoftmaxWithLoss" or not loss.bottoms:
        return None
    name = "prob" if losses == 1 else f"{loss.bottoms[0]}_prob"
    while name in names:
        name += "_"
    names.add(name)
    kept = {key: values for key, values in loss.params.fields.items() if key == "softmax_param"}
    return Layer(name, "Softmax", loss.bottoms[:1], [name], Message(loss.where, kept), loss.where)


def _drop_labels(network: Network) -> None:
    """Removes layers that only pass labels to the layers that are gone: of inputs of unknown shape, nobody needs them."""
    labels = {blob for blob, shape in network.inputs.items() if not shape}
    passing: list[Layer] = []
    for layer in network.layers:
        if layer.bottoms and set(layer.bottoms) <= labels and layer.type in PASSING:
            passing.append(layer)
            labels.update(layer.tops)
    while True:
        read = {blob for layer in network.layers if layer not in passing for blob in layer.bottoms}
        needed = [layer for layer in passing if set(layer.tops) & read]
        if not needed:
            break
        passing = [layer for layer in passing if layer not in needed]
    for layer in passing if len(passing) < len(network.layers) else ():
        network.notes.append(f"dropped {layer.name} ({layer.type}): it passes labels on, which training needs only")
        network.layers.remove(layer)


# Old formats. V0 (until October 2013): layers { layer { name type <all fields> } bottom top }, padding as own layers.
# V1 (until 2014): layers { name type: ENUM bottom top <x>_param }. Rules: Caffe's util/upgrade_proto.cpp.

_V0_TYPES = {
    "accuracy": "Accuracy", "bnll": "BNLL", "concat": "Concat", "conv": "Convolution", "data": "Data",
    "dropout": "Dropout", "euclidean_loss": "EuclideanLoss", "flatten": "Flatten", "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output", "im2col": "Im2col", "images": "ImageData", "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct", "lrn": "LRN", "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling", "relu": "ReLU", "sigmoid": "Sigmoid", "softmax": "Softmax", "softmax_loss": "SoftmaxWithLoss",
    "split": "Split", "tanh": "TanH", "window_data": "WindowData",
}  # fmt: skip
_V0_MESSAGES = {
    "conv": "convolution_param", "innerproduct": "inner_product_param", "pool": "pooling_param",
    "dropout": "dropout_param", "lrn": "lrn_param", "concat": "concat_param", "data": "data_param",
    "images": "image_data_param", "window_data": "window_data_param", "hdf5_data": "hdf5_data_param",
}  # fmt: skip
_V0_FIELDS = {
    "num_output": "num_output", "biasterm": "bias_term", "weight_filler": "weight_filler", "bias_filler": "bias_filler",
    "pad": "pad", "kernelsize": "kernel_size", "group": "group", "stride": "stride", "pool": "pool",
    "dropout_ratio": "dropout_ratio", "local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k",
    "source": "source", "batchsize": "batch_size", "concat_dim": "concat_dim", "new_height": "new_height",
    "new_width": "new_width",
}  # fmt: skip
_V0_OTHERS = {"name", "type", "blobs", "rand_skip", "hdf5_output_param"}
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}


def _upgrade_v0(messages: list[Message]) -> list[Message]:
    if not any("layer" in message for message in messages):
        return messages
    result, padding = [], {}
    for message in messages:
        inner = message.message("layer")
        kind = inner.text("type", "")
        bottoms = message.texts("bottom")
        if kind == "padding":
            padding.update({top: (bottoms[0] if bottoms else "", inner.integer("pad")) for top in message.texts("top")})
            continue
        if kind not in _V0_TYPES:
            raise ConvertError(f"{message.where}: the layer type {kind!r} is none of Caffe's first format")
        upgraded = Message(message.where, {"name": [inner.text("name", "")], "type": [_V0_TYPES[kind]]})
        body, unknown_fields = Message(message.where), {}
        for old, values in inner.fields.items():
            if old in _V0_FIELDS:
                body.fields[_V0_FIELDS[old]] = values
            elif old not in _V0_TRANSFORM and old not in _V0_OTHERS:
                unknown_fields[old] = values
        if any(bottom in padding for bottom in bottoms):
            if kind not in ("conv", "pool") or len(bottoms) != 1:
                raise ConvertError(f"{message.where}: reads a padding layer, which only conv and pool layers can")
            source, pad = padding[bottoms[0]]
            bottoms, body.fields["pad"] = [source], [pad]
        upgraded.fields |= {"bottom": list(bottoms), "top": message.texts("top"), **unknown_fields}
        if kind in _V0_MESSAGES:
            upgraded.fields[_V0_MESSAGES[kind]] = [body]
        transform = {new: inner.values(old) for old, new in _V0_TRANSFORM.items() if old in inner}
        if transform:
            upgraded.fields["transform_param"] = [Message(message.where, transform)]
        result.append(upgraded)
    return result


def _upgrade_v1(message: Message) -> Message:
    names = {old: new for old, new in V1_TYPES.values()}
    kind = message.values("type")[-1] if "type" in message else ""
    if isinstance(kind, int):
        kind = V1_TYPES.get(kind, ("", kind))[1]
    elif isinstance(kind, Symbol):
        kind = names.get(kind, str(kind))
    if not isinstance(kind, str):
        raise ConvertError(f"{message.where}: type must be the name of a layer type")
    fields = {**message.fields, "type": [str(kind)]}
    if "param" in message:  # V1 shares parameters by bare names
        fields["param"] = [
            value if isinstance(value, Message) else Message(message.where, {"name": [value]})
            for value in message.values("param")
        ]
    data = [fields[name][-1] for name in ("data_param", "image_data_param", "window_data_param") if name in fields]
    if data and isinstance(data[0], Message) and "transform_param" not in fields:
        moved = {key: data[0].fields[key] for key in ("scale", "mean_file", "crop_size", "mirror") if key in data[0]}
        if moved:
            fields["transform_param"] = [Message(message.where, moved)]
    return Message(message.where, fields)
