"""Manifests of recordings, as NeMo and PaddleSpeech have them: a file of JSON lines, a recording each.

    {"audio_filepath": "calls/1.wav", "text": "turn on the light", "speaker": "anna"}       NeMo
    {"utt": "call1", "feat": "calls/1.wav", "text": "turn on the light"}                    PaddleSpeech

Without `utt` a recording is called as its file; without `speaker` each stands for itself. Paths are relative to the manifest.
`offset` and `duration`, in seconds, say which part of a longer recording it is; such a part is called as its file with both behind it.
"""

import json
import math
from pathlib import Path
from typing import Any

from DeepASR.preparing.stretches import Stretch, span
from fluid.errors import DataError
from fluid.text import each_line

ENDING = ".jsonl"
FILES, TEXT, NAME, SPEAKER = ("audio_filepath", "feat"), "text", "utt", "speaker"
START, SECONDS = "offset", "duration"


def read_manifest(path: Path) -> tuple[dict[str, str], dict[str, Stretch], dict[str, str]]:
    """Texts, places and speakers by name, in the order of the manifest. Raises DataError (FILE:LINE)."""
    texts: dict[str, str] = {}
    places: dict[str, Stretch] = {}
    speakers: dict[str, str] = {}
    for number, line in enumerate(each_line(path), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        entry = _entry(line, where)
        file = next((entry[key] for key in FILES if key in entry), None)
        if file is None or TEXT not in entry:
            raise DataError(f"{where}: lacks {TEXT if file is not None else ' or '.join(FILES)}")
        start, end = entry[START], entry[START] + entry[SECONDS]
        part = f"_{start:g}_{end:g}" if start else ""
        name = "_".join(entry.get(NAME, Path(file).stem + part).split())
        if name in texts:
            raise DataError(f"{where}: '{name}' is listed before; give each recording a '{NAME}' of its own")
        texts[name], places[name] = entry[TEXT], Stretch(path.parent / file, start, end)
        if SPEAKER in entry:
            speakers[name] = "_".join(entry[SPEAKER].split())
    return texts, places, speakers


def _entry(line: str, where: str) -> dict[str, Any]:
    """What is known of a recording: texts, and two numbers of seconds. Raises DataError."""
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where}: is no object in braces")
    known = {key: entry[key] for key in (*FILES, TEXT, NAME, SPEAKER) if key in entry}
    if wrong := [key for key, value in known.items() if not isinstance(value, str) or not value and key != TEXT]:
        raise DataError(f"{where}: {wrong[0]} is no text")
    try:
        start, seconds = 0.0 + (entry.get(START) or 0), 0.0 + (entry.get(SECONDS) or math.inf)
        span(start, start + seconds)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: {START} and {SECONDS} are no seconds: {entry.get(START)}, {entry.get(SECONDS)}"
        ) from None
    return known | {START: start, SECONDS: seconds}
