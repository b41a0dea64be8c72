"""./zoo list [tasks|models|weights] [TASK]: what there is."""

import argparse
import ast
import importlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fluid.run import script
from fluid.weights import registry

from rich.console import Console
from rich.table import Table

CHOICES = ("model", "network", "alg")
"""Flags by which tasks choose a network."""
ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables asked for, all three by default; a wrong word exits with code 2."""
    parser = argparse.ArgumentParser(prog="zoo list", description="List tasks, networks and released weights.")
    parser.add_argument("what", nargs="?", choices=("tasks", "models", "weights"), help="by default all three")
    parser.add_argument("task", nargs="?", help="of this task only")
    args = parser.parse_args(argv)
    # An installed zoo lies among other packages, of which one or the other has an infer.py.
    known = [path.parent for path in sorted(ROOT.glob("*/infer.py")) if (path.parent / "export.py").is_file()]
    folders = [folder for folder in known if args.task in (None, folder.name)]
    if not folders:
        parser.error(f"there is no task {args.task}")
    tables = {"tasks": tasks, "models": models, "weights": weights}
    for what in (args.what,) if args.what else tables:
        tables[what](folders)


def tasks(folders: list[Path]) -> None:
    """Each task, the first line of its train.py (of its package, if it has none), and what `./zoo` runs of it.

    Scripts whose name begins with an underscore are helpers of others.
    """
    Console().print("[bold]tasks[/bold]")
    for folder in folders:
        head = next(path for name in ("train", "__init__") if (path := folder / f"{name}.py").is_file())
        docstring = ast.get_docstring(_parsed(head)) or ""
        print(f"{folder.name:28} {docstring.partition(chr(10))[0]}")
        print(f"{'':28} scripts: {' '.join(path.stem for path in sorted(folder.glob('[!_]*.py')) if _is_script(path))}")
    print()


def models(folders: list[Path]) -> None:
    """The networks of each task that can choose between several, by the flag that does: its `models.MODELS`, or a Literal."""
    for folder in folders:
        for what, names in networks(folder).items():
            Console().print(
                f"[bold]{folder.name}: {what}[/bold]\n{', '.join(names)}\n", highlight=False, soft_wrap=True
            )


def networks(folder: Path) -> dict[str, Collection[str]]:
    """The flag that names a network of a task -> the names."""
    if (folder / "models" / "__init__.py").is_file():
        return {"--model": importlib.import_module(f"{folder.name}.models").MODELS}
    if not (folder / "train.py").is_file():
        return {}
    kinds = get_type_hints(importlib.import_module(f"{folder.name}.train").Flags)
    found = {f"--{flag}": [name for name in _choices(kinds.get(flag)) if name] for flag in CHOICES}
    return {flag: names for flag, names in found.items() if names}


def weights(folders: list[Path]) -> None:
    """The entries of each task's weights.toml."""
    unverified = False
    for folder in folders:
        entries = registry.load_registry(folder)
        table = _table(f"{folder.name}: weights", "name", "published", "MB", "licence", "checksum", "got")
        for entry in entries.values():
            kinds = {"included": entry.file, "sha256": entry.sha256, "md5": entry.md5}
            checksum = next((kind for kind, value in kinds.items() if value), "UNVERIFIED")
            unverified |= checksum == "UNVERIFIED"
            size = f"{entry.stored / 1e6:.1f}" if entry.file else f"{entry.size / 1e6:.0f}" if entry.size else ""
            got = "yes" if registry.is_fetched(entry) else ""
            table.add_row(entry.name, entry.metric, size, entry.spdx, checksum, got)
        if entries:
            Console().print(table)
    print("Give a name to --pretrained_model. Figures are the publisher's, not measured here unless they say so.")
    if unverified:
        print("UNVERIFIED: no checksum was ever published; that of the first download is kept.")


def _choices(kind: Any) -> list[str]:
    """The words of a Literal, also inside of a union."""
    parts = get_args(kind)
    return list(parts) if get_origin(kind) is Literal else [name for part in parts for name in _choices(part)]


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_script(path: Path) -> bool:
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in _parsed(path).body)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        # What is long takes several lines where the terminal is narrow; nothing is cut off.
        table.add_column(
            column,
            no_wrap=column not in ("published", "licence"),
            overflow="fold",
            justify="right" if column == "MB" else "left",
        )
    return table


if __name__ == "__main__":
    script(main)
