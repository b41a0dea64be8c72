"""Train a network that reads words.

python train.py                                                  made words in many fonts, minutes on a CPU
python train.py --style general --model crnn --height 48         English words, names, numbers and signs: for a GPU
python train.py --data_dir MINE --pretrained_model english --lr 0.0003    fine-tuning on own pictures
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, Beam, Count, TrainFlags, defaults
from fluid.data import Batch
from fluid.errors import UserError
from fluid.evaluator import Evaluator
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.optimizers import OptimizerFlags, schedule
from fluid.run import script
from fluid.session import Length, Session, Settled, settle
from fluid.text import number_of
from fluid.trainer import Outcome
from fluid.weights import Report
from ocr_recognition.metrics import Accuracy
from ocr_recognition.opening import load_all_but_head, open_recognizer
from ocr_recognition.options import ALIASES, RETIRED, NetworkFlags, with_never
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.recipe import with_recipe
from ocr_recognition.recognizer import TASK, Blank, Model, Recognizer
from ocr_recognition.report import finish
from ocr_recognition.sources import (
    DataFlags,
    TrainingWords,
    alphabet_of,
    check_words,
    fingerprints,
    notes_on,
    refuse_idle,
    test_source,
    training_source,
)

import numpy as np


@dataclass
@defaults(
    optimizer="adam",
    lr=0.002,
    lr_strategy="cosine_decay_warmup",
    grad_clip=5.0,
    test_batch_size=64,
)
class Flags(DataFlags, OptimizerFlags, BatchFlags, TrainFlags):
    """Train a network that reads words."""

    model: Model = "crnn_small"
    """Network: the deeper CRNN or a small one, or those of 2018, crnn_ctc and attention."""
    height: Count = 32
    """Rows that pictures are resized to."""
    blank: Blank = "last"
    """CTC: the class of the blank, before or after the characters."""
    longest: Count = 25
    """attention: most characters of a word."""
    batch_size: Count = 16
    """Words in a batch, over all devices."""
    num_epochs: Count = 6
    """Passes over the words."""
    pretrained_model: str | None = None
    """Weights: those to start from, of this network; where other characters are to be read, all but the head."""
    allow_partial: bool = False
    """Accept weights that fit only in part."""
    beam_size: Beam = 2
    """attention: hypotheses kept where the reading is measured while training."""
    recipe: Literal["own", "2018"] = "own"
    """2018: the optimizer, learning rate, decay, averages, losses and first values of then, where no flag says otherwise."""


WARMUP_STEPS = 100
"""Where no flag says it."""
NETWORK_FLAGS = ("model", "height", "max_width", "rotate_tall", "blank", "dict", "longest")
"""Flags that make another network of a run."""
FREE = ("train_list", "test_list", "num_words")
"""Flags that Programs from files were not built with."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    refuse_idle(flags)
    settled = settle(with_recipe(flags), TASK, free=FREE)
    flags = settled.flags
    settled.refuse_changes(*NETWORK_FLAGS)
    recognizer = describe(flags, settled.facts)
    if flags.check_data:
        check_words(flags, recognizer)
        return Outcome(step=0, nothing_left=True)
    train_words, test_words = training_source(flags, recognizer, flags.batch_size), test_source(flags, recognizer)
    length = length_of(settled, train_words)
    programs = settled.programs(lambda: build_programs(flags, recognizer, length.steps_per_epoch))
    runs = length.total_steps * flags.accumulate_batches
    engine = settled.start_engine(runs, batch_size=flags.batch_size)

    with settled.open(
        facts={"recognizer": recognizer.to_facts()},
        data=fingerprints(train_words, test_words),
        load=(lambda state: start_from(flags, state, recognizer)) if flags.pretrained_model else None,
    ) as session:
        session.run.say(
            f"{recognizer.model}: {session.update.parameter_count:,} parameters, {number_of(len(recognizer.alphabet), 'character')}; "
            f"{train_words.origin} to train on, {test_words.origin} to measure"
        )
        for line in notes_on(train_words, recognizer):
            session.run.say(line)
        feeds = (learned_from(feed) for feed in train_words.blanks(engine.num_hosts))
        session.compile_ahead(feeds, f"words of {', '.join(map(str, train_words.edges))} columns")
        counted, plan = partial(Accuracy, recognizer, test_words.texts), test_words.evaluation_plan
        rows = flags.test_batch_size
        evaluator = Evaluator(session, programs["eval"], test_words, counted, batch_size=rows, plan=plan)
        return session.train(
            lambda start: open_batches(session, train_words, start),
            unit="words",
            evaluations=[Evaluation("eval", evaluator, decides="exact", higher_is_better=True)],
            finish=lambda outcome: finish(session.run, outcome, evaluator.measured, test_words, recognizer),
        )


def describe(flags: Flags, facts: dict[str, Any] | None) -> Recognizer:
    """The recogniser of the run that goes on, of the weights to start from, or that the flags describe."""
    if facts is not None:
        return Recognizer.from_facts(facts["recognizer"])
    if flags.pretrained_model is not None:
        return describe_started(flags)
    return Recognizer(
        flags.model,
        alphabet_of(flags),
        Preprocess(flags.height, flags.max_width, flags.rotate_tall),
        blank_first=flags.blank == "first",
        longest=flags.longest,
    )


def describe_started(flags: Flags) -> Recognizer:
    """That of --pretrained_model, with what named flags change without another network. Raises UserError if they mean one."""
    named = configuration.named(flags)
    opened = open_recognizer(weights_named_by(flags, flags.model if "model" in named else None))
    found = opened.facts
    for name, own in (("height", found.preprocess.height), ("blank", "first" if found.blank_first else "last")):
        if name in named and getattr(flags, name) != own:
            raise UserError(f"--{name} {getattr(flags, name)}: {opened.source} has {own}; leave the flag out")
    chosen = {name: getattr(flags, name) for name in ("max_width", "rotate_tall") if name in named}
    return replace(
        found,
        alphabet=found.alphabet if flags.dict is None else alphabet_of(flags),
        preprocess=replace(found.preprocess, **chosen),
        longest=flags.longest if "longest" in named else found.longest,
    )


def weights_named_by(flags: Flags, model: Model | None) -> NetworkFlags:
    """The flags of the weights to start from, of this network where it is known."""
    return NetworkFlags(pretrained_model=flags.pretrained_model, model=model, allow_partial=flags.allow_partial)


def length_of(settled: Settled[Flags], words: TrainingWords) -> Length:
    """Updates of the run."""
    flags, batches = settled.flags, words.batches_per_epoch
    epochs = epochs_of(flags, batches // flags.accumulate_batches)
    length = settled.length(batches, epochs, batch_size=flags.batch_size, accumulate=flags.accumulate_batches)
    settled.refuse_other_length(length)
    return length


def epochs_of(flags: Flags, steps_per_epoch: int) -> int:
    """Passes over the words: with a recipe as many as its steps take."""
    if flags.recipe != "2018" or flags.max_steps is None:
        return flags.num_epochs
    return -(-flags.max_steps // max(1, steps_per_epoch))


def build_programs(flags: Flags, recognizer: Recognizer, steps_per_epoch: int) -> dict[str, Interface]:
    """The Programs by role, built with Paddle; with --capture that of infer.py too."""
    from fluid.optimizers import optimizer
    from ocr_recognition.network import evaluation_program, inference_program, training_programs

    epochs = epochs_of(flags, steps_per_epoch)
    rate = schedule(flags, steps_per_epoch=steps_per_epoch, num_epochs=epochs, warmup_steps=WARMUP_STEPS)
    training = training_programs(
        recognizer,
        optimizer=lambda: optimizer(flags),
        schedule=rate,
        accumulate_batches=flags.accumulate_batches,
        ema_decay=flags.averaging,
        as_in_2018=flags.recipe == "2018",
    )
    programs: dict[str, Interface] = {**training, "eval": evaluation_program(recognizer, flags.beam_size)}
    return {**programs, "infer": inference_program(recognizer, flags.beam_size)} if flags.capture else programs


def start_from(
    flags: Flags, state: dict[str, np.ndarray], recognizer: Recognizer
) -> tuple[dict[str, np.ndarray], Report]:
    """`state` with the weights of --pretrained_model, and what became of each of them."""
    opened = open_recognizer(weights_named_by(flags, recognizer.model), say=lambda line: None)
    return load_all_but_head(state, opened, recognizer, allow_partial=flags.allow_partial)


@contextmanager
def open_batches(session: Session[Flags], source: TrainingWords, start: int) -> Iterator[Iterator[Batch]]:
    """The training batches from a position on."""
    with session.batches(source, start, plan=source.plan(session.flags.seed)) as batches:
        yield (replace(batch, feed=learned_from(batch.feed)) for batch in batches)


def learned_from(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the training Program is fed: all but the numbers of the words."""
    return {name: array for name, array in feed.items() if name != "index"}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_never(), aliases=ALIASES, retired=RETIRED)))
