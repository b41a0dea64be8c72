"""Find when known words were said, and write CTM and Praat's TextGrid.

python align.py --texts text recordings/            text: a line `NAME WORD WORD ...` for each recording NAME.wav or NAME.flac
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.audio import read_audio
from DeepASR.decoding.lexicon import SILENCE, Lexicon, read_lexicon
from DeepASR.features import FRAME_SHIFT
from DeepASR.forced_alignment import Alignment, align_words
from DeepASR.kaldi.tables import read_text
from DeepASR.opening import USED, open_recogniser
from DeepASR.options import NetworkFlags
from DeepASR.pictures import draw_alignment
from DeepASR.posteriors import Network
from DeepASR.recordings import find
from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags, ExportedFlags
from fluid.errors import DataError, UserError
from fluid.records import make_folder, writing
from fluid.run import console, script

import numpy as np
import tyro


@dataclass
class Flags(NetworkFlags, ExportedFlags, BatchFlags, EngineFlags):
    """Find when known words were said."""

    recordings: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """WAV and FLAC files, folders, patterns, @LIST for a file of names."""
    texts: Path | None = None
    """What is said: a line `NAME WORD WORD ...` for each recording, by its name without folder and ending."""
    lexicon: Path | None = None
    """Words and their phones, a line each, beside the recogniser's own."""
    output_dir: Path = Path("alignments")
    """Folder for results: words.ctm, phones.ctm, and for each recording a TextGrid and a picture of posteriors."""


def main(flags: Flags) -> dict[str, Alignment]:
    """Align, write and return the alignments by recording."""
    if flags.texts is None or not flags.recordings:
        raise UserError("recordings and --texts are needed: what is heard and what is said")
    texts = read_text(flags.texts)
    found_files = find(flags.recordings)
    files = {Path(name).stem: name for name in found_files}
    if twice := [name for name in found_files if files[Path(name).stem] != name]:
        raise DataError(f"{twice[0]} and {files[Path(twice[0]).stem]} have one name, and so one text: align them apart")
    if missing := [name for name in files if name not in texts]:
        raise DataError(f"{flags.texts}: has no text of {', '.join(missing)}")
    opened = open_recogniser(flags, USED)
    recogniser = opened.facts
    if recogniser.lexicon is None or recogniser.frontend is None:
        raise UserError("these weights come without pronunciations, or do not say how features are made of sound")
    lexicon, frontend = recogniser.lexicon, recogniser.frontend
    if flags.lexicon is not None:
        lexicon = lexicon.with_words(read_lexicon(flags.lexicon).words)
    network = Network(opened, flags, rows=1, runs=None)
    features = ((name, frontend.features(read_audio(file, frontend.sample_rate))) for name, file in files.items())
    found = {}
    make_folder(flags.output_dir)
    for name, posterior in network.posteriors(features):
        scores = np.log(np.maximum(posterior, 1e-10)) - np.array(recogniser.log_prior)
        try:
            found[name] = align_words(scores, lexicon, texts[name].split())
        except DataError as error:
            raise DataError(f"{files[name]}: {error}") from None
        with writing(flags.output_dir):
            draw_alignment(flags.output_dir / f"{name}.png", posterior, found[name], lexicon)
        said = " ".join(f"{word} {FRAME_SHIFT * start:.2f}" for word, start, _ in found[name].spans())
        console.print(f"{name}: {said}", markup=False)
    write(flags.output_dir, found, lexicon)
    return found


def write(folder: Path, alignments: dict[str, Alignment], lexicon: Lexicon) -> None:
    """words.ctm, phones.ctm and the TextGrids. Raises UserError if they cannot be written."""
    files = {"words.ctm": "", "phones.ctm": ""}
    for name, alignment in alignments.items():
        words, phones = list(alignment.spans()), list(alignment.phones(lexicon))
        for file, spans in (("words.ctm", words), ("phones.ctm", phones)):
            files[file] += "".join(
                f"{name} 1 {FRAME_SHIFT * start:.2f} {FRAME_SHIFT * (end - start):.2f} {label}\n"
                for label, start, end in spans
            )
        files[f"{name}.TextGrid"] = text_grid({"words": words, "phones": phones}, len(alignment.pdfs))
    for file, text in files.items():
        with writing(folder / file):
            (folder / file).write_text(text, encoding="utf-8")


def text_grid(tiers: dict[str, list[tuple[str, int, int]]], frames: int) -> str:
    """Praat's long text format; a tier covers the whole, so what lies between is empty."""
    end = FRAME_SHIFT * frames
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.2f}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, spans) in enumerate(tiers.items(), 1):
        intervals, here = [], 0
        for label, start, stop in spans:
            if start > here:
                intervals.append(("", here, start))
            intervals.append(("" if label == SILENCE else label, start, stop))
            here = stop
        if here < frames:
            intervals.append(("", here, frames))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end:.2f}", f"        intervals: size = {len(intervals)}"]
        for place, (label, start, stop) in enumerate(intervals, 1):
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {FRAME_SHIFT * start:.2f}",
                f"            xmax = {FRAME_SHIFT * stop:.2f}",
                f'            text = "{label.replace(chr(34), chr(34) * 2)}"',
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
