"""From recordings and their texts to a prepared data set: checks, features, alignments from a flat start.

What is wrong with a recording is an error that names it, or, with `leave_out`, leaves it out and says so: nothing is
skipped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DeepASR.audio import problem
from DeepASR.corpus import Corpus, PartData, write_corpus
from DeepASR.decoding import language_model
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.features import Frontend
from DeepASR.forced_alignment import make_chain
from DeepASR.metrics import Unit
from DeepASR.preparing.flat_start import flat_start
from fluid.errors import DataError
from fluid.text import number_of

import numpy as np

Say = Callable[[str], None]
SHOWN = 10
"""Messages of one kind that are printed."""


@dataclass(frozen=True, eq=False)
class Recording:
    """An utterance."""

    name: str
    speaker: str
    words: tuple[str, ...]
    samples: np.ndarray
    """[n] at the frontend's rate, on the 16-bit scale."""
    unreadable: str | None = None
    """Why there are none."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """A recording that can be used, by its features [frames, num_bins]: its samples are forgotten."""

    name: str
    speaker: str
    words: tuple[str, ...]
    features: np.ndarray


def prepare(
    folder: Path,
    parts: Mapping[str, Iterable[Recording]],
    lexicon: Lexicon,
    *,
    frontend: Frontend,
    unit: Unit,
    about: Mapping[str, Any],
    order: int = 3,
    by_speaker: Callable[[str], str] | None = None,
    leave_out: bool = False,
    say: Say = print,
) -> None:
    """Check, compute features, align train and dev, and write the data set.

    Args:
        parts: recordings of `train`, `dev`, `test`; the language model is trained on the texts of `train`.
        order: of the language model.
        by_speaker: the group of a speaker; each has a flat start of its own. None: there is one for all.
        leave_out: leave recordings out that cannot be used, instead of ending.

    Raises DataError that lists all words without a pronunciation, or all recordings that cannot be used.
    """
    usable = {name: _usable(recordings, lexicon, frontend, leave_out, say) for name, recordings in parts.items()}
    features = {item.name: item.features for part in usable.values() for item in part}
    aligned = [item for name in usable if name != "test" for item in usable[name]]
    group_of = {item.name: by_speaker(item.speaker) if by_speaker else "" for item in aligned}
    paths: dict[str, np.ndarray] = {}
    for group in sorted(set(group_of.values())):
        texts = {item.name: item.words for item in aligned if group_of[item.name] == group}
        say(f"aligning {number_of(len(texts), 'recording')} {f'of {group} ' if group else ''}from a flat start")
        paths |= flat_start(features, texts, lexicon)
    data = {
        name: PartData(
            {item.name: item.features for item in part},
            {item.name: " ".join(item.words) for item in part},
            {item.name: item.speaker for item in part},
            {item.name: paths[item.name] for item in part if item.name in paths},
        )
        for name, part in usable.items()
    }
    model = language_model.train([item.words for item in usable["train"]], order)
    corpus = Corpus(
        folder,
        frontend.num_bins,
        lexicon.class_num,
        unit,
        frontend,
        lexicon,
        language_model.to_arpa(model),
        about,
    )
    write_corpus(corpus, data)
    seconds = sum(map(len, features.values())) / 100
    counts = ", ".join(f"{name} {len(part)}" for name, part in usable.items())
    say(f"{folder}: {counts} recordings, {seconds / 60:.1f} minutes, {lexicon.class_num} classes")


def _usable(
    recordings: Iterable[Recording], lexicon: Lexicon, frontend: Frontend, leave_out: bool, say: Say
) -> list[Utterance]:
    kept: list[Utterance] = []
    problems: list[str] = []
    missing: dict[str, str] = {}
    for item in recordings:
        lacking = lexicon.missing(item.words)
        missing |= {word: item.name for word in lacking if word not in missing}
        if lacking:
            continue
        wrong = item.unreadable or problem(item.samples, frontend.sample_rate) or _too_short(item, lexicon, frontend)
        if wrong:
            problems.append(f"{item.name}: {wrong}")
        else:
            kept.append(Utterance(item.name, item.speaker, item.words, frontend.features(item.samples)))
    if missing:
        listed = "\n".join(f"  {word} (first in {name})" for word, name in missing.items())
        raise DataError(f"the lexicon has no pronunciation of {number_of(len(missing), 'word')}:\n{listed}")
    if problems and not leave_out:
        raise DataError(f"{listing(problems)}\nmend or remove them, or give --leave_out")
    if problems:
        say(f"left out: {number_of(len(problems), 'recording')}\n{listing(problems)}")
    if not kept:
        raise DataError("no recording is left")
    return kept


def listing(problems: Sequence[str]) -> str:
    """The first of them, a line each, and how many more."""
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "\n".join(f"  {line}" for line in problems[:SHOWN]) + more


def _too_short(item: Recording, lexicon: Lexicon, frontend: Frontend) -> str | None:
    if not item.words:
        return "its text is empty"
    frames = len(item.samples) * 100 // frontend.sample_rate - 2
    shortest = make_chain(lexicon, item.words).shortest
    return f"{number_of(frames, 'frame')}, too few for its text, which needs {shortest}" if frames < shortest else None
