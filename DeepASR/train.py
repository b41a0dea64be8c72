"""Train the acoustic model of a speech recogniser, frame by frame.

python train.py                                        the spoken commands that come along, minutes on a CPU
python train.py --data_dir aishell --hidden_dim 1024 --proj_dim 512 --stacked_num 5      what prepare_*.py wrote
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.augmentation import AugmentationFlags
from DeepASR.corpus import Corpus, Part, open_corpus
from DeepASR.legacy import read_lists
from DeepASR.metrics import FrameAccuracy
from DeepASR.newbob import Newbob
from DeepASR.options import ALIASES, RETIRED_IN_TRAINING, NetworkFlags, with_small_devices
from DeepASR.pictures import CURVES
from DeepASR.reader import LONGEST_UNCUT, Utterances, blank
from DeepASR.recogniser import TASK, Normalisation, Recogniser, log_prior_of, rounded
from DeepASR.sizes import Sizes
from DeepASR.transforms import add_deltas, read_statistics, speaker_means, statistics
from fluid import config as configuration
from fluid.checkpoint import Meta
from fluid.config import BatchFlags, Count, Natural, Positive, TrainFlags, Was, defaults, named
from fluid.errors import UserError
from fluid.evaluator import Evaluator
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.optimizers import OptimizerFlags, counts_epochs, schedule
from fluid.pictures import draw_curves
from fluid.run import Run, events, script, show_summary
from fluid.schedule import Exponential
from fluid.session import Length, Session, Settled, fingerprint, settle
from fluid.text import number_of
from fluid.trainer import Outcome
from fluid.weights import Opened, Report, load_into

import numpy as np


@dataclass
@defaults(optimizer="adam", lr=0.003, grad_clip=5.0, test_batch_size=16)
class Flags(AugmentationFlags, OptimizerFlags, BatchFlags, TrainFlags):
    """Train the acoustic model of a speech recogniser."""

    data_dir: Path | None = None
    """Folder that prepare_*.py wrote; by default the spoken commands that come along."""
    train_feature_lst: Path | None = None
    """List of features to train on, as in 2018 (.lst), instead of data_dir; with the three others."""
    train_label_lst: Path | None = None
    """List of their labels."""
    val_feature_lst: Path | None = None
    """List of features to choose by."""
    val_label_lst: Path | None = None
    """List of the labels of those."""
    class_num: Count = 3040
    """Tied states (pdfs) of those lists."""
    mean_var: Path | None = None
    """Mean and variance of each column, a line each, as in 2018; by default those of the training utterances."""
    without_speakers: tuple[str, ...] = ()
    """Speakers to leave out of training and of dev."""
    running_mean: Natural = 100
    """Take off the mean of an utterance so far, which begins as the overall mean of so many frames; 0: do not."""
    cmvn: Literal["running", "speaker"] = "running"
    """speaker: take off the mean over all that a speaker says instead, except where sound is recognised while it comes in."""

    recipe: Literal["own", "2018"] = "own"
    """2018: sizes, optimizer, schedule and input of 2018, where no flag says otherwise."""
    pretrained_model: str | None = None
    """Weights: those to start from, a name, a file or folder of any format, or a checkpoint."""
    allow_partial: bool = False
    """Accept weights that fit only in part."""
    hidden_dim: Count = 192
    """Cells of a recurrent layer; 1024 in 2018."""
    proj_dim: Count = 96
    """Outputs of a recurrent layer; 512 in 2018."""
    stacked_num: Count = 2
    """Recurrent layers; 5 in 2018."""
    filters: Count = 16
    """Filters of the convolution; 32 in 2018."""

    batch_size: Count = 16
    """Utterances in a batch, or pieces of long ones, over all devices."""
    num_epochs: Annotated[Count, Was("pass_num")] = 8
    """Passes over the training utterances."""
    newbob: bool = False
    """Instead of --lr_strategy: halve the learning rate after each evaluation, once dev's frame accuracy grows by less than
    half a per cent from one to the next."""
    split_frames: Count = LONGEST_UNCUT
    """Longer utterances are cut into pieces of 256 frames and a few more."""
    lengths: tuple[Count, ...] = ()
    """Frames that batches are padded to; by default four numbers that fit the data. Each is compiled for."""
    acoustic_scale: Positive = 0.2
    """Weight of the network against the language model in decoding, kept with the weights; eval.py --sweep finds it."""


SIZE_FLAGS = ("hidden_dim", "proj_dim", "stacked_num", "filters")
"""Flags that weights to start from decide."""
NETWORK_FLAGS = (*SIZE_FLAGS, "mean_var", "running_mean", "cmvn", "acoustic_scale")
"""Flags that make another network of a run, or say what is kept with its weights."""
LISTS = ("train_feature_lst", "train_label_lst", "val_feature_lst", "val_label_lst")
"""Flags of 2018 that name the data."""
FREE = ("mean_var", *LISTS)
"""Flags that Programs from files were not built with."""
RECIPE_OF_2018: dict[str, Any] = {
    "lr": 0.00016,
    "lr_strategy": "exponential_decay_warmup",
    "decay_rate": 1 / 1.2,
    "grad_clip": None,
    "batch_size": 32,
    "num_epochs": 100,
    "hidden_dim": 1024,
    "proj_dim": 512,
    "stacked_num": 5,
    "filters": 32,
    "running_mean": 0,
}
"""What --recipe 2018 sets."""
DECAY_EVERY = 1879
"""Updates between two decays of 2018's learning rate."""
OWN_DECAY = {"decay_epochs", "warmup_steps", "warmup_epochs"}
"""Flags that make it another."""
WARMUP_STEPS = 100
"""Where no flag says it."""
STATISTICS_OF = 5000
"""Utterances that mean and variance are taken from, at most."""
NEWBOB = "newbob"
"""Among the facts of a checkpoint: what newbob decided."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    settled = settle(with_recipe(flags), TASK, free=FREE)
    flags = settled.flags
    settled.refuse_changes(*NETWORK_FLAGS)
    corpus, parts = open_data(flags)
    recogniser = describe(flags, corpus, parts["train"], settled.facts)
    source, dev = sources(flags, parts, recogniser.normalisation)
    length = length_of(settled, source)
    if counts_epochs(flags):
        settled.refuse_other_length(length)
    programs = settled.programs(lambda: build_programs(flags, recogniser.sizes, length.steps_per_epoch))
    newbob = newbob_of(flags, programs, settled.facts)
    engine = settled.start_engine(None, batch_size=flags.batch_size)

    with settled.open(
        facts={"recogniser": recogniser.to_facts()},
        data=fingerprints(parts),
        load=(lambda state: start_from(flags, state)) if flags.pretrained_model else None,
    ) as session:
        announce(session, recogniser, source, dev)
        dim = recogniser.sizes.frame_dim
        feeds = source.buckets.blanks(lambda rows, edge: blank(rows, edge, dim), engine.num_hosts)
        session.compile_ahead(feeds, f"pieces of {', '.join(map(str, source.buckets.edges))} frames")
        rows, plan = flags.test_batch_size, dev.buckets.evaluation_plan
        evaluator = Evaluator(session, programs["eval"], dev, FrameAccuracy, batch_size=rows, plan=plan)
        evaluate = evaluator if newbob is None else deciding_rates(newbob, evaluator, session.meta)
        return session.train(
            lambda start: session.batches(source, start, plan=source.buckets.training_plan(seed=flags.seed)),
            unit="utterances",
            evaluations=[Evaluation("eval", evaluate, decides="frame_accuracy", higher_is_better=True)],
            finish=lambda outcome: finish(session.run, outcome),
        )


def with_recipe(flags: Flags) -> Flags:
    """The flags with those of the recipe that the command line does not name."""
    return configuration.with_recipe(flags, RECIPE_OF_2018) if flags.recipe == "2018" else flags


def open_data(flags: Flags) -> tuple[Corpus, dict[str, Part]]:
    """The corpus and its parts: a prepared folder, or lists of 2018. Raises UserError or DataError."""
    lists = [getattr(flags, name) for name in LISTS]
    if any(lists):
        if not all(lists):
            raise UserError(f"--{', --'.join(LISTS)} go together")
        if flags.data_dir is not None:
            raise UserError(f"--data_dir and --{LISTS[0]} name two data sets: leave one out")
        features, labels, val_features, val_labels = lists
        corpus, parts = read_lists(features, labels, val_features, val_labels, flags.class_num)
    else:
        corpus = open_corpus(flags.data_dir)
        parts = {name: corpus.part(name) for name in ("train", "dev")}
    # Not everybody need be in dev.
    in_dev = set(parts["dev"].speakers.values()).intersection(flags.without_speakers)
    return corpus, {"train": parts["train"].without(flags.without_speakers), "dev": parts["dev"].without(in_dev)}


def describe(flags: Flags, corpus: Corpus, part: Part, facts: dict | None) -> Recogniser:
    """The recogniser of the run that goes on, or that the flags and the data describe.

    Raises DataError if the data have other classes than that of the run.
    """
    if facts is not None:
        recogniser = Recogniser.from_facts(facts["recogniser"])
        recogniser.refuse_other_classes(corpus)
        return recogniser
    return Recogniser(
        sizes_for(flags, corpus),
        normalisation_of(flags, part),
        log_prior_of(np.concatenate(list(part.alignments.values())), corpus.class_num),
        corpus.unit,
        corpus.frontend,
        corpus.lexicon,
        corpus.language_model,
        flags.acoustic_scale,
        corpus.about,
    )


def sizes_for(flags: Flags, corpus: Corpus) -> Sizes:
    """Those of --pretrained_model, or of the flags, for the data's frames and classes.

    Raises UserError if a named flag means another network than that of the weights, which --allow_partial admits.
    """
    if flags.pretrained_model is None:
        return Sizes(
            corpus.frame_dim, flags.stacked_num, flags.hidden_dim, flags.proj_dim, corpus.class_num, flags.filters
        )
    opened = open_started(flags)
    chosen = {name: getattr(flags, name) for name in SIZE_FLAGS if name in named(flags)}
    for name, size in chosen.items():
        if size != (own := getattr(opened.facts.sizes, name)) and not flags.allow_partial:
            raise UserError(f"--{name} {size}: {opened.source} has {own}; leave the flag out")
    return replace(opened.facts.sizes, frame_dim=corpus.frame_dim, class_num=corpus.class_num, **chosen)


def normalisation_of(flags: Flags, part: Part) -> Normalisation:
    """Mean and variance of the training utterances, or those that a flag names."""
    if flags.mean_var is not None:
        known = read_statistics(flags.mean_var)
        return Normalisation(rounded(known.mean), rounded(known.variance))
    names = list(part)[:: -(-len(part) // STATISTICS_OF)]
    running: tuple[float, ...] = ()
    if flags.running_mean:
        frames = sum(part.lengths[name] for name in names)
        running = rounded(sum(part[name].sum(axis=0, dtype=np.float64) for name in names) / frames)
    width = part[names[0]].shape[1]
    rest = (running, float(flags.running_mean), flags.cmvn == "speaker")
    bare = Normalisation((0.0,) * 3 * width, (1.0,) * 3 * width, *rest)
    means = speaker_means(part, part.speakers) if bare.by_speaker else {}
    found = statistics([add_deltas(bare.centred(part[name], means.get(name))) for name in names])
    return Normalisation(rounded(found.mean), rounded(found.variance), *rest)


def sources(flags: Flags, parts: Mapping[str, Part], normalisation: Normalisation) -> tuple[Utterances, Utterances]:
    """Utterances to train on, and of dev."""
    train = Utterances(
        parts["train"],
        normalisation,
        batch_size=flags.batch_size,
        uncut=flags.split_frames,
        seed=flags.seed,
        augmentation=AugmentationFlags.of(flags),
        lengths=flags.lengths,
    )
    dev = Utterances(parts["dev"], normalisation, batch_size=flags.test_batch_size, uncut=None, lengths=flags.lengths)
    return train, dev


def length_of(settled: Settled[Flags], source: Utterances) -> Length:
    """Updates of the run."""
    flags = settled.flags
    batches = len(source.buckets.training_plan(seed=flags.seed)(0))
    return settled.length(batches, flags.num_epochs, batch_size=flags.batch_size, accumulate=flags.accumulate_batches)


def build_programs(flags: Flags, sizes: Sizes, steps_per_epoch: int) -> Mapping[str, Interface]:
    """The Programs by role, built with Paddle."""
    from DeepASR import building

    if flags.recipe == "2018" and flags.lr_strategy == RECIPE_OF_2018["lr_strategy"] and not OWN_DECAY & named(flags):
        return building.build_programs(flags, sizes, Exponential(flags.lr, DECAY_EVERY, flags.decay_rate))
    rate = schedule(flags, steps_per_epoch=steps_per_epoch, num_epochs=flags.num_epochs, warmup_steps=WARMUP_STEPS)
    return building.build_programs(flags, sizes, rate)


def newbob_of(flags: Flags, programs: Mapping[str, Interface], facts: dict | None) -> Newbob | None:
    """What sets the learning rate where --newbob asks for it. Raises UserError beside a schedule."""
    if not flags.newbob:
        return None
    if flags.recipe == "2018" or "lr_strategy" in named(flags):
        raise UserError("--newbob decides the learning rate by itself: leave --lr_strategy and --recipe 2018 out")
    return Newbob(programs.get("apply", programs["train"]), flags.lr, dict((facts or {}).get(NEWBOB, {})))


def fingerprints(parts: Mapping[str, Part]) -> dict[str, str]:
    """A fingerprint of names, texts and alignments of each part."""
    return {
        name: fingerprint(part.texts, part.texts.values(), np.concatenate(list(part.alignments.values())))
        for name, part in parts.items()
    }


def start_from(flags: Flags, state: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Report]:
    """`state` with the weights of --pretrained_model, and what became of each of them."""
    opened = open_started(flags, say=lambda line: None)
    return load_into(state, opened.state, allow_partial=flags.allow_partial)


def open_started(flags: Flags, say: Callable[[str], None] | None = None) -> Opened[Recogniser]:
    """The weights of --pretrained_model."""
    from DeepASR.opening import open_recogniser

    weights = NetworkFlags(pretrained_model=flags.pretrained_model, allow_partial=flags.allow_partial)
    return open_recogniser(weights, say=say)


def announce(session: Session, recogniser: Recogniser, source: Utterances, dev: Utterances) -> None:
    """Say what is trained on what."""
    sizes = recogniser.sizes
    session.run.say(
        f"{sizes.stacked_num} x LSTMP {sizes.hidden_dim}/{sizes.proj_dim}, {session.update.parameter_count:,} parameters, "
        f"{sizes.class_num} classes; {recogniser.about.get('language', 'data of your own')}"
    )
    lengths = ", ".join(map(str, source.buckets.edges))
    session.run.say(
        f"to train on {number_of(len(source), 'utterance or piece', 'utterances or pieces')}, padded to {lengths} frames; {len(dev)} of dev"
    )


def deciding_rates(newbob: Newbob, evaluate: Evaluator, meta: Meta) -> Callable[[], dict[str, float]]:
    """The same evaluation, by which newbob decides the learning rate from then on; the checkpoint remembers what."""
    meta.extra[NEWBOB] = newbob.memory

    def measured() -> dict[str, float]:
        result = evaluate()
        newbob.measured(meta.step, result["frame_accuracy"])
        return result

    return measured


def finish(run: Run, outcome: Outcome) -> None:
    """Draw the curves and print the summary."""
    folder = run.output_dir
    drawn = draw_curves(folder / "curves.png", CURVES, events(folder, "train"), events(folder, "eval"))
    show_summary("dev", outcome.summary("utterances", {"frame accuracy %": "frame_accuracy"}, digits=2))
    note = " (by frames; eval.py measures errors in words)"
    run.say_left([drawn], skipped_samples=outcome.skipped_samples, note=note)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_small_devices(), aliases=ALIASES, retired=RETIRED_IN_TRAINING)))
