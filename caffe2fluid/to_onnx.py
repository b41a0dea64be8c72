"""A converted net as ONNX, by paddle2onnx, with what it gets wrong put right, and compared in ONNX Runtime.

Suppression of boxes is written here, because paddle2onnx makes another one of it: in the net stand boxes and scores, and the
nodes behind them choose. The value that padding fills in, paddle2onnx 2.1 takes from memory that nobody wrote.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import quiet_paddle  # noqa: F401 before paddle
from .converted import (
    CODE,
    PARAMETERS,
    Converted,
    chosen_weights,
    load_module,
    run_blobs,
    running,
    static_graph,
    write_graph,
)
from .errors import ConvertError
from .storage import read_weights, replaced_file, write_combined

OPSET = 17
TOLERANCE = 1e-4  # of the largest value


@dataclass
class Choice:
    """A suppression that was taken out of the graph: the values it gets, its settings, and what stands in its place."""

    write: Callable[[Nodes, list[str], dict[str, Any]], str]
    inputs: list[Any]
    settings: dict[str, Any]
    instead: Any


@dataclass
class Nodes:
    """Nodes to append to an ONNX graph; a call makes one and returns the name of its value."""

    onnx: Any
    prefix: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def __call__(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{self.prefix}/{kind}_{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, kind: str = "int64") -> str:
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.array(value, kind), name))
        return name

    def size(self, values: str, axis: int) -> str:
        return self("Gather", self("Shape", values), self.constant([axis]))

    def columns(self, *vectors: str, matrix: str) -> str:
        """Vectors and then the columns of a matrix, float32."""
        parts = [self("Unsqueeze", self("Cast", vector, to=1), self.constant([1])) for vector in vectors]
        return self("Concat", *parts, matrix, axis=1)

    def rows_or(self, rows: str, nothing: str) -> str:
        """The rows as [1, 1, rows, 7], or those of ``nothing`` if there are none."""
        found = self.size(rows, 0)
        count = self("Where", self("Equal", found, self.constant([0])), self.size(nothing, 0), found)
        both = self("Concat", rows, nothing, axis=0)
        kept = self("Slice", both, self.constant([0]), count, self.constant([0]))
        return self("Reshape", kept, self.constant([1, 1, -1, 7]))


def _detections(module: Any, location, confidence, priors, **settings: Any) -> Choice:
    """Boxes [N, P, 1 or classes, 4] and scores [N, classes, P] of SSD's DetectionOutput."""
    import paddle

    classes = settings["num_classes"]
    groups = 1 if settings["share_location"] else classes
    location = paddle.reshape(location, [0, -1, groups, 4])
    boxes = module.decode_boxes(location, priors, settings["code_type"], settings["variance_encoded"])
    scores = paddle.transpose(paddle.reshape(confidence, [0, -1, classes]), [0, 2, 1])
    if settings["nms_eta"] != 1:
        raise ConvertError("ONNX knows no suppression with eta; export the blobs before DetectionOutput (--blobs)")
    return Choice(_write_detections, [boxes, scores], settings, scores)


def _write_detections(node: Nodes, values: list[str], settings: dict[str, Any]) -> str:
    """Each class of each image is a batch of its own for NonMaxSuppression, of the nms_top_k best of it."""
    boxes, scores = values
    classes = [label for label in range(settings["num_classes"]) if label != settings["background"]]
    count, shared = node.constant([len(classes)]), settings["share_location"]
    scores = node("Gather", scores, node.constant(classes), axis=1)  # [N, classes, P]
    images, top = node.size(scores, 0), node.size(scores, 2)
    if settings["nms_top_k"] > 0:
        top = node("Min", top, node.constant([settings["nms_top_k"]]))
    scores, index = node("TopK", scores, top, outputs=2, axis=2)
    index = node("Unsqueeze", index, node.constant([3]))
    if shared:
        boxes = node("Squeeze", boxes, node.constant([2]))
    else:
        boxes = node("Gather", node("Transpose", boxes, perm=[0, 2, 1, 3]), node.constant(classes), axis=1)
    boxes = node("GatherND", boxes, index, batch_dims=1 if shared else 2)  # [N, classes, top, 4]
    boxes = node("Reshape", boxes, node("Concat", node.constant([-1]), top, node.constant([4]), axis=0))
    scores = node("Reshape", scores, node("Concat", node.constant([-1, 1]), top, axis=0))
    limits = node.constant(settings["nms_threshold"], "float32"), node.constant(settings["threshold"], "float32")
    chosen = node("NonMaxSuppression", boxes, scores, top, *limits)  # [M, 3]: batch, 0, position
    batch = node("Gather", chosen, node.constant(0), axis=1)
    place = node("Gather", chosen, node.constant([0, 2]), axis=1)
    score, image = node("GatherND", scores, chosen), node("Div", batch, count)
    if settings["keep_top_k"] > 0:
        # Rank within the image: the running count of its boxes, best first.
        order = node("TopK", score, node.size(score, 0), outputs=2, axis=0)[1]
        owner = node("Unsqueeze", node("Gather", image, order), node.constant([1]))
        every = node("Range", node.constant(0), node("Squeeze", images), node.constant(1))
        own = node("Cast", node("Equal", owner, every), to=1)
        rank = node(
            "ReduceSum", node("Mul", node("CumSum", own, node.constant(0)), own), node.constant([1]), keepdims=0
        )
        kept = node("LessOrEqual", rank, node.constant(settings["keep_top_k"], "float32"))
        kept = node("Compress", order, kept, axis=0)
        kept = node("TopK", kept, node.size(kept, 0), outputs=2, axis=0, largest=0)[0]
        batch, place, score, image = (node("Gather", value, kept) for value in (batch, place, score, image))
    label = node("Gather", node.constant(classes), node("Mod", batch, count))
    rows = node.columns(image, label, score, matrix=node("GatherND", boxes, place))
    index = node("Range", node.constant(0), node("Squeeze", images), node.constant(1))
    nothing = node("Concat", images, node.constant([6]), axis=0)
    nothing = node("ConstantOfShape", nothing, value=node.onnx.numpy_helper.from_array(np.float32([-1])))
    return node.rows_or(rows, node.columns(index, matrix=nothing))


def _suppressed(module: Any, boxes, scores, labels, threshold: float, overlap: float) -> Choice:
    """YOLO's: boxes [M, 4], scores and labels [M]; one suppression for all labels."""
    return Choice(_write_suppressed, [boxes, scores, labels], {"limits": [overlap, threshold]}, scores)


def _write_suppressed(node: Nodes, values: list[str], settings: dict[str, Any]) -> str:
    boxes, scores, labels = values
    limits = (node.constant(limit, "float32") for limit in settings["limits"])
    batch = node("Unsqueeze", boxes, node.constant([0])), node("Unsqueeze", scores, node.constant([0, 1]))
    chosen = node("NonMaxSuppression", *batch, node.size(scores, 0), *limits)
    kept = node("Gather", chosen, node.constant(2), axis=1)
    label = node("Add", node("Cast", node("Gather", labels, kept), to=1), node.constant(1, "float32"))
    image = node("Gather", chosen, node.constant(0), axis=1)
    rows = node.columns(image, label, node("Gather", scores, kept), matrix=node("Gather", boxes, kept))
    return node.rows_or(rows, node.constant([[0.0] + [-1.0] * 6], "float32"))


TAKEN_OUT = {"detection_output": _detections, "suppressed": _suppressed}
"""Functions of model.py by what notes their inputs instead."""


def write_onnx(
    converted: Converted, target: Path, weights: Path, blobs: list[str], feed: dict[str, np.ndarray]
) -> None:
    """Writes the file, with these blobs as outputs, after what ONNX Runtime computes for the feed equals what Paddle does.

    Raises ConvertError where packages are missing, something of the net has no ONNX, or the results differ.
    """
    packages = ("paddle2onnx", "onnx", "onnxruntime")
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ConvertError(f"--onnx needs {', '.join(missing)}: pip install {' '.join(packages)}")
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        pads, choices = _write_paddle(converted, Path(folder), weights, blobs)
        parameters = Path(folder, PARAMETERS)
        by_paddle2onnx(f"{folder}/model.json", str(parameters) if parameters.exists() else "", f"{folder}/net.onnx")
        model = onnx.load(f"{folder}/net.onnx")
    _fill_pads(onnx, model.graph, pads)
    _name_inputs(model.graph, converted)
    _write_outputs(onnx, model.graph, blobs, choices)
    content = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        taken = {entry.name for entry in session.get_inputs()}
        results = session.run(None, {name: array for name, array in feed.items() if name in taken})
    except Exception as error:  # ONNX Runtime's own errors have no class in common
        raise ConvertError(f"ONNX Runtime does not run what was written: {str(error).splitlines()[0]}") from None
    theirs = dict(run_blobs(converted, feed, blobs, weights))
    for blob, ours in zip(blobs, results, strict=True):
        _compare(blob, ours, theirs[blob])
    with replaced_file(target) as file:
        file.write_bytes(content)


PADDLE2ONNX = f"import paddle2onnx, sys; paddle2onnx.export(*sys.argv[1:], opset_version={OPSET}, optimize_tool='None')"


def by_paddle2onnx(model: str, parameters: str, target: str) -> None:
    """Runs it in a process of its own, which it ends where it lacks an operation. Raises ConvertError with its words then."""
    command = [sys.executable, "-c", PADDLE2ONNX, model, parameters, target]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not Path(target).exists():
        said = re.findall(r"\[ERROR\]\[Paddle2ONNX\] (.*)", done.stdout + done.stderr)
        reason = said[0] if said else f"it ended with code {done.returncode}"
        raise ConvertError(f"paddle2onnx cannot write this net: {reason} Export blobs before that layer (--blobs)")


def _write_paddle(
    converted: Converted, folder: Path, weights: Path, blobs: list[str]
) -> tuple[list[float], dict[str, Choice]]:
    """Writes the graph without suppressions; returns the values of its paddings, in order, and the suppressions by blob."""
    taken: list[Choice] = []

    def taking(note: Callable[..., Choice], module: Any) -> Callable[..., Any]:
        def take(*values: Any, **settings: Any) -> Any:
            taken.append(note(module, *values, **settings))
            return taken[-1].instead

        return take

    with static_graph():
        with running(converted.folder / CODE):
            module = load_module(converted.folder / CODE)
            for name in TAKEN_OUT.keys() & vars(module).keys():
                setattr(module, name, taking(TAKEN_OUT[name], module))
            _, program, _, inputs, values = module.build()
        choices = {blob: choice for blob in blobs for choice in taken if values[blob] is choice.instead}
        outputs = [value for blob in blobs for value in (choices[blob].inputs if blob in choices else [values[blob]])]
        if len(choices) < len(taken):
            raise ConvertError(
                "boxes must be outputs for ONNX, and not be read by layers; export blobs before (--blobs)"
            )
        shapes = write_graph(program, module.inputs_of(outputs, inputs.values()), outputs, folder)
        if shapes:
            write_combined(folder / PARAMETERS, chosen_weights(weights, read_weights(weights), shapes))
        pads = [op.attrs()["pad_value"] for op in program.global_block().ops if op.name() == "pd_op.pad3d"]
    return pads, choices


def _fill_pads(onnx: Any, graph: Any, values: list[float]) -> None:
    """Gives each padding the value that it has in Paddle."""
    pads = [node for node in graph.node if node.op_type == "Pad" and "pad3d" in node.output[0]]
    if len(pads) != len(values):
        raise ConvertError(f"paddle2onnx wrote {len(pads)} paddings, the net has {len(values)}")
    for index, (node, value) in enumerate(zip(pads, values, strict=True)):
        if len(node.input) > 2:
            node.input[2] = f"pad_value_{index}"
            graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), node.input[2]))


def _name_inputs(graph: Any, converted: Converted) -> None:
    """Inputs get the names of their blobs."""
    blob = {entry["variable"]: entry["name"] for entry in converted.report["inputs"]}
    for entry in graph.input:
        entry.name = blob[entry.name]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = blob.get(name, name)


def _write_outputs(onnx: Any, graph: Any, blobs: list[str], choices: dict[str, Choice]) -> None:
    """Appends the suppressions; outputs get the names of their blobs."""
    written = [entry.name for entry in graph.output]
    used = {name for node in graph.node for name in node.output} | {entry.name for entry in graph.input}
    del graph.output[:]
    for blob in blobs:
        nodes = Nodes(onnx, f"{blob}/choice")
        choice = choices.get(blob)
        if choice is None:
            value = written.pop(0)
        else:
            count = len(choice.inputs)
            value = choice.write(nodes, written[:count], choice.settings)
            del written[:count]
        name = blob if blob not in used else f"{blob}_output"
        nodes.nodes.append(onnx.helper.make_node("Identity", [value], [name]))
        graph.node.extend(nodes.nodes)
        graph.initializer.extend(nodes.constants)
        graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))


def _compare(blob: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    said = f"ONNX Runtime computes something else for {blob}"
    if ours.shape != theirs.shape:
        raise ConvertError(
            f"{said}: the shape {list(ours.shape)}, not {list(theirs.shape)}; export blobs before it (--blobs)"
        )
    largest = max(float(np.abs(theirs).max(initial=0)), 1e-30)
    difference = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0)) / largest
    if not difference <= TOLERANCE:
        raise ConvertError(f"{said}: {difference:.2g} of the largest value; export blobs before it (--blobs)")
