"""./zoo weights convert IN OUT: weights from any readable format to the one OUT's suffix asks for.

./zoo weights compact IN OUT --storage int8: the same weights in one small file that says what they are.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fluid.errors import WeightsError
from fluid.run import script
from fluid.text import number_of, read_lines
from fluid.weights import compact, convert, read_weights

import numpy as np


def main(argv: Sequence[str] | None = None) -> None:
    """Convert and say what was written; raises UserError, a wrong flag exits with code 2."""
    parser = argparse.ArgumentParser(prog="zoo weights", description="Convert weights between formats.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "convert",
        allow_abbrev=False,
        help="convert weights from one format to another",
        description="Read a Fluid folder, an inference model, an archive, a checkpoint, .safetensors or .pdparams; "
        "write a .safetensors or .pdparams file, or (no suffix) a Fluid folder of one file a variable. Optimizer state "
        "is left out.",
    )
    smaller = commands.add_parser(
        "compact",
        allow_abbrev=False,
        help="store weights in half precision, 8 or 6 bits",
        description="Read weights of any format and write a .safetensors file that says what they are, which every script "
        "opens like any other. What it costs in accuracy is measured by export.py --storage.",
    )
    for one in (command, smaller):
        one.add_argument("source", type=Path, metavar="IN")
        one.add_argument("target", type=Path, metavar="OUT")
        one.add_argument("--names", type=Path, help="text file with the variables of a combined file, one name a line")
    smaller.add_argument("--storage", choices=compact.STORAGES, default="int8", help="by default int8")
    args = parser.parse_args(argv)
    names = None if args.names is None else [line.strip() for line in read_lines(args.names) if line.strip()]
    if args.command == "convert":
        written = convert(args.source, args.target, names)
        size = sum(array.nbytes for array in written.values())
        print(f"{args.target}: {number_of(len(written), 'array')}, {size / 1e6:.1f} MB")
    else:
        write_compact(args.source, args.target, args.storage, names)


def write_compact(source: Path, target: Path, storage: compact.Storage, names: list[str] | None) -> None:
    """Write `source` as a compact file and say how far its numbers are off. Raises WeightsError."""
    if target.suffix != ".safetensors":
        raise WeightsError(f"{target}: a compact file is called NAME.safetensors.")
    weights = read_weights(source, names)
    compact.write(target, weights, compact.describe_source(source, storage))
    off, own = np.zeros(2)
    for name, array in compact.read(target)[0].items():
        off += np.square(np.subtract(array, weights[name], dtype=np.float64)).sum()
        own += np.square(weights[name], dtype=np.float64).sum()
    print(
        f"{target}: {number_of(len(weights), 'array')}, {target.stat().st_size / 1e6:.1f} MB; off by {(off / own) ** 0.5:.2e} of their "
        "size (root mean square)"
    )


if __name__ == "__main__":
    script(main)
