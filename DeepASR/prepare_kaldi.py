"""Make a data set of what Kaldi left: features, alignments, transition model, decoding graph.

    ./zoo prepare DeepASR kaldi --train data/train --train_ali exp/tri5a_ali --dev data/dev --dev_ali exp/tri5a_dev_ali \\
        --test data/test --trans_model exp/tri5a/final.mdl --graph_dir exp/tri5a/graph --output_dir prepared

Folders of data have feats.scp, text and perhaps utt2spk, folders of alignments ali.*.gz (or one file is named). Features stay
where they are. Everything is read once and checked, with file and utterance: features that are not numbers, alignments of another
number of frames (one more or less is cut off, and said), transition ids and labels of another model, words that the graph lacks,
texts without features, which an error rate would not count.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.corpus import Corpus, PartData, write_corpus
from DeepASR.decoding.graph import Graph, read_graph
from DeepASR.kaldi.tables import Entry, read_archive, read_script, read_text
from DeepASR.kaldi.transition_model import TransitionModel, read_transition_model
from DeepASR.preparing.from_recordings import listing
from fluid import config as configuration
from fluid import files
from fluid.config import Was
from fluid.errors import DataError, UserError
from fluid.records import refuse_existing
from fluid.run import console, script
from fluid.text import number_of

import numpy as np

Value = TypeVar("Value")


@dataclass
class Flags:
    """Make a data set of what Kaldi left."""

    train: Path | None = None
    """Folder of data to train on."""
    train_ali: Path | None = None
    """Its alignments: a folder with ali.*.gz, or an archive."""
    dev: Path | None = None
    """Folder of data to choose by."""
    dev_ali: Path | None = None
    """Its alignments: a folder with ali.*.gz, or one archive."""
    test: Path | None = None
    """Folder of data to test on; needs no alignments."""
    trans_model: Path | None = None
    """final.mdl of the alignments and of the graph; without it alignments are of pdfs."""
    graph_dir: Path | None = None
    """Folder with HCLG.fst and words.txt."""
    output_dir: Annotated[Path, Was("data_dir")] = Path("prepared")
    """Folder to write, which must not be there yet."""
    error_rate_type: Literal["cer", "wer"] = "cer"
    """Errors in characters or in words."""
    leave_out: bool = False
    """Leave utterances out that cannot be used, and say which, instead of ending."""


def main(flags: Flags) -> None:
    """Check and write."""
    refuse_existing(flags.output_dir)
    folders = {"train": flags.train, "dev": flags.dev, "test": flags.test}
    if flags.train is None or flags.train_ali is None or flags.dev is None or flags.dev_ali is None:
        raise UserError("--train, --train_ali, --dev and --dev_ali are needed")
    model = read_transition_model(flags.trans_model) if flags.trans_model is not None else None
    alignments = {"train": flags.train_ali, "dev": flags.dev_ali, "test": None}
    parts, dims = {}, set()
    for name, folder in folders.items():
        if folder is not None:
            parts[name], dim = read_part(folder, alignments[name], model, flags.leave_out)
            dims.add(dim)
    if len(dims) > 1:
        raise DataError(f"the parts have features of different widths: {', '.join(map(str, sorted(dims)))}")
    labels = max(int(pdfs.max()) for part in parts.values() for pdfs in part.alignments.values()) + 1
    class_num = model.num_pdfs if model is not None else labels
    graph = read_kaldi_graph(flags.graph_dir, model, class_num, parts) if flags.graph_dir is not None else None
    about = {"language": "data of your own", "made by": f"prepare_kaldi.py of {flags.train}"}
    corpus = Corpus(flags.output_dir, dims.pop(), class_num, flags.error_rate_type, None, None, None, about)
    with files.whole(flags.output_dir) as folder:
        write_corpus(replace(corpus, folder=folder), parts)
        if graph is not None and flags.graph_dir is not None:
            graph.write(folder / "graph.fst")
            (folder / "words.txt").write_bytes((flags.graph_dir / "words.txt").read_bytes())
    counts = ", ".join(f"{name} {len(part.places)}" for name, part in parts.items())
    console.print(f"{flags.output_dir}: {counts} utterances, {class_num} classes")


def read_part(
    folder: Path, alignments: Path | None, model: TransitionModel | None, leave_out: bool
) -> tuple[PartData, int]:
    """A part, and the width of its features. Raises DataError that lists what cannot be used."""
    entries, texts = read_script(folder / "feats.scp"), read_text(folder / "text")
    speakers = read_text(folder / "utt2spk") if (folder / "utt2spk").exists() else {}
    paths = dict(read_alignments(alignments)) if alignments is not None else None
    lengths, kept, problems, cut = {}, {}, [], []
    width = None
    for name, entry in entries.items():
        features = entry.read()
        frames, wrong = len(features), _problem(name, features, width, texts, paths)
        if wrong is None and paths is not None:
            pdfs = paths[name] if model is None else _pdfs(name, paths[name], model, alignments)
            frames, wrong = _common_frames(len(features), len(pdfs))
            kept[name] = pdfs[:frames]
            if wrong is None and len(features) != len(pdfs):
                cut.append(f"{name}: {number_of(len(features), 'frame')} of features, {len(pdfs)} of alignment")
        if wrong is None:
            lengths[name], width = frames, features.shape[1]
        else:
            problems.append(f"{name}: {wrong}")
    problems += [f"{name}: it has no features" for name in texts if name not in entries]
    if problems and not leave_out:
        raise DataError(
            f"{folder}: cannot use {number_of(len(problems), 'utterance')}:\n{listing(problems)}\nmend them, or give --leave_out"
        )
    for what, lines in (("left out", problems), ("cut to the shorter", cut)):
        if lines:
            console.print(f"{folder}: {number_of(len(lines), 'utterance')} {what}:\n{listing(lines)}")
    if width is None:
        raise DataError(f"{folder}/feats.scp: no utterance is left")
    places = {name: _place(entries[name], frames) for name, frames in lengths.items()}
    return PartData({}, _of(lengths, texts), _of(lengths, speakers), _of(lengths, kept), places, lengths), width


def _of(names: Iterable[str], table: Mapping[str, Value]) -> dict[str, Value]:
    """The part of a table that is of these utterances, in their order."""
    return {name: table[name] for name in names if name in table}


def read_alignments(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Of an archive, or of all ali.*.gz of a folder. Raises DataError."""
    files = sorted(path.glob("ali.*.gz")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: holds no ali.*.gz")
    seen: dict[str, Path] = {}
    for file in files:
        for name, ids in read_archive(file):
            if name in seen:
                raise DataError(f"{file}: {name}: is in {seen[name]} too")
            if ids.ndim != 1 or ids.dtype.kind != "i" or ids.min(initial=0) < 0:
                raise DataError(f"{file}: {name}: holds no alignment, which is a number from 0 on for each frame")
            seen[name] = file
            yield name, ids


def _problem(
    name: str, features: np.ndarray, width: int | None, texts: dict[str, str], paths: dict[str, np.ndarray] | None
) -> str | None:
    """What is wrong with an utterance before its frames are compared; `width`: columns of those before, None: it is the first."""
    if features.ndim != 2:
        return f"its features are {list(features.shape)} numbers, no matrix [frames, columns]"
    if not np.isfinite(features).all():
        return "a feature is not a number"
    if not len(features):
        return "it has no frames"
    if width not in (None, features.shape[1]):
        return f"its features have {features.shape[1]} columns, those before {width}"
    if name not in texts:
        return "it has no text"
    if paths is not None and name not in paths:
        return "it has no alignment"
    return None


def _common_frames(features: int, labels: int) -> tuple[int, str | None]:
    """Frames to keep, or what is wrong: one frame more or less is what rounding makes."""
    if labels and abs(features - labels) <= 1:
        return min(features, labels), None
    if labels and abs(features / labels - round(features / labels)) * labels <= round(features / labels) >= 2:
        return 0, (
            f"{number_of(features, 'frame')} and {number_of(labels, 'label')}: an alignment of one frame in {round(features / labels)} or so, as chain "
            "models have; align with a model of all frames"
        )
    return (
        0,
        f"{number_of(features, 'frame')} and {number_of(labels, 'label')}: features and alignment of different data",
    )


def _pdfs(name: str, ids: np.ndarray, model: TransitionModel, where: Path | None) -> np.ndarray:
    try:
        return model.pdfs(ids)
    except DataError as error:
        raise DataError(f"{where}: {name}: {error}") from None


def _place(entry: Entry, frames: int) -> str:
    """The first frames of an entry as a script file names them from everywhere."""
    first = entry.rows[0] if entry.rows is not None else 0
    columns = f",{entry.columns[0]}:{entry.columns[1]}" if entry.columns is not None else ""
    return f"{entry.path.resolve()}:{entry.offset}[{first}:{first + frames - 1}{columns}]"


def read_kaldi_graph(folder: Path, model: TransitionModel | None, class_num: int, parts: dict[str, PartData]) -> Graph:
    """HCLG.fst with pdfs for labels. Raises DataError if it does not fit the classes, or lacks words of the texts."""
    graph = read_graph(folder / "HCLG.fst")
    if model is not None:
        graph = graph.relabelled(model)
    graph.check(class_num)
    words = read_text(folder / "words.txt")
    used = dict.fromkeys(word for part in parts.values() for text in part.texts.values() for word in text.split())
    if missing := [word for word in used if word not in words]:
        console.print(
            f"{folder / 'words.txt'}: lacks {number_of(len(missing), 'word')} of the texts, which will be errors: {' '.join(missing)}",
        )
    return graph


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
