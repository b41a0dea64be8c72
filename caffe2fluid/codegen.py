"""Writes a translated network as a Python module that needs Paddle only."""

from __future__ import annotations

import inspect
import re

from . import operators
from .errors import number_of
from .layers import Node
from .names import BUILTINS, MODULES, Names, comment, literal, quoted
from .translate import Translation

WIDTH = 120
OF_MODULE = {
    "build",
    "load_weights",
    "save_weights",
    "set_rates",
    "MULTIPLIERS",
    "inputs_of",
    "main",
    "INPUTS",
    "OUTPUTS",
    *MODULES,
    *vars(operators),
}


def input_variables(translation: Translation) -> dict[str, str]:
    """The arguments of ``forward`` by input blob, which are also the names of the inference model's inputs."""
    own = {name for node in translation.nodes for name in node.sources}
    names = Names({"self", "blob", "float", *OF_MODULE, *own})
    return {name: names(name) for name in translation.network.inputs}


def module_source(translation: Translation, source: str) -> str:
    """The text of the module; ``source`` is the name of the prototxt, for the docstring.

    Raises ConvertError for functions of custom layers whose names hide another's.
    """
    network = translation.network
    custom = _custom_functions(translation.nodes)
    class_name = Names(OF_MODULE | BUILTINS | custom.keys())(network.name[:1].upper() + network.name[1:] or "Net")
    inputs = input_variables(translation)
    total = sum(_count(p.shape) for p in translation.parameters.values())
    shapes = {name: translation.free_shapes[name] for name in network.inputs}
    lines = [
        f'"""{comment(network.name or class_name)}: {number_of(len(translation.nodes), "layer")}, {number_of(total, "parameter")}.',
        "",
        f"Converted from the Caffe net {comment(source)} (phase {translation.phase}). `forward` follows the prototxt line by",
        "line and keeps Caffe's names: blob[name] is the blob of that name. This file is yours to edit; it needs Paddle only.",
        "",
        "    python model.py weights.safetensors OUTPUT_DIR [BLOB,BLOB... | dump_all]    writes an inference model",
        '"""',
        "",
        "import sys",
        "",
        "import numpy as np",
        "import paddle",
        "import paddle.nn as nn",
        "import paddle.nn.functional as F",
        "",
        f"INPUTS = {{{', '.join(f'{quoted(name)}: {shape}' for name, shape in shapes.items())}}}  # None: any size",
        f"OUTPUTS = [{', '.join(map(quoted, translation.outputs))}]",
        *_multipliers(translation),
        "",
    ]
    lines += [f"\n{source.rstrip()}\n" for source in [*_helpers(translation.nodes), *custom.values()]]
    lines += ["", f"class {class_name}(nn.Layer):", "    def __init__(self):", "        super().__init__()"]
    for node in translation.nodes:
        lines += [line for statement in node.init for line in _wrap(statement, 8)]
    lines += [
        "",
        f"    def forward(self, {', '.join(inputs.values())}, blob=None):",
        '        """Returns all blobs by name; a layer that works in place overwrites. Pass a mapping to be filled."""',
        "        blob = {} if blob is None else blob",
    ]
    lines += [f"        blob[{quoted(name)}] = {argument}" for name, argument in inputs.items()]
    for node in translation.nodes:
        lines += _statements(node)
    feeds = "".join(
        f"            {quoted(name)}: paddle.static.data({quoted(argument)}, INPUTS[{quoted(name)}]),\n"
        for name, argument in inputs.items()
    )
    parts = {"Network()": f"{class_name}()", "FEEDS": feeds}
    lines += ["        return blob", "", "", re.sub(r"Network\(\)|FEEDS", lambda found: parts[found[0]], _FOOTER)]
    return "\n".join(lines)


def _multipliers(translation: Translation) -> list[str]:
    """Source of the parameters that train at another rate or decay than the rest."""
    others = {name: p.multipliers for name, p in translation.parameters.items() if p.multipliers != (1.0, 1.0)}
    entries = [f"    {quoted(name)}: {literal(pair)}," for name, pair in others.items()]
    return [
        "# What Caffe's solver multiplies the learning rate and the weight decay of a parameter by (others: 1, 1).",
        *(["MULTIPLIERS = {", *entries, "}"] if entries else ["MULTIPLIERS = {}"]),
    ]


def _count(shape: list[int]) -> int:
    total = 1
    for dim in shape:
        total *= dim
    return total


def _statements(node: Node) -> list[str]:
    layer = node.layer
    tops = node.scale.tops if node.scale else layer.tops
    kind = f"{layer.type} + Scale" if node.scale else layer.type
    lines = []
    for top, value, shape in zip(tops, node.values, node.output_shapes, strict=False):
        statement = f"        blob[{quoted(top)}] = {value}"
        note = f"  # {comment(layer.name)}: {comment(kind)} {shape}"
        if len(statement + note) <= WIDTH:
            lines.append(statement + note)
        else:
            lines += ["        " + note.strip(), *_wrap(statement.strip(), 8)]
    return lines


def _wrap(statement: str, indent: int) -> list[str]:
    """Breaks a statement that is too long at the commas of its brackets."""
    pad = " " * indent
    if len(pad + statement) <= WIDTH:
        return [pad + statement]
    lines, current = [], pad
    for piece in re.findall(r"(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^,'\"])*(?:, |,|$)", statement):
        if len(current) + len(piece) > WIDTH and current.strip():
            lines.append(current.rstrip())
            current = pad + "    "
        current += piece
    return [*lines, current.rstrip()]


def _helpers(nodes: list[Node]) -> list[str]:
    """The source of the operators that the layers use, what they call first."""
    wanted: list[str] = []
    for node in nodes:
        for name in sorted(node.helpers):
            wanted += [*operators.DEPENDENCIES.get(name, []), name]
    return [inspect.getsource(getattr(operators, name)) for name in dict.fromkeys(wanted)]


def _custom_functions(nodes: list[Node]) -> dict[str, str]:
    """The source of the functions of custom layers by their names."""
    result: dict[str, str] = {}
    for node in nodes:
        for name, source in node.sources.items():
            if not name.isidentifier() or name in OF_MODULE | BUILTINS:
                raise node.error(f"the function of a custom layer cannot be called {name}; write def with another name")
            if result.setdefault(name, source) != source:
                raise node.error(f"two custom layers have a function called {name}; give one of them another name")
    return result


_FOOTER = '''def build(training=False, weight_decay=0.0):
    """The net as static graph: its network object, Program, startup Program, inputs and blobs by name.

    For training, each parameter gets its learning rate and its share of the weight decay (give the optimizer none).
    """
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard():
        network = Network()
        if training:
            set_rates(network, weight_decay)
        else:
            network.eval()
        inputs = {
FEEDS        }
        return network, main, startup, inputs, network(*inputs.values())


def set_rates(network, weight_decay=0.0):
    """Gives each parameter the learning rate and weight decay of the prototxt; a rate of 0 fixes it."""
    for parameter in network.parameters():
        rate, decay = MULTIPLIERS.get(parameter.name, (1.0, 1.0))
        parameter.optimize_attr["learning_rate"] = rate
        if weight_decay:
            parameter.regularizer = paddle.regularizer.L2Decay(weight_decay * decay)
        if rate == 0:
            parameter.stop_gradient = True


def load_weights(network, path, scope=None):
    """Reads weights.safetensors (or an archive of NumPy arrays) into the network, built as static graph or not."""
    if str(path).endswith(".safetensors"):
        from safetensors.numpy import load_file

        weights = load_file(path)
    else:
        with np.load(path, allow_pickle=False) as archive:
            weights = dict(archive)
    for parameter in {id(p): p for p in network.state_dict().values()}.values():
        if parameter.name not in weights:
            raise KeyError(f"{path} has no {parameter.name}")
        array = weights[parameter.name]
        if list(array.shape) != list(parameter.shape):
            raise ValueError(f"{path}: {parameter.name} is {array.shape}, the network wants {parameter.shape}")
        if paddle.in_dynamic_mode():
            parameter.set_value(array)
        else:
            tensor = (scope or paddle.static.global_scope()).find_var(parameter.name).get_tensor()
            tensor.set(array, paddle.CPUPlace())


def save_weights(network, path, scope=None):
    """Writes the weights of the network, built as static graph or not, as load_weights and export.py read them."""
    from safetensors.numpy import save_file

    scope, weights = scope or paddle.static.global_scope(), {}
    for parameter in network.state_dict().values():
        dynamic = paddle.in_dynamic_mode()
        value = parameter.numpy() if dynamic else np.array(scope.find_var(parameter.name).get_tensor())
        weights[parameter.name] = np.ascontiguousarray(value)
    save_file(weights, path)


def inputs_of(outputs, inputs):
    """The inputs that the outputs depend on: an inference model takes no others (one may only give a size)."""
    seen, todo = set(), list(outputs)
    while todo:
        operation = todo.pop().get_defining_op()
        if operation is not None and operation.id() not in seen:
            seen.add(operation.id())
            todo += operation.operands_source()
    return [value for value in inputs if value.get_defining_op().id() in seen]


def main(weights, directory, blobs=None):
    """Writes an inference model: DIRECTORY/model.json and model.pdiparams."""
    paddle.enable_static()
    network, program, startup, inputs, values = build()
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(startup)
    load_weights(network, weights)
    names = list(values) if blobs == "dump_all" else blobs.split(",") if blobs else OUTPUTS
    outputs = [values[name] for name in names]
    feeds = inputs_of(outputs, inputs.values())
    paddle.static.save_inference_model(f"{directory}/model", feeds, outputs, executor, program=program)


if __name__ == "__main__":
    main(*sys.argv[1:])
'''
