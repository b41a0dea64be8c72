"""A prepared data set: features, texts and alignments of its parts, and what a recogniser needs beside them.

FOLDER/corpus.json                      how features are made, the number of classes, unit of errors, licence, origin
       lexicon.txt  language_model.arpa      words and which follow which (or, from Kaldi, graph.fst and words.txt)
       PART/feats.ark or feats.scp      log mel energies [frames, dim] by utterance, in memory or read as they are needed
       PART/ali.gz                      class of each frame, of the parts that are trained on or measured by frames
       PART/text  PART/utt2spk          words and speaker of each utterance

The prepare_*.py scripts write one; data/ holds the one that comes along.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from DeepASR.decoding.lexicon import Lexicon, lexicon_lines, read_lexicon
from DeepASR.features import Frontend
from DeepASR.kaldi.tables import ArchiveWriter, Entry, Kind, read_archive, read_script, read_text
from DeepASR.metrics import Unit
from fluid import files
from fluid.errors import DataError
from fluid.files import read_plain
from fluid.records import refuse_existing
from fluid.text import number_of, read_lines

import numpy as np

EMBEDDED = Path(__file__).resolve().parent / "data" / "commands"
FORMAT = 1
DESCRIPTION = "corpus.json"

Name = Literal["train", "dev", "test"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Corpus:
    """A folder, and what it says of itself."""

    folder: Path
    frame_dim: int
    class_num: int
    unit: Unit
    """What errors are counted in."""
    frontend: Frontend | None
    """How features are made of sound; None: somewhere else, of what is not known here."""
    lexicon: Lexicon | None
    """None: a graph of Kaldi's stands for it."""
    language_model: str | None
    """Text of an ARPA file."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Language, licence, origin, for people."""

    @property
    def graph(self) -> Path | None:
        """The graph of pdfs that prepare_kaldi.py wrote; its words are in words.txt."""
        path = self.folder / "graph.fst"
        return path if path.exists() else None

    def part(self, name: Name) -> Part:
        """Utterances of a part. Raises DataError for what is missing or does not fit."""
        return open_part(self.folder / name, self)


class Part(Mapping[str, np.ndarray]):
    """Features [frames, dim] of the utterances of a part, by name."""

    def __init__(
        self,
        folder: Path,
        features: Mapping[str, np.ndarray | Entry],
        lengths: Mapping[str, int],
        texts: Mapping[str, str],
        speakers: Mapping[str, str],
        alignments: Mapping[str, np.ndarray],
    ) -> None:
        self.folder, self.lengths, self.texts, self.speakers = folder, lengths, texts, speakers
        self.alignments = alignments
        self._features = features

    def __getitem__(self, name: str) -> np.ndarray:
        features = self._features[name]
        return features.read() if isinstance(features, Entry) else features

    def __iter__(self) -> Iterator[str]:
        return iter(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def without(self, speakers: Collection[str]) -> Part:
        """Without the utterances of these speakers. Raises DataError for one that the part does not have."""
        return self._choose({name for name in self if self.speakers.get(name) not in self._known(speakers)})

    def of(self, speakers: Collection[str]) -> Part:
        """The utterances of these speakers alone. Raises DataError for one that the part does not have."""
        return self._choose({name for name in self if self.speakers.get(name) in self._known(speakers)})

    def _known(self, speakers: Collection[str]) -> Collection[str]:
        if unknown := sorted(set(speakers) - set(self.speakers.values())):
            raise DataError(f"{self.folder}/utt2spk: has no speaker {', '.join(unknown)}")
        return speakers

    def _choose(self, names: Collection[str]) -> Part:
        return Part(
            self.folder,
            _chosen(self._features, names),
            _chosen(self.lengths, names),
            _chosen(self.texts, names),
            _chosen(self.speakers, names),
            _chosen(self.alignments, names),
        )


def _chosen(table: Mapping[str, Value], names: Collection[str]) -> dict[str, Value]:
    return {name: table[name] for name in table if name in names}


def open_corpus(folder: Path | None) -> Corpus:
    """A prepared folder; by default the one that comes along. Raises DataError."""
    folder = folder or EMBEDDED
    path = folder / DESCRIPTION
    try:
        facts = json.loads(read_plain(path))
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, {FORMAT} is known here")
        frontend = Frontend(**facts["frontend"]) if facts["frontend"] else None
        sizes = int(facts["frame_dim"]), int(facts["class_num"])
        unit, about = facts["unit"], facts["about"]
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no prepared data there (it has no {DESCRIPTION}); prepare_wav.py makes them"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the data again") from None
    lexicon = read_lexicon(folder / "lexicon.txt") if (folder / "lexicon.txt").exists() else None
    model = folder / "language_model.arpa"
    text = "\n".join([*read_lines(model), ""]) if model.exists() else None
    return Corpus(folder, *sizes, unit, frontend, lexicon, text, about)


def _frames(text: str, name: str, folder: Path) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise DataError(f"{folder / 'utt2num_frames'}: {name}: {text[:80]!r} is no number of frames")
    return int(text)


def open_part(folder: Path, corpus: Corpus) -> Part:
    """A part of a data set. Raises DataError, with file and utterance, for what is missing or does not fit."""
    features: Mapping[str, np.ndarray | Entry]
    if (folder / "feats.ark").exists():
        features = arrays = dict(read_archive(folder / "feats.ark"))
        lengths = {name: len(array) for name, array in arrays.items()}
    elif (folder / "feats.scp").exists():
        features = read_script(folder / "feats.scp")
        lengths = {name: _frames(frames, name, folder) for name, frames in read_text(folder / "utt2num_frames").items()}
    else:
        raise DataError(f"{folder}: has neither feats.ark nor feats.scp")
    texts = read_text(folder / "text")
    speakers = read_text(folder / "utt2spk") if (folder / "utt2spk").exists() else {}
    alignments = dict(read_archive(folder / "ali.gz")) if (folder / "ali.gz").exists() else {}
    for what, table in (("feats", features), ("text", texts), ("utt2num_frames", lengths)):
        if missing := sorted((features.keys() | texts.keys()) - table.keys()):
            raise DataError(f"{folder / what}: lacks {', '.join(missing[:5])}{' ...' if missing[5:] else ''}")
    for name, pdfs in alignments.items():
        if name not in lengths or len(pdfs) != lengths[name]:
            raise DataError(
                f"{folder}/ali.gz: {name}: {number_of(len(pdfs), 'label')} for {number_of(lengths.get(name, 0), 'frame')}"
            )
        if len(pdfs) and not 0 <= pdfs.min() <= pdfs.max() < corpus.class_num:
            raise DataError(
                f"{folder}/ali.gz: {name}: classes {pdfs.min()} to {pdfs.max()} where there are {corpus.class_num}"
            )
    return Part(folder, features, lengths, texts, speakers, alignments)


@dataclass
class PartData:
    """What `write_corpus` writes of a part."""

    features: Mapping[str, np.ndarray]
    texts: Mapping[str, str]
    speakers: Mapping[str, str]
    alignments: Mapping[str, np.ndarray]
    places: Mapping[str, str] = field(default_factory=dict)
    """Where features lie, as script files have it, instead of the features themselves."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Frames of those."""


def write_corpus(corpus: Corpus, parts: Mapping[str, PartData], *, kind: Kind = "CM") -> None:
    """Write a data set, completely or not at all. Raises UserError if the folder is there already or cannot be written."""
    refuse_existing(corpus.folder)
    facts = {
        "format": FORMAT,
        "frame_dim": corpus.frame_dim,
        "class_num": corpus.class_num,
        "unit": corpus.unit,
        "frontend": corpus.frontend.to_facts() if corpus.frontend else None,
        "about": dict(corpus.about),
    }
    with files.whole(corpus.folder) as folder:
        for name, part in parts.items():
            _write_part(folder / name, part, kind)
        if corpus.lexicon is not None:
            (folder / "lexicon.txt").write_text(lexicon_lines(corpus.lexicon), encoding="utf-8")
        if corpus.language_model is not None:
            (folder / "language_model.arpa").write_text(corpus.language_model, encoding="utf-8")
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def _write_part(folder: Path, part: PartData, kind: Kind) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = list(part.places or part.features)
    tables: dict[str, Mapping[str, Any]] = {"text": part.texts}
    if part.speakers:
        tables["utt2spk"] = part.speakers
    if part.places:
        tables |= {"feats.scp": part.places, "utt2num_frames": part.lengths}
    else:
        with ArchiveWriter(folder / "feats.ark", kind=kind) as archive:
            for name, features in part.features.items():
                archive.write(name, features)
    if part.alignments:
        plain = folder / "ali"
        with ArchiveWriter(plain) as archive:
            for name, pdfs in part.alignments.items():
                archive.write(name, pdfs)
        # Without the time, so that the same alignments are the same file.
        (folder / "ali.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
    for file, table in tables.items():
        lines = "".join(f"{name} {table[name]}\n" for name in names if name in table)
        (folder / file).write_text(lines, encoding="utf-8")
