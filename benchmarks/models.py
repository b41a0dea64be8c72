"""Writes docs/models.md: the models that come along, with size, licence, origin, command and checksum, by weights.toml and the files.

python -m benchmarks.models          writes it; ./zoo benchmark models does the same
"""

import subprocess
from pathlib import Path

from fluid.weights import registry
from fluid.weights.registry import Entry

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "models.md"
HEAD = """# Models that come along

Every task works at once by weights of this repository. Where no address is given, this project trained them; the command is that
of the training. Figures are measured here unless they name their author. `./zoo list weights` shows what can be downloaded beside.
This page is written by `python -m benchmarks.models` from each folder's `weights.toml` and the files themselves.

| model | MB | licence (SPDX) | origin |
|---|---|---|---|
"""


def shipped() -> list[Entry]:
    """The models that come along, by task and in the order of their lists."""
    lists = (registry.load_registry(path.parent) for path in sorted(ROOT.glob("*/weights.toml")))
    return [entry for entries in lists for entry in entries.values() if entry.file is not None]


def page() -> str:
    """All of docs/models.md."""
    entries = shipped()
    rows = [
        f"| [{entry.task}/{entry.name}](#{anchor(entry)}) | {entry.stored / 1e6:.2f} | {entry.spdx} | {entry.source} |\n"
        for entry in entries
    ]
    total = f"| together | {sum(entry.stored for entry in entries) / 1e6:.2f} | | |\n"
    return HEAD + "".join(rows) + total + "".join(map(section, entries))


def anchor(entry: Entry) -> str:
    """How the heading of a model is linked to."""
    return f"{entry.task}{entry.name}".lower()


def section(entry: Entry) -> str:
    """What is to be known of a model."""
    assert entry.file is not None
    made = f"```bash\n{entry.command}\n```\n" if entry.command else f"First listed by its publisher: {entry.listed}.\n"
    return (
        f"\n## {entry.task}/{entry.name}\n\n"
        f"{entry.metric}.\n\nLicence: {entry.licence}.\n\n{made}\n"
        f"[{entry.file.relative_to(ROOT)}](../{entry.file.relative_to(ROOT)}), sha256 `{entry.sha256}`\n"
    )


def checkout() -> int:
    """Bytes of the files of the repository. Raises CalledProcessError outside a git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
