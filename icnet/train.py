"""Train ICNet, which says what each pixel of a picture of a street shows.

python train.py                                                     drawn streets, some minutes on a CPU
python train.py --data_dir CITYSCAPES --recipe 2018                 Cityscapes as in 2018
python train.py --data_dir MINE --pretrained_model streets --lr 0.002   fine-tuning on own masks
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.averages import MeasuredWeights
from fluid.config import BatchFlags, Count, Natural, NotNegative, Positive, Range, Share, TrainFlags, Was, defaults
from fluid.data import batches_per_epoch
from fluid.engine import Engine
from fluid.errors import DataError, UserError
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.optimizers import OptimizerFlags, schedule
from fluid.run import console, script
from fluid.session import fingerprint, settle
from fluid.text import number_of
from fluid.trainer import Outcome
from fluid.weights import Report
from icnet.evaluation import Size, by_size, confusion, role_of
from icnet.metrics import Confusion
from icnet.opening import load_weights, open_segmenter
from icnet.reader import Augment, Pairs, Source, check, class_weights, open_pairs, refuse_masks
from icnet.report import finish, show_findings
from icnet.segmenter import BLOCKS, TASK, Blocks, LabelGrid, NetworkFlags, Segmenter

import numpy as np


@dataclass
@defaults(
    optimizer="adam",
    lr=0.006,
    lr_strategy="polynomial_decay",
    lr_power=0.9,
    test_batch_size=4,
    eval_every=600,
    save_every=600,
)
class Flags(OptimizerFlags, BatchFlags, TrainFlags):
    """Train ICNet."""

    data_dir: Path | None = None
    """Folder of the data set, in one of the layouts of README.md; by default drawn streets."""
    width: Positive = 0.375
    """Factor of the channels of every layer; 1 is the network of the paper."""
    blocks: Blocks = (3, 3, 3, 2)
    """Residual blocks of the four groups of the deepest branch: 3 4 6 3 as released, fewer are faster."""
    rounding: Literal["ceil", "floor"] = "floor"
    """Of 1/32 of a side that is no multiple of 32: ceil in July 2018, floor since August 2018."""
    zoom: Annotated[float, Range(0.1, 10)] = 1.0
    """Images are enlarged by this before the network sees them: for thin things in small pictures."""
    crop: tuple[Count, Count] = (192, 384)
    """Height and width of what is cut out of each training image."""
    batch_size: Count = 8
    """Images in a batch, over all devices."""
    num_epochs: Count = 34
    """Passes over the training images."""
    pretrained_model: Annotated[str | None, Was("init_model")] = None
    """Weights: those to start from, a registered name, or a file or folder of any format."""
    allow_partial: bool = False
    """Accept weights that fit only in part."""
    recipe: Literal["own", "2018"] = "own"
    """2018: optimizer, schedule, decay, crop, batch, length and augmentation of the release, where no flag says otherwise."""

    scales: tuple[Positive, Positive] = (0.8, 1.25)
    """Training images are resized by a random factor between these."""
    random_scaling: bool = True
    """Whether they are."""
    flip: Annotated[bool, Was("random_mirror")] = True
    """Mirror every second image."""
    color_jitter: Share = 0.2
    """Change brightness, contrast and saturation by up to this share."""
    color_cast: Share = 0.0
    """Change red, green and blue, each by up to this share, as light of another colour does."""
    reduce_zero_label: bool = False
    """Id 0 of label files means nothing, and every other one is one less."""
    balance: Share = 0.35
    """How much the classes are weighted by how rare they are in the training labels: 0 not at all, 1 by 1 / log(1.02 + share),
    between them by a power of that."""
    hard_share: Share | None = None
    """Only the hardest pixels of each image count in the loss, this share of them."""
    label_grid: LabelGrid = "corners"
    """Where labels are taken for the smaller outputs: corners: where the output is enlarged to; steps: at every 4th, 8th,
    16th pixel, as in 2018."""
    overlap: NotNegative = 0.0
    """Weight of a second loss of the finest output: 1 - intersection over union, of probabilities."""
    every_pixel: bool = False
    """Enlarge the finest output to the size of the labels for its loss, instead of taking the labels nearest to its pixels."""
    statistics_batch: Count | None = None
    """Images that share batch statistics, say those of one GPU; by default the whole batch. Needs xla."""
    max_bad_samples: Natural = 100
    """Unreadable training images that are replaced and reported before the run ends with an error."""
    check_data: bool = False
    """Say how many pixels each class has and what is wrong with the label files; train nothing."""


RECIPE = {
    "optimizer": "momentum",
    "momentum_rate": 0.9,
    "lr": 0.003,
    "lr_strategy": "polynomial_decay",
    "lr_power": 0.9,
    "l2_decay": 1e-4,
    "batch_size": 16,
    "max_steps": 60_000,
    "width": 1.0,
    "blocks": BLOCKS,
    "crop": (720, 720),
    "scales": (0.5, 2.0),
    "flip": True,
    "color_jitter": 0.0,
    "label_grid": "steps",
    "balance": 0.0,
    "save_every": 1000,
}
"""What --recipe 2018 sets."""
ALIASES: dict[str, str] = {"checkpoint_path": "output_dir"}
RETIRED: dict[str, str] = {}
NETWORK_FLAGS = ("width", "blocks", "rounding", "zoom", "reduce_zero_label")
"""Flags that make another network of a run, or other classes."""
FREE = ("max_bad_samples", "check_data")
"""Flags that Programs from files were not built with."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    settled = settle(with_network_of_weights(with_recipe(flags)), TASK, free=FREE)
    flags = settled.flags
    settled.refuse_changes(*NETWORK_FLAGS)
    train_pairs, test_pairs = (open_pairs(flags.data_dir, part, flags.reduce_zero_label) for part in ("train", "val"))
    if flags.check_data:
        check_all(train_pairs, test_pairs)
        return Outcome(step=0, nothing_left=True)
    refuse_masks(train_pairs)
    source = Source(train_pairs, augmentation(flags))
    groups = by_size(test_pairs)
    segmenter = describe(flags, train_pairs, next(iter(groups)))
    batches = batches_per_epoch(source, flags.batch_size)
    epochs = epochs_of(flags, batches)
    length = settled.length(batches, epochs, batch_size=flags.batch_size, accumulate=flags.accumulate_batches)
    settled.refuse_other_length(length)
    programs = settled.programs(lambda: build_programs(flags, segmenter, train_pairs, groups, length.steps_per_epoch))
    engine = settled.start_engine(length.total_steps * flags.accumulate_batches, batch_size=flags.batch_size)

    with settled.open(
        facts={"segmenter": segmenter.to_facts()},
        data={"training images": fingerprint_of(train_pairs), "test images": fingerprint_of(test_pairs)},
        load=(lambda state: start_from(flags, state)) if flags.pretrained_model else None,
    ) as session:
        session.run.say(
            f"ICNet of width {flags.width:g}: {session.update.parameter_count:,} parameters, {number_of(len(segmenter.classes), 'class', 'classes')}, "
            f"{len(train_pairs)} training and {number_of(len(test_pairs), 'test image')}"
        )
        evaluator = Evaluator(engine, programs, flags, test_pairs, groups)
        return session.train(
            lambda start: session.batches(source, start, max_bad=flags.max_bad_samples),
            unit="images",
            evaluations=[Evaluation("eval", evaluator, decides="miou", higher_is_better=True)],
            finish=lambda outcome: finish(session.run, outcome, evaluator),
        )


def with_recipe(flags: Flags) -> Flags:
    """The flags with those of the recipe that the command line does not name."""
    return configuration.with_recipe(flags, RECIPE) if flags.recipe == "2018" else flags


def with_network_of_weights(flags: Flags) -> Flags:
    """The flags with width, blocks, rounding and zoom of the weights to start from, where the command line does not name them."""
    if flags.pretrained_model is None or flags.checkpoint is not None or flags.programs is not None:
        return flags
    facts = open_segmenter(starting(flags)).facts
    network = {"width": facts.width, "blocks": facts.blocks, "rounding": facts.rounding, "zoom": facts.zoom}
    return configuration.with_recipe(flags, network)


def starting(flags: Flags) -> NetworkFlags:
    """The weights to start from, as a script that only uses weights names them."""
    return NetworkFlags(pretrained_model=flags.pretrained_model, allow_partial=flags.allow_partial)


def check_all(*parts: Pairs) -> None:
    """Print what the label files hold. Raises DataError if there is any fault."""
    findings = [check(pairs) for pairs in parts]
    show_findings(parts[0].classes, findings)
    faults = [fault for item in findings for fault in item.faults]
    if faults:
        console.print("\n".join(faults))
        raise DataError(f"{parts[0].origin}: {number_of(len(faults), 'fault')} in the label files, listed above")


def augmentation(flags: Flags) -> Augment:
    """The random changes of training images."""
    scales = flags.scales if flags.random_scaling else (1.0, 1.0)
    if scales[0] > scales[1]:
        raise UserError(f"--scales {scales[0]:g} {scales[1]:g}: the first must not be larger than the second")
    return Augment(flags.crop, scales, flags.flip, flags.color_jitter, flags.color_cast)


def describe(flags: Flags, pairs: Pairs, size: Size) -> Segmenter:
    """The segmenter that the flags and the data describe, for images of `size` (height, width)."""
    return Segmenter(flags.width, flags.rounding, flags.zoom, pairs.classes, size, blocks=flags.blocks)


def epochs_of(flags: Flags, batches: int) -> int:
    """Passes over the data: with a recipe as many as its steps take."""
    steps = max(1, batches // flags.accumulate_batches)
    return -(-flags.max_steps // steps) if flags.recipe == "2018" and flags.max_steps else flags.num_epochs


def build_programs(
    flags: Flags, segmenter: Segmenter, pairs: Pairs, groups: dict[Size, list[int]], steps_per_epoch: int
) -> dict[str, Interface]:
    """The Programs by role, built with Paddle: `train`, perhaps `apply`, and an evaluation for each size of image."""
    from icnet.network import evaluation_program, inference_program, training_programs

    rate = schedule(flags, steps_per_epoch=steps_per_epoch, num_epochs=flags.num_epochs)
    if flags.recipe == "2018" and flags.max_steps is not None:
        rate = schedule(flags, steps_per_epoch=flags.max_steps, num_epochs=1)
    weights = weights_of_classes(flags, pairs) if flags.balance else None
    evaluations = {role_of(size): evaluation_program(segmenter, size) for size in groups}
    if flags.capture is not None:  # for infer.py, where there is no Paddle
        evaluations["infer"] = inference_program(segmenter, segmenter.size)
    return {**training_programs(flags, segmenter, flags.crop, rate, weights), **evaluations}


def weights_of_classes(flags: Flags, pairs: Pairs) -> list[float]:
    """The weight of each class in the loss."""
    return class_weights(check(pairs).pixels[: len(pairs.classes)], flags.balance)


def fingerprint_of(pairs: Pairs) -> str:
    """A fingerprint of the files' names."""
    return fingerprint([Path(path).name for path in (*pairs.images, *pairs.labels)])


def start_from(flags: Flags, state: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Report]:
    """`state` with the weights of --pretrained_model, and what became of each of them."""
    return load_weights(state, str(flags.pretrained_model), allow_partial=flags.allow_partial)


class Evaluator:
    """Measures the weights in training, or their moving averages."""

    def __init__(
        self,
        engine: Engine,
        programs: Mapping[str, Interface],
        flags: Flags,
        pairs: Pairs,
        groups: dict[Size, list[int]],
    ):
        evaluations = [programs[role_of(size)] for size in groups if role_of(size) in programs]
        if len(evaluations) < len(groups):
            raise DataError(f"the Programs do not evaluate images of all sizes of {pairs.origin}: capture them with it")
        names = {name for program in evaluations for name in program.state_names}
        update = programs.get("apply", programs["train"])
        self.weights = MeasuredWeights(engine, update, names, flags)
        self.programs, self.flags, self.pairs, self.groups = programs, flags, pairs, groups
        self.measured = Confusion(pairs.classes)

    def __call__(self) -> dict[str, float]:
        """The scores over all test images, see `metrics.scores`; the counts are kept as `measured`."""
        self.measured = confusion(
            self.weights.engine(),
            lambda size: self.programs[role_of(size)],
            self.pairs,
            self.groups,
            batch_size=self.flags.test_batch_size,
            num_workers=self.flags.num_workers,
        )
        return self.measured.result()


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
