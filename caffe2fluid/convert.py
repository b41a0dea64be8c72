"""Converts a Caffe net to Paddle.

    python caffe2fluid/convert.py deploy.prototxt --caffemodel net.caffemodel --output_dir DIR

writes DIR/model.py (code to read, edit and train), DIR/weights.safetensors, DIR/inference/ (an inference model, whose
parameters infer.py or --inference adds) and DIR/report.json. Without --caffemodel: code and report.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from caffe2fluid import quiet_paddle  # noqa: F401 before paddle
from caffe2fluid.caffemodel import read_caffemodel, read_mean
from caffe2fluid.codegen import input_variables, module_source
from caffe2fluid.converted import (
    CODE,
    FLUID,
    INFERENCE,
    OURS,
    REPORT,
    WEIGHTS,
    inference_parameters,
    open_converted,
    write_inference_graph,
)
from caffe2fluid.custom import load_custom_layers
from caffe2fluid.errors import ConvertError, run_script
from caffe2fluid.network import Network, read_network
from caffe2fluid.storage import (
    read_weights,
    replaced_file,
    replaced_folder,
    write_arrays,
    write_fluid_folder,
    write_safetensors,
)
from caffe2fluid.translate import Translation, translate


def convert(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    output: str | Path | None = None,
    *,
    phase: str = "TEST",
    level: int = 0,
    stages: tuple[str, ...] = (),
    input_shapes: dict[str, list[int]] | None = None,
    allow_missing: bool = False,
    code_path: str | Path | None = None,
    data_path: str | Path | None = None,
    overwrite: bool = False,
    any_size: bool = False,
    logits: bool = False,
    fluid: bool = False,
    inference: bool = False,
) -> Translation:
    """Converts a net; see the flags of the script. Raises ConvertError, and then has written nothing."""
    for path in (code_path, data_path):
        if path and Path(path).exists() and not overwrite:
            raise ConvertError(f"{path} exists; add --overwrite to write it again, or choose another name")
    network = read_network(prototxt, phase, level, stages, input_shapes, logits)
    weights = read_caffemodel(caffemodel) if caffemodel else None
    translation = translate(network, weights, phase, allow_missing, any_size)
    parameters = translation.parameters
    if data_path and not translation.has_weights:
        raise ConvertError("--data-output-path needs --caffemodel with all weights of the net")
    source = module_source(translation, Path(prototxt).name)
    if output:
        with replaced_folder(Path(output), OURS, overwrite) as folder:
            (folder / CODE).write_text(source, "utf-8")
            report = make_report(translation, Path(prototxt), Path(caffemodel) if caffemodel else None)
            if translation.has_weights:
                write_safetensors(folder / WEIGHTS, parameters, weights.release if weights else lambda: None)
                report["inference"] = write_inference_graph(folder, folder / INFERENCE)
            if translation.has_weights and fluid:
                write_fluid_folder(folder / FLUID, read_weights(folder / WEIGHTS))
            (folder / REPORT).write_text(json.dumps(report, indent=1), "utf-8")
            if inference:
                inference_parameters(open_converted(folder))
    if data_path:
        with replaced_file(Path(data_path)) as file:
            if Path(data_path).suffix == ".safetensors":
                write_safetensors(file, parameters, lambda: None)
            else:
                write_arrays(file, parameters)
    if code_path:
        with replaced_file(Path(code_path)) as file:
            file.write_text(source, "utf-8")
    return translation


def make_report(translation: Translation, prototxt: Path, caffemodel: Path | None) -> dict:
    """What report.json holds."""
    network, shapes = translation.network, translation.free_shapes
    variables = input_variables(translation)

    layers = []
    for node in translation.nodes:
        tops = node.scale.tops if node.scale else node.layer.tops
        layers.append(
            {
                "name": node.layer.name,
                "type": node.layer.type,
                "folded": [node.scale.name] if node.scale else [],
                "bottoms": node.layer.bottoms,
                "tops": tops[: len(node.values)],
                "shapes": node.output_shapes,
                "parameters": {name: parameter.shape for name, parameter in node.parameters.items()},
                "parameter_count": sum(math.prod(parameter.shape) for parameter in node.parameters.values()),
                "multiply_adds": node.multiply_adds,
            }
        )
    return {
        "name": network.name,
        "prototxt": prototxt.name,
        "caffemodel": caffemodel.name if caffemodel else None,
        "phase": translation.phase,
        "inputs": [
            {"name": name, "shape": shapes[name], "size": size, "variable": variables[name]}
            for name, size in network.inputs.items()
        ],
        "outputs": [{"name": name, "shape": shapes[name]} for name in translation.outputs],
        "parameters": sum(layer["parameter_count"] for layer in layers),
        "multiply_adds": sum(layer["multiply_adds"] for layer in layers),
        "transform": _transform(network, prototxt),
        "inference": None,
        "layers": layers,
        "notes": translation.notes,
    }


def _transform(network: Network, prototxt: Path) -> dict | None:
    """The preprocessing that transform_param of the data layer asks for; mean values in blue, green, red."""
    if network.transform is None:
        return None
    params = network.transform
    mean = params.numbers("mean_value")
    mean_file = params.text("mean_file", "")
    candidates = [Path(mean_file), prototxt.parent / mean_file, prototxt.parent / Path(mean_file).name]
    for path in candidates if mean_file else []:
        if path.is_file():
            mean = [float(value) for value in read_mean(path).mean((1, 2))]
            break
    return {
        "mean": mean,
        "mean_file": mean_file or None,
        "scale": params.number("scale", 1.0),
        "crop_size": params.integer("crop_size", 0) or None,
    }


def print_table(translation: Translation) -> None:
    """One line a layer: name, type, output shape, parameters, multiply-adds of one item of the batch."""
    rows = [("layer", "type", "output", "parameters", "multiply-adds")]
    for node in translation.nodes:
        kind = f"{node.layer.type}+Scale" if node.scale else node.layer.type
        shapes = " ".join("x".join(map(str, shape)) or "1" for shape in node.output_shapes)
        count = sum(math.prod(parameter.shape) for parameter in node.parameters.values())
        rows.append((_printable(node.layer.name), kind, shapes, f"{count:,}", f"{node.multiply_adds:,}"))
    count = sum(math.prod(parameter.shape) for parameter in translation.parameters.values())
    rows.append(("total", "", "", f"{count:,}", f"{sum(node.multiply_adds for node in translation.nodes):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False)]
        right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        print("  ".join(left + right))


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= 60 else repr(text)[:60]


def parse_shape(text: str) -> tuple[str, list[int]]:
    """NAME=N,C,H,W"""
    name, separator, dims = text.rpartition("=")
    try:
        shape = [int(dim) for dim in dims.split(",")]
    except ValueError:
        shape = []
    if not separator or not name or not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=1,3,224,224")
    return name, shape


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("def_path", metavar="NET.prototxt", help="definition of the net: deploy or train_val, any age")
    parser.add_argument("--caffemodel", metavar="FILE", help="weights")
    parser.add_argument("--output_dir", "--output", "-o", metavar="DIR", help="folder for everything")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the files of an earlier result; other files in its folder stay",
    )
    parser.add_argument("--code-output-path", "--code_output_path", metavar="X.py", help="write only the code here")
    parser.add_argument(
        "--data-output-path",
        "--data_output_path",
        metavar="X.npy",
        help="write only the weights here: safetensors if so named, else an archive that np.load reads without pickle",
    )
    parser.add_argument("--phase", "-p", type=str.lower, choices=["test", "train"], default="test")
    parser.add_argument("--level", type=int, default=0, help="NetState level for include and exclude rules")
    parser.add_argument("--stage", action="append", default=[], help="NetState stage, may be repeated")
    parser.add_argument(
        "--input_shape",
        "--input-shape",
        action="append",
        default=[],
        type=parse_shape,
        metavar="NAME=N,C,H,W",
        help="shape of an input that the prototxt does not give, or another one; may be repeated",
    )
    parser.add_argument(
        "--any_size",
        "--dynamic",
        action="store_true",
        help="images of any size: priors and anchors are computed from the size that comes; an error if the net cannot",
    )
    parser.add_argument("--fluid", action="store_true", help="the weights also as Fluid kept them, one file a variable")
    parser.add_argument(
        "--inference", action="store_true", help="the parameters of the inference model now, and not when it first runs"
    )
    parser.add_argument(
        "--logits", action="store_true", help="a SoftmaxWithLoss leaves its input, not its probabilities"
    )
    parser.add_argument("--custom_layers", "--custom-layers", action="append", default=[], metavar="FILE.py")
    parser.add_argument(
        "--allow_missing",
        "--allow-missing",
        action="store_true",
        help="layers without weights start as their fillers say",
    )
    args = parser.parse_args(argv)
    for name in ("caffemodel", "output_dir", "code_output_path", "data_output_path"):
        if getattr(args, name) == "":  # a variable of the shell that is not set
            parser.error(f"--{name} is empty")
    return args


def main(argv: list[str] | None = None) -> int:
    """Convert, and print a table of the layers and the notes."""
    args = parse(argv)
    load_custom_layers(args.custom_layers)
    translation = convert(
        args.def_path,
        args.caffemodel,
        args.output_dir,
        phase=args.phase.upper(),
        level=args.level,
        stages=tuple(args.stage),
        input_shapes=dict(args.input_shape),
        allow_missing=args.allow_missing,
        code_path=args.code_output_path,
        data_path=args.data_output_path,
        overwrite=args.overwrite,
        any_size=args.any_size,
        logits=args.logits,
        fluid=args.fluid,
        inference=args.inference,
    )
    print_table(translation)
    for name in translation.network.inputs:
        sizes = " x ".join("any" if size is None else str(size) for size in translation.free_shapes[name])
        print(f"input {_printable(name)}: {sizes}")
    for note in translation.notes:
        print(f"note: {_printable_line(note)}")
    if not (args.output_dir or args.code_output_path or args.data_output_path):
        print("note: nothing was written; name a folder with --output_dir")
    if args.output_dir:
        copies = [f"{FLUID}/"] if args.fluid else []
        parts = [CODE, REPORT] + ([WEIGHTS, f"{INFERENCE}/", *copies] if translation.has_weights else [])
        print(f"{args.output_dir}: {', '.join(parts)}")
        if not translation.has_weights:
            print("note: no weights and no inference model, because some parameters have no values")
    return 0


def _printable_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


if __name__ == "__main__":
    run_script(main)
