"""Recognise speech.

    python infer.py speech.wav more/ 'calls/*.flac'        files, folders, patterns, @LIST, - for sound on standard input
    python infer.py --grammar lamp.txt speech.wav          what may be said, in a few lines: see decoding/grammar.py
    python infer.py --features feats.scp --graphs HCLG.fst --vocabulary words.txt --trans_model final.mdl
    python infer.py --feed in.npz --fetch out.npz          `feature` [N, T, 3, 11, D], `length` [N] -> `posterior` [N, T, C]

Prints the words of each recording, with their times, and writes transcripts.jsonl, .txt, .ctm and .srt to --output_dir.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.decoding.search import open_decoder
from DeepASR.kaldi.tables import read_text
from DeepASR.legacy import Reader, open_features
from DeepASR.opening import USED, open_recogniser
from DeepASR.options import ALIASES, RETIRED_IN_USE, SearchFlags, with_small_devices
from DeepASR.posteriors import Network, build_inference
from DeepASR.recogniser import Recogniser
from DeepASR.recordings import Inputs, find
from DeepASR.transcripts import Transcriber, Transcript, file_of, transcripts_in
from fluid import config as configuration
from fluid.config import ArrayFlags, NotNegative, Range, defaults
from fluid.errors import UserError, raise_unreadable
from fluid.run import console, script
from fluid.runner import Runner, run_arrays

import tyro


@dataclass
@defaults(test_batch_size=8)
class Flags(ArrayFlags, SearchFlags):
    """Recognise speech."""

    recordings: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """WAV and FLAC files, folders, patterns, @LIST for a file of names, - for a recording on standard input; by default
    examples that come along."""
    features: Path | None = None
    """Kaldi's feats.scp, an archive or a list of 2018 (.lst) instead of recordings."""
    reader: Reader = "own"
    """What reads Kaldi's files; kaldi_io, the package kaldi-io, runs the commands in them."""
    utt2spk: Path | None = None
    """Lines `NAME SPEAKER` of recordings (their names without folder and ending) or features, for weights trained with
    --cmvn speaker; by default each stands for itself."""
    n_best: Annotated[int, Range(0, 1000)] = 0
    """Alternatives to write of each recording, and with them how sure each word is; with --pause only the latter."""
    pause: NotNegative = 0.0
    """Seconds of silence at which recordings are divided, each stretch of speech recognised by itself; 0: they are not."""
    pictures: bool = False
    """Draw what the network answered of each recording, and the path of the words that were heard through it."""
    output_dir: Path = Path("transcripts")
    """Folder for results: transcripts.jsonl, .txt, .ctm and .srt, and pictures (.png); those of an earlier call are moved to FOLDER/before."""
    feed: Path | None = None
    """Raw inputs: an .npz with `feature` [N, T, 3, 11, frame_dim] float32 and `length` [N]."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with `posterior` [N, T, class_num]."""


def main(flags: Flags) -> list[Transcript]:
    """Recognise, print and write; returns what was heard."""
    arrays = flags.arrays()
    opened = open_recogniser(flags, USED)
    recogniser = opened.facts
    if arrays is not None:
        made_of = dataclasses.asdict(recogniser.sizes)
        run_arrays(Runner(opened, flags), lambda: build_inference(recogniser.sizes), *arrays, made_of=made_of)
        return []
    inputs = features_of(flags, recogniser)
    transcriber = Transcriber(recogniser, open_decoder(recogniser, flags), flags.n_best, flags.pause)
    network = Network(opened, flags, rows=1 if len(inputs) < 8 else flags.test_batch_size, runs=None)
    console.print(f"{recogniser.introduction()}; {network.how}")
    transcripts: list[Transcript] = []
    with transcripts_in(flags.output_dir) as add:
        for name, posterior in network.posteriors(inputs.read(), speakers_of(flags, recogniser, inputs)):
            transcript = transcriber.transcribe(name, posterior)
            console.print(f"{name}: {transcript.text}")
            if flags.pictures:
                transcriber.draw(flags.output_dir / file_of(len(transcripts), name, "png"), transcript, posterior)
            add(transcript)
            transcripts.append(transcript)
    raise_unreadable(inputs.unreadable, len(inputs))
    return transcripts


def features_of(flags: Flags, recogniser: Recogniser) -> Inputs:
    """Recordings or features that the flags name. Raises DataError for what does not exist."""
    if flags.features is None:
        return Inputs([(name, None) for name in find(flags.recordings or (str(recogniser.examples()),))], recogniser)
    if flags.recordings:
        raise UserError("give recordings or --features, not both")
    return Inputs([*open_features(flags.features, flags.reader)], recogniser)


def speakers_of(flags: Flags, recogniser: Recogniser, inputs: Inputs) -> dict[str, str]:
    """Speaker by name, of those that --utt2spk knows. Raises UserError for weights to which it means nothing."""
    if flags.utt2spk is None:
        return {}
    if not recogniser.normalisation.by_speaker:
        raise UserError("--utt2spk: these weights take off the mean of each utterance so far, whoever speaks")
    known = read_text(flags.utt2spk)
    short = {name: name if flags.features is not None else Path(name).stem for name in inputs.names}
    return {name: known[key] for name, key in short.items() if key in known}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_small_devices(), aliases=ALIASES, retired=RETIRED_IN_USE)))
