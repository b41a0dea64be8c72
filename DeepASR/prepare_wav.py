"""Make a data set of recordings and their texts.

    ./zoo prepare DeepASR wav --recordings speech --lexicon lexicon.txt --output_dir prepared

The folder has, as Kaldi's data folders do, a file `text` with a line `NAME WORD WORD ...` for each recording NAME.wav or
NAME.flac beside it or in a folder below; `wav.scp` with lines `NAME FILE` where they lie elsewhere; and `utt2spk` with lines
`NAME SPEAKER` if the speakers are known. Where it has `segments` with lines `NAME RECORDING START END`, in seconds, utterances are
parts of recordings. Any rate, width and number of channels. All words must be in the lexicon, a file of lines
`WORD PHONE PHONE ...`. Instead of a folder it may be a manifest, a file of JSON lines as DeepASR/preparing/manifests.py explains.

Recordings are shared out by speaker: no speaker of dev or test is in train. Everything is checked before anything is computed.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.decoding.lexicon import read_lexicon
from DeepASR.features import Frontend
from DeepASR.kaldi.tables import read_text
from DeepASR.preparing.from_recordings import Recording, listing, prepare
from DeepASR.preparing.manifests import ENDING, read_manifest
from DeepASR.preparing.stretches import Stretch, read_segments
from DeepASR.recordings import ENDINGS
from fluid import config as configuration
from fluid.config import Count, Seed, Share, Was
from fluid.errors import DataError, UserError
from fluid.records import refuse_existing
from fluid.run import console, script
from fluid.text import number_of

import numpy as np

PARTS = ("train", "dev", "test")


@dataclass
class Flags:
    """Make a data set of recordings and their texts."""

    recordings: Path = Path("recordings")
    """Folder with text, recordings or wav.scp, perhaps utt2spk and segments, or a manifest (.jsonl); or a folder with folders train,
    dev and test, or train.jsonl, dev.jsonl and test.jsonl, of that."""
    lexicon: Path | None = None
    """Words and their phones, a line each."""
    output_dir: Annotated[Path, Was("data_dir")] = Path("prepared")
    """Folder to write, which must not be there yet."""
    held_out: tuple[Share, Share] = (0.1, 0.1)
    """Share of the speakers for dev and for test, one at least; without utt2spk, of the recordings."""
    sample_rate: Count = 16_000
    """Samples a second that recordings are brought to."""
    num_bins: Count = 40
    """Mel bands of a frame."""
    error_rate_type: Literal["cer", "wer"] = "wer"
    """Errors in characters or in words."""
    leave_out: bool = False
    """Leave recordings out that cannot be used, and say which, instead of ending."""
    seed: Seed = 0
    """Seed of who is in which part."""


def main(flags: Flags) -> None:
    """Check, prepare and write."""
    refuse_existing(flags.output_dir)
    if flags.lexicon is None:
        raise UserError("--lexicon is needed: a file of lines 'WORD PHONE PHONE ...'")
    lexicon = read_lexicon(flags.lexicon)
    prepare(
        flags.output_dir,
        parts_of(flags),
        lexicon,
        frontend=Frontend(flags.sample_rate, flags.num_bins),
        unit=flags.error_rate_type,
        about={"language": "data of your own", "made by": f"prepare_wav.py of {flags.recordings}"},
        leave_out=flags.leave_out,
        say=console.print,
    )


def parts_of(flags: Flags) -> dict[str, Iterator[Recording]]:
    """Recordings of train, dev and test: as folders of these names have them, or shared out by speakers."""
    folder = flags.recordings
    given = (folder / "train" / "text").exists(), (folder / f"train{ENDING}").exists()
    if any(given):
        tables = {part: read_tables(folder / (part if given[0] else f"{part}{ENDING}")) for part in PARTS}
        return {part: record(list(table[0]), *table, flags.sample_rate) for part, table in tables.items()}
    texts, places, speakers = read_tables(folder)
    parts = share_out({name: speakers.get(name, name) for name in texts}, flags.held_out, flags.seed)
    return {part: record(names, texts, places, speakers, flags.sample_rate) for part, names in parts.items()}


def read_tables(folder: Path) -> tuple[dict[str, str], dict[str, Stretch], dict[str, str]]:
    """Texts, places and speakers by name, of a folder or a manifest. Raises DataError."""
    if folder.suffix == ENDING:
        texts, places, speakers = read_manifest(folder)
        refuse_missing(folder, {name: place.path for name, place in places.items()})
        return texts, places, speakers
    texts = read_text(folder / "text")
    speakers = read_text(folder / "utt2spk") if (folder / "utt2spk").exists() else {}
    if not (folder / "segments").exists():
        return texts, {name: Stretch(path) for name, path in find(folder, texts).items()}, speakers
    segments = read_segments(folder / "segments")
    if lacking := [name for name in texts if name not in segments]:
        raise DataError(
            f"{folder / 'segments'}: lacks {number_of(len(lacking), 'utterance')} of text:\n{listing(lacking)}"
        )
    files = find(folder, [segments[name][0] for name in texts])
    places = {name: Stretch(files[segments[name][0]], *segments[name][1:]) for name in texts}
    return texts, places, speakers


def find(folder: Path, names: Collection[str]) -> dict[str, Path]:
    """The file of each of these recordings. Raises DataError for two of one name, and one that lists those without a file."""
    listed = read_text(folder / "wav.scp") if (folder / "wav.scp").exists() else {}
    if commands := [name for name, location in listed.items() if location.endswith("|")]:
        raise DataError(f"{folder / 'wav.scp'}: {commands[0]} is a command, and commands of data files are never run")
    wanted, below = set(names), dict[str, Path]()
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS):
        if path.stem in wanted and path.stem not in listed and path.stem in below:
            raise DataError(
                f"{path.stem} is both {below[path.stem]} and {path}: remove one, or say in wav.scp which is meant"
            )
        below[path.stem] = path
    files = below | {name: Path(location) for name, location in listed.items()}
    files |= {name: folder / path for name, path in files.items() if not path.exists() and (folder / path).exists()}
    refuse_missing(folder, {name: files.get(name) for name in names})
    return files


def refuse_missing(folder: Path, files: Mapping[str, Path | None]) -> None:
    """Raise DataError that lists the recordings that are not there."""
    if missing := [name for name, path in files.items() if path is None or not path.exists()]:
        raise DataError(f"{folder}: lacks {number_of(len(missing), 'recording')} of text:\n{listing(missing)}")


def share_out(speakers: dict[str, str], held_out: tuple[float, float], seed: int) -> dict[str, list[str]]:
    """Names of train, dev and test: whole speakers. Raises DataError if there are fewer than three."""
    everybody = sorted(set(speakers.values()))
    if len(everybody) < 3:
        raise DataError(
            f"{number_of(len(everybody), 'speaker')} cannot be shared out to train, dev and test: three are needed at least"
        )
    order = [everybody[number] for number in np.random.default_rng(seed).permutation(len(everybody))]
    dev, test = (max(1, round(share * len(order))) for share in held_out)
    if dev + test >= len(order):
        raise DataError(f"--held_out leaves none of {number_of(len(order), 'speaker')} to train on")
    groups = {"dev": set(order[:dev]), "test": set(order[dev : dev + test]), "train": set(order[dev + test :])}
    return {part: [name for name in speakers if speakers[name] in groups[part]] for part in PARTS}


def record(
    names: list[str], texts: dict[str, str], places: dict[str, Stretch], speakers: dict[str, str], rate: int
) -> Iterator[Recording]:
    """The recordings of a part; what is wrong with one that cannot be read is told with the others."""
    for name in names:
        try:
            samples, unreadable = places[name].read(rate), None
        except DataError as error:
            samples, unreadable = np.zeros(0, np.float32), str(error)
        yield Recording(name, speakers.get(name, name), tuple(texts[name].split()), samples, unreadable)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
