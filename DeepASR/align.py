"""Find when known words were said, and write CTM and Praat's TextGrid.

python align.py --texts text recordings/            text: a line `NAME WORD WORD ...` for each recording NAME.wav or NAME.flac
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.decoding.lexicon import SILENCE, Lexicon, read_lexicon
from DeepASR.features import FRAME_SHIFT
from DeepASR.forced_alignment import Alignment, align_words
from DeepASR.kaldi.tables import read_text
from DeepASR.opening import USED, open_recogniser
from DeepASR.options import NetworkFlags
from DeepASR.pictures import draw_alignment
from DeepASR.posteriors import Network
from DeepASR.recordings import Inputs, find
from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags, ExportedFlags
from fluid.errors import DataError, UserError, raise_unreadable
from fluid.records import set_aside, writing
from fluid.run import console, script

import numpy as np
import tyro

TABLES = ("words.ctm", "phones.ctm")


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
    """Folder for results: words.ctm, phones.ctm, and for each recording a TextGrid and a picture of posteriors; tables of an
    earlier call are moved to FOLDER/before."""


def main(flags: Flags) -> dict[str, Alignment]:
    """Align, write and return the alignments by recording; those that cannot be aligned are told at the end."""
    if flags.texts is None or not flags.recordings:
        raise UserError("recordings and --texts are needed: what is heard and what is said")
    texts = {name: text.split() for name, text in read_text(flags.texts).items()}
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
    lexicon = recogniser.lexicon
    if flags.lexicon is not None:
        lexicon = lexicon.with_words(read_lexicon(flags.lexicon).words)
    lexicon.refuse_missing(word for name in files for word in texts[name])
    network = Network(opened, flags, rows=1, runs=None)
    inputs, found = Inputs([(file, None) for file in files.values()], recogniser), {}
    set_aside(flags.output_dir, TABLES)
    for file, posterior in network.posteriors(inputs.read()):
        name = Path(file).stem
        scores = np.log(np.maximum(posterior, 1e-10)) - np.array(recogniser.log_prior)
        try:
            found[name] = align_words(scores, lexicon, texts[name])
        except DataError as error:
            inputs.unreadable.append(DataError(f"{file}: {error}"))
            continue
        with writing(flags.output_dir):
            draw_alignment(flags.output_dir / f"{name}.png", posterior, found[name], lexicon)
        write(flags.output_dir, name, found[name], lexicon)
        said = " ".join(f"{word} {FRAME_SHIFT * start:.2f}" for word, start, _ in found[name].spans())
        console.print(f"{name}: {said}")
    raise_unreadable(inputs.unreadable, len(files))
    return found


def write(folder: Path, name: str, alignment: Alignment, lexicon: Lexicon) -> None:
    """Add a recording to words.ctm and phones.ctm, and write its TextGrid. Raises UserError if that cannot be done."""
    tiers = {"words": list(alignment.spans()), "phones": list(alignment.phones(lexicon))}
    for table, spans in zip(TABLES, tiers.values(), strict=True):
        with writing(folder / table), open(folder / table, "a", encoding="utf-8") as file:
            file.writelines(
                f"{name} 1 {FRAME_SHIFT * start:.2f} {FRAME_SHIFT * (end - start):.2f} {label}\n"
                for label, start, end in spans
            )
    with writing(folder / f"{name}.TextGrid"):
        (folder / f"{name}.TextGrid").write_text(text_grid(tiers, len(alignment.pdfs)), encoding="utf-8")


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
