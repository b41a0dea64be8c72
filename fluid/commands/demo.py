"""./zoo demo: every task at work with the model that comes along, on one page.

A task shows what its demo.toml says: a title, the commands as `./zoo` takes them, and the pictures that they leave.
"""

import argparse
import html
import shlex
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluid.lettering import font
from fluid.run import console, script

from PIL import Image, ImageDraw, ImageOps

ROOT = Path(__file__).resolve().parents[2]
LINES = 14
"""Of what a command prints, the last ones shown."""
TILE, TITLE_HEIGHT, MARGIN, COLUMNS = (600, 400), 30, 12, 2
"""Of the picture of all pictures, in pixels."""


@dataclass
class Show:
    """What a task shows."""

    task: str
    title: str
    commands: list[str]
    """`infer --output_dir {output}`: a script of the task and its flags."""
    pictures: list[str]
    """Patterns in the folder that the commands write."""


@dataclass
class Shown:
    """What became of it."""

    show: Show
    output: Path
    commands: list[str]
    """As a person types them."""
    text: str
    seconds: float
    failed: bool
    pictures: list[Path]


def main(argv: Sequence[str] | None = None) -> None:
    """Run every show, write the page; exits with code 1 if a command failed."""
    parser = argparse.ArgumentParser(prog="zoo demo", description="Show every task with the model that comes along.")
    parser.add_argument("--output_dir", type=Path, default=Path("output/demo"), help="folder to write")
    parser.add_argument("tasks", nargs="*", help="of these tasks; by default all")
    args = parser.parse_args(argv)
    known = shows()
    if unknown := set(args.tasks) - {show.task for show in known}:
        parser.error(f"there is nothing to show of {', '.join(sorted(unknown))}")
    shown = []
    for show in known:
        if not args.tasks or show.task in args.tasks:
            console.print(f"{show.title} ({show.task})")
            shown.append(run(show, args.output_dir.resolve() / show.task))
            console.print(f"{shown[-1].text}\n{shown[-1].seconds:.1f} s\n")
    page = write_page(args.output_dir.resolve(), shown)
    console.print(f"all of it: {page}, and in one picture: {draw_all(args.output_dir / 'demo.png', shown)}")
    if failed := [item.show.task for item in shown if item.failed]:
        console.print(f"failed: {', '.join(failed)}")
        sys.exit(1)


def shows() -> list[Show]:
    """Those of all tasks."""
    return [
        Show(path.parent.name, **tomllib.loads(path.read_text(encoding="utf-8")))
        for path in sorted(ROOT.glob("*/demo.toml"))
    ]


def run(show: Show, output: Path) -> Shown:
    """Run the commands of a show one after the other, until one fails."""
    output.mkdir(parents=True, exist_ok=True)
    began, lines, commands, failed = time.perf_counter(), [], [], False
    for command in show.commands:
        name, *words = [word.replace("{output}", str(output)) for word in shlex.split(command)]
        commands.append(typed(show.task, name, words))
        done = subprocess.run(
            [sys.executable, str(ROOT / show.task / f"{name}.py"), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        lines += done.stdout.replace(f"{ROOT}/", "").splitlines()[-LINES:]
        failed = done.returncode != 0
        if failed:
            break
    pictures = [path for pattern in show.pictures for path in sorted(output.glob(pattern))]
    seconds = time.perf_counter() - began
    failed = failed or (bool(show.pictures) and not pictures)
    return Shown(show, output, commands, "\n".join(lines), seconds, failed, pictures)


def typed(task: str, name: str, words: Sequence[str]) -> str:
    """A script of a task and its flags as a person types them: in the checkout, or where the zoo is an installed package."""
    if (ROOT / "zoo").is_file():
        return shlex.join(["./zoo", name, task, *words]).replace(f"{ROOT}/", "")
    found = [str(ROOT / word) if "/" in word and (ROOT / word).exists() else word for word in words]
    return shlex.join(["python", "-m", f"{task}.{name}", *found])


def write_page(folder: Path, shown: Sequence[Shown]) -> Path:
    """`folder`/index.html: each task's title, commands, pictures and words."""
    parts = []
    for item in shown:
        pictures = "".join(f'<img src="{html.escape(str(path.relative_to(folder)))}">' for path in item.pictures)
        commands = html.escape("\n".join(item.commands))
        parts.append(
            f"<h2>{html.escape(item.show.title)}</h2><pre class=command>{commands}</pre>{pictures}"
            f"<pre>{html.escape(item.text)}</pre><p>{item.show.task}, {item.seconds:.1f} s</p>"
        )
    page = folder / "index.html"
    page.write_text(PAGE.replace("PARTS", "\n".join(parts)), encoding="utf-8")
    return page


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The Fluid model zoo at work</title><style>
body { font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; margin: .3rem; vertical-align: top; }
pre { background: #f4f4f4; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
pre.command { background: #22303c; color: white; }
</style></head><body><h1>The Fluid model zoo at work</h1>
PARTS
</body></html>
"""


def draw_all(path: Path, shown: Sequence[Shown]) -> Path:
    """One picture of all: a tile for each task, its first picture or, if it has none, its words."""
    tiles = [_tile(item) for item in shown]
    rows = [tiles[at : at + COLUMNS] for at in range(0, len(tiles), COLUMNS)]
    heights = [max(tile.height for tile in row) + MARGIN for row in rows]
    sheet = Image.new("RGB", (COLUMNS * (TILE[0] + MARGIN) + MARGIN, sum(heights) + MARGIN), "white")
    top = MARGIN
    for row, height in zip(rows, heights):
        for column, tile in enumerate(row):
            sheet.paste(tile, (MARGIN + column * (TILE[0] + MARGIN), top))
        top += height
    sheet.save(path)
    return path


def _tile(item: Shown) -> Image.Image:
    """Title and picture, or title and words."""
    if item.pictures:
        with Image.open(item.pictures[0]) as picture:
            # Of a recording the middle: a game's first screen shows little.
            picture.seek(getattr(picture, "n_frames", 1) // 2)
            content = ImageOps.contain(picture.convert("RGB"), TILE)
    else:
        lines = [part for line in item.text.splitlines() for part in textwrap.wrap(line, 76) or [""]]
        content = Image.new("RGB", (TILE[0], 18 * len(lines) + MARGIN), "white")
        ImageDraw.Draw(content).multiline_text(
            (0, 0), "\n".join(lines), fill="black", font=font(item.text, 12, mono=True)
        )
    tile = Image.new("RGB", (TILE[0], content.height + TITLE_HEIGHT), "white")
    ImageDraw.Draw(tile).text((0, 0), item.show.title, fill="black", font=font(item.show.title, 18))
    tile.paste(content, (0, TITLE_HEIGHT))
    return tile


if __name__ == "__main__":
    script(main)
