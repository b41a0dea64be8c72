"""Inference Programs that come along with a task, so that its infer.py neither imports Paddle nor builds a network.

TASK/data/programs/ROLE-DIGEST.json.xz holds

    made_of     what the Program was built from, of which DIGEST is one: sizes of the network, flags
    sources     the files that describe it, by their paths in the checkout, and
    sha256      of all of them together
    graph       the Program (fluid/engine/xla/graph.py), without the lines that made it

A Program is taken if it would be built of just that by just these files; else it is built as ever. `TASK/shipped.py` names
those of a task by its function `recipes`, and `./zoo recapture` writes them.
"""

import ast
import hashlib
import json
import lzma
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluid.errors import UserError
from fluid.interface import Interface
from fluid.weights import registry

if TYPE_CHECKING:
    from fluid.engine.xla.graph import Graph

FOLDER = Path("data") / "programs"


@dataclass(frozen=True)
class Recipe:
    """A Program, and what it is built from."""

    role: str
    made_of: Mapping[str, Any]
    """Everything that another Program of this role could differ in, as JSON-able data."""
    build: Callable[[], Interface]
    """Builds it with Paddle."""

    def file(self, task: Path) -> Path:
        """Where it comes along, if it does, in the folder of its task."""
        return file_of(task, self.role, self.made_of)


def models(task: Path) -> list[str]:
    """The names of the models that come along with the task in this folder."""
    return [entry.name for entry in registry.load_registry(task).values() if entry.file is not None]


class NoneFits(UserError):
    """No Program that comes along may be used; says why."""


def file_of(task: Path, role: str, made_of: Mapping[str, Any]) -> Path:
    """The file of a Program of a task, by what it is made of."""
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return task / FOLDER / f"{role}-{digest[:8]}.json.xz"


def find(task: Path, role: str, made_of: Mapping[str, Any]) -> "Graph":
    """The Program that comes along with the task in this folder. Raises NoneFits if that is not what would be built now."""
    from fluid.engine.xla import graph

    file = file_of(task, role, made_of)
    if not file.is_file():
        raise NoneFits("none comes along for this network and these flags")
    try:
        stored = json.loads(lzma.decompress(file.read_bytes()))
        changed = stored["sha256"] != sha256(task.parent / name for name in stored["sources"])
        program = graph.from_json(stored["graph"])
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise NoneFits(f"{file.name} cannot be used ({error})") from None
    if changed:
        raise NoneFits("the code that describes it was changed since one was captured")
    return program


def write(task: Path, recipes: Sequence[Recipe]) -> list[Path]:
    """Build these Programs and write them, whatever else comes along removed; returns the files."""
    folder = task / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for recipe in recipes:
        file = recipe.file(task)
        # Reproducible: the same code writes the same bytes.
        text = json.dumps(described(task, recipe), separators=(",", ":"))
        file.write_bytes(lzma.compress(text.encode(), check=lzma.CHECK_CRC32, preset=9 | lzma.PRESET_EXTREME))
        written.append(file)
    for file in set(folder.glob("*.json.xz")).difference(written):
        file.unlink()
    return written


def described(task: Path, recipe: Recipe) -> dict[str, Any]:
    """What the file of a Program says; builds it with Paddle."""
    from fluid.engine.xla import graph
    from fluid.engine.xla.capture import capture
    from fluid.program import Program

    program = recipe.build()
    assert isinstance(program, Program)
    captured = capture(program).pruned(program.outputs)
    root = task.parent
    lines = {Path(item.source.rpartition(":")[0]) for item in graph.walk(captured.block)}
    # `fluid.program` makes the inputs of every Program, and describes no network.
    shared = {path for path in lines if path.is_relative_to(root / "fluid")} - {root / "fluid" / "program.py"}
    sources = sorted(_own_modules(task) | shared)
    for operation in graph.walk(captured.block):
        operation.source = ""
    return {
        "made_of": recipe.made_of,
        "sources": [path.relative_to(root).as_posix() for path in sources],
        "sha256": sha256(sources),
        "graph": graph.to_json(captured),
    }


def sha256(files: Iterable[Path]) -> str:
    """Of the contents of files, one after the other."""
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _own_modules(task: Path) -> set[Path]:
    """The modules of a task that its network.py is made of, those of packages in it among them."""
    found: set[Path] = set()
    waiting = [task / "network.py"]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == task.name:
                inside = task.parent.joinpath(*node.module.split("."))
                names = ("__init__", *(alias.name for alias in node.names))
                waiting += [inside.with_suffix(".py"), *(inside / f"{name}.py" for name in names)]
    return found
