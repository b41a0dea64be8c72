"""Writes the inference model of a converted net: again after training or editing model.py, or with other outputs.

python caffe2fluid/export.py DIR                                          into DIR/inference
python caffe2fluid/export.py DIR --weights trained.safetensors --export_dir DEPLOY
python caffe2fluid/export.py DIR --blobs fc7,prob --export_dir DEPLOY      these blobs instead of the net's outputs
python caffe2fluid/export.py DIR --onnx net.onnx                          ONNX instead, compared in ONNX Runtime
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from caffe2fluid.converted import (
    INFERENCE,
    WEIGHTS,
    known_blobs,
    open_converted,
    random_feed,
    read_feed,
    write_inference_model,
)
from caffe2fluid.errors import run_script
from caffe2fluid.storage import replaced_folder
from caffe2fluid.to_onnx import write_onnx


def main(argv: list[str] | None = None) -> int:
    """Write the inference model, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="DIR", help="folder that convert.py wrote")
    parser.add_argument("--weights", metavar="FILE", help="safetensors or arrays of np.savez (default: those in DIR)")
    parser.add_argument("--blobs", metavar="A,B", help="outputs (default: those of the net)")
    parser.add_argument("--export_dir", metavar="DIR", help="folder to write (default: DIR/inference)")
    parser.add_argument("--onnx", metavar="FILE", help="file to write instead of an inference model")
    parser.add_argument(
        "--feed", metavar="FILE", help="with --onnx: arrays of inputs to compare it on (default: random)"
    )
    args = parser.parse_args(argv)
    if args.blobs and not args.export_dir and not args.onnx:
        parser.error("--blobs needs --export_dir: infer.py expects the net's own outputs in DIR/inference")
    if args.onnx and args.export_dir or args.feed and not args.onnx:
        parser.error("--onnx and --export_dir exclude each other, and --feed belongs to --onnx")

    converted = open_converted(args.model)
    weights = Path(args.weights) if args.weights else converted.folder / WEIGHTS
    blobs = ",".join(known_blobs(converted, args.blobs)) if args.blobs else None
    if args.onnx:
        feed = read_feed(args.feed) if args.feed else random_feed(converted, seed=0)
        names = blobs.split(",") if blobs else converted.outputs
        write_onnx(converted, Path(args.onnx), weights, names, feed)
        print(f"{args.onnx}: outputs {', '.join(names)}, as in Paddle")
        return 0
    target = Path(args.export_dir) if args.export_dir else converted.folder / INFERENCE
    with replaced_folder(target, ("model.pdiparams", "model.json"), overwrite=True) as folder:
        write_inference_model(converted.folder, folder, weights, blobs)
    print(f"{target}: model.json, model.pdiparams; outputs {blobs or ', '.join(converted.outputs)}")
    return 0


if __name__ == "__main__":
    run_script(main)
