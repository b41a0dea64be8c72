"""The commands behind `./zoo weights`, `./zoo legacy` and `./zoo list weights`.

Each takes the words that follow its name, prints its result, and raises UserError; a wrong flag exits with code 2.
"""

import argparse
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from fluid import legacy_model, registry, weights
from fluid.errors import DataError

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]


def weights_main(argv: Sequence[str]) -> None:
    """`./zoo weights convert IN OUT`: weights from any readable format to the one OUT's suffix asks for."""
    parser = argparse.ArgumentParser(
        prog="zoo weights", description="Convert weights between formats.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser(
        "convert",
        allow_abbrev=False,
        help="convert weights from one format to another",
        description="Read a Fluid folder, an inference model, an archive, a checkpoint, .safetensors or .pdparams; write "
        "a .safetensors or .pdparams file, or (no suffix) a Fluid folder of one file a variable. Optimizer state is left "
        "out.",
    )
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", type=Path, metavar="OUT")
    convert.add_argument("--names", type=Path, help="text file with the variables of a combined file, one name a line")
    args = parser.parse_args(argv)
    names = None if args.names is None else _read_names(args.names)
    written = weights.convert(args.source, args.target, names)
    size = sum(array.nbytes for array in written.values())
    print(f"{args.target}: {len(written)} arrays, {size / 1e6:.1f} MB")


def legacy_main(argv: Sequence[str]) -> None:
    """`./zoo legacy run DIR --feed in.npz --fetch out.npz` and `./zoo legacy convert DIR OUT`."""
    parser = argparse.ArgumentParser(
        prog="zoo legacy", description="Inference models that Fluid saved in 2018-2020.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a model on arrays", allow_abbrev=False)
    run.add_argument(
        "folder", type=Path, metavar="DIR", help="folder with __model__ and one file a variable, or model and params"
    )
    run.add_argument(
        "--feed", type=Path, required=True, help="arrays by input name; NAME.lod holds the offsets of sequences"
    )
    run.add_argument("--fetch", type=Path, required=True, help="where the outputs go, by output name")
    run.add_argument("--onednn", action="store_true", help="use the oneDNN kernels: faster, last digits differ")
    convert = commands.add_parser("convert", help="write it as a current Paddle inference model", allow_abbrev=False)
    convert.add_argument("folder", type=Path, metavar="DIR")
    convert.add_argument(
        "target", type=Path, metavar="OUT", help="new folder for inference.json and inference.pdiparams"
    )
    args = parser.parse_args(argv)
    if args.command == "convert":
        for file in legacy_model.convert_model(args.folder, args.target):
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
        return
    outputs = legacy_model.run_model(args.folder, read_npz(args.feed), args.onednn)
    write_npz(args.fetch, outputs)
    for name, array in outputs.items():
        print(f"{name}: {array.dtype} {list(array.shape)}")


def list_weights_main(argv: Sequence[str]) -> None:
    """`./zoo list weights [TASK]`: the released weights whose networks are here."""
    parser = argparse.ArgumentParser(prog="zoo list weights", description="List released weights.", allow_abbrev=False)
    parser.add_argument("task", nargs="?", help="one task's folder")
    args = parser.parse_args(argv)
    tasks = [folder.parent for folder in sorted(ROOT.glob("*/weights.toml")) if (folder.parent / "infer.py").is_file()]
    if args.task is not None and args.task not in {task.name for task in tasks}:
        parser.error(f"{args.task} has no released weights; {', '.join(task.name for task in tasks) or 'no task'} has")
    for task in tasks:
        if args.task in (None, task.name):
            Console().print(_table(task))
    print(
        "Use a name with --pretrained_model. UNVERIFIED: no checksum was ever published. Figures are the publisher's."
    )


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file; pickled objects are refused. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file of arrays ({error}).") from error


def write_npz(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name to an .npz file, completely or not at all. Raises DataError."""
    partial = Path(f"{path}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _read_names(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list of names ({error}).") from error


def _table(task: Path) -> Table:
    table = Table(title=task.name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("name", "published", "MB", "checksum", "here"):
        table.add_column(column, no_wrap=True, justify="right" if column == "MB" else "left")
    for entry in registry.load_registry(task).values():
        kinds = {"included": entry.file, "sha256": entry.sha256, "md5": entry.md5}
        checksum = next((kind for kind, value in kinds.items() if value), "UNVERIFIED")
        size = f"{entry.size / 1e6:.0f}" if entry.size else "?"
        table.add_row(entry.name, entry.metric, size, checksum, "yes" if registry.is_fetched(entry) else "")
    return table
