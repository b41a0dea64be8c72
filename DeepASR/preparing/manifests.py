"""Manifests of recordings, as NeMo and PaddleSpeech have them: a file of JSON lines, a recording each.

    {"audio_filepath": "calls/1.wav", "text": "turn on the light", "speaker": "anna"}       NeMo
    {"utt": "call1", "feat": "calls/1.wav", "text": "turn on the light"}                    PaddleSpeech

Without `utt` a recording is called as its file; without `speaker` each stands for itself. Paths are relative to the manifest.
"""

import json
from pathlib import Path
from typing import Any

from fluid.errors import DataError
from fluid.text import each_line

ENDING = ".jsonl"
FILES, TEXT, NAME, SPEAKER = ("audio_filepath", "feat"), "text", "utt", "speaker"


def read_manifest(path: Path) -> tuple[dict[str, str], dict[str, Path], dict[str, str]]:
    """Texts, files and speakers by name, in the order of the manifest. Raises DataError (FILE:LINE)."""
    texts: dict[str, str] = {}
    files: dict[str, Path] = {}
    speakers: dict[str, str] = {}
    for number, line in enumerate(each_line(path), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        entry = _entry(line, where)
        file = next((entry[key] for key in FILES if key in entry), None)
        if file is None or TEXT not in entry:
            raise DataError(f"{where}: lacks {TEXT if file is not None else ' or '.join(FILES)}")
        name = "_".join(entry.get(NAME, Path(file).stem).split())
        if name in texts:
            raise DataError(f"{where}: '{name}' is listed before; give each recording a '{NAME}' of its own")
        texts[name], files[name] = entry[TEXT], path.parent / file
        if SPEAKER in entry:
            speakers[name] = "_".join(entry[SPEAKER].split())
    return texts, files, speakers


def _entry(line: str, where: str) -> dict[str, str]:
    """What is known of a recording as text. Raises DataError."""
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where}: is no object in braces")
    known = {key: entry[key] for key in (*FILES, TEXT, NAME, SPEAKER) if key in entry}
    if wrong := [key for key, value in known.items() if not isinstance(value, str) or not value and key != TEXT]:
        raise DataError(f"{where}: {wrong[0]} is no text")
    return known
