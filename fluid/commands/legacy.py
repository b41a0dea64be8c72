"""./zoo legacy run DIR --feed in.npz --fetch out.npz, and ./zoo legacy convert DIR OUT: inference models of 2018-2020."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fluid.arrays import read_npz, write_npz
from fluid.formats.legacy_model import convert_model, run_model
from fluid.run import script


def main(argv: Sequence[str] | None = None) -> None:
    """Run or convert, and say what was written; raises UserError, a wrong flag exits with code 2."""
    parser = argparse.ArgumentParser(prog="zoo legacy", description="Inference models that Fluid saved in 2018-2020.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a model on arrays", allow_abbrev=False)
    folder_help = "folder with __model__ and one file a variable, or with model and params"
    run.add_argument("folder", type=Path, metavar="DIR", help=folder_help)
    run.add_argument("--feed", type=Path, required=True, help="arrays by input name; NAME.lod: offsets of sequences")
    run.add_argument("--fetch", type=Path, required=True, help="where the outputs go, by output name")
    run.add_argument("--onednn", action="store_true", help="use the oneDNN kernels: faster, last digits differ")
    convert = commands.add_parser("convert", help="write it as a current Paddle inference model", allow_abbrev=False)
    convert.add_argument("folder", type=Path, metavar="DIR", help=folder_help)
    convert.add_argument("target", type=Path, metavar="OUT", help="new folder for inference.json, inference.pdiparams")
    args = parser.parse_args(argv)
    if args.command == "convert":
        for file in convert_model(args.folder, args.target):
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
        return
    outputs = run_model(args.folder, read_npz(args.feed), args.onednn)
    write_npz(args.fetch, outputs)
    for name, array in outputs.items():
        print(f"{name}: {array.dtype} {list(array.shape)}")


if __name__ == "__main__":
    script(main)
