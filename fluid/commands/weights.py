"""./zoo weights convert IN OUT: weights from any readable format to the one OUT's suffix asks for."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fluid.errors import DataError
from fluid.run import script
from fluid.weights import convert


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
    command.add_argument("source", type=Path, metavar="IN")
    command.add_argument("target", type=Path, metavar="OUT")
    command.add_argument("--names", type=Path, help="text file with the variables of a combined file, one name a line")
    args = parser.parse_args(argv)
    written = convert(args.source, args.target, None if args.names is None else read_names(args.names))
    size = sum(array.nbytes for array in written.values())
    print(f"{args.target}: {len(written)} arrays, {size / 1e6:.1f} MB")


def read_names(path: Path) -> list[str]:
    """One name a line; blank lines do not count. Raises DataError."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list of names ({error}).") from error


if __name__ == "__main__":
    script(main)
