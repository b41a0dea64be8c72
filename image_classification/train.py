"""Train an image classifier.

python train.py                                                   the embedded images, a few minutes on a CPU
python train.py --data_dir ILSVRC2012 --model ResNet50            ImageNet with the recipe of 2018
python train.py --data_dir MINE                                   fine-tuning of the MobileNetV2 that comes along
python train.py --data_dir MINE --model ResNet50 --pretrained_model ResNet50    fine-tuning of another
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, Count, Natural, Positive, Range, Share, TrainFlags, defaults
from fluid.data import Batch, batches_per_epoch
from fluid.errors import DataError, UserError
from fluid.evaluator import Evaluator
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.optimizers import OptimizerFlags, schedule
from fluid.programs import Captured
from fluid.run import console, script
from fluid.session import Session, fingerprint, settle
from fluid.text import number_of
from fluid.trainer import Outcome
from fluid.weights import Report
from image_classification import recipes
from image_classification.augment import Augment
from image_classification.balance import BALANCED, Repeated, balanced_plan, class_weights
from image_classification.classifier import TASK, Classifier
from image_classification.duplicates import remarks
from image_classification.fitting import load_weights, names_of_classes
from image_classification.metrics import Accuracy
from image_classification.mixing import MixingFlags, mixed
from image_classification.reader import ImageSource, Preprocess, class_names, count_classes, open_images
from image_classification.report import finish
from image_classification.scaled import scaled_copy

import numpy as np


@dataclass
@defaults(l2_decay=5e-4, test_batch_size=100)
class Flags(MixingFlags, OptimizerFlags, BatchFlags, TrainFlags):
    """Train an image classifier."""

    data_dir: Path | None = None
    """Folder with train_list.txt and val_list.txt, or with train/CLASS/ and val/CLASS/; by default the embedded images."""
    model: str | None = None
    """Network; `./zoo list models` names them. By default SmallNet for pictures of up to 64 pixels, else MobileNetV2_tf."""
    class_dim: Count | None = None
    """Number of classes; by default as many as the data set has."""
    image_shape: tuple[Count, Count, Count] | None = None
    """Channels, height, width of the network's input; by default the network's own."""
    batch_size: Count = 64
    """Images in a batch, over all devices."""
    num_epochs: Count = 40
    """Passes over the training images."""
    pretrained_model: str | None = None
    """Weights: those to start from, a registered name, or a file or folder of any format."""
    from_scratch: bool = False
    """Start from random numbers, where otherwise weights that come along would be the start."""
    finetune_exclude_pretrained_params: tuple[str, ...] = ()
    """Parameters not to take from --pretrained_model; a head for another number of classes is found without it."""
    allow_partial: bool = False
    """Accept weights that fit only in part."""
    freeze: Literal["none", "statistics", "backbone"] = "none"
    """What is not trained: the statistics of batch normalisation, or all but the head; the recipe of fine-tuning says the
    latter."""
    freeze_params: tuple[str, ...] = ()
    """Parameters that are not trained, by patterns such as 'conv[1-4]*'."""
    head_lr: Positive = 1.0
    """Factor on the learning rate of the head."""
    first_layer_lr: Positive = 1.0
    """Factor on the learning rate of the first layer; it grows by the same ratio from layer to layer, to 1 (layer-wise decay)."""

    statistics_batch: Count | None = None
    """Images that share batch statistics; by default 256 where the batch is a multiple, all of a smaller one. Needs xla."""
    class_weights: str | None = None
    """What classes count in the loss: `balanced` as much as one another, whatever the number of their images, or a file of lines
    `CLASS WEIGHT`; by default every image counts the same."""
    balanced_sampling: bool = False
    """Draw as many images of each class as of any other, those of small classes several times."""

    augment: Literal["auto", "resized", "shifted", "none"] = "auto"
    """Training crops: resized (random area and ratio), shifted (by a few pixels); auto shifts images below 65 pixels."""
    lower_scale: Positive = 0.08
    """Smallest part of the area of a resized crop."""
    lower_ratio: Positive = 3 / 4
    """Smallest width : height of a resized crop."""
    upper_ratio: Positive = 4 / 3
    """Largest width : height of a resized crop."""
    max_shift: Natural = 2
    """Pixels by which a shifted crop moves."""
    flip: bool = True
    """Mirror every second image."""
    rotate: bool = False
    """Rotate by up to 10 degrees."""
    color_jitter: bool = False
    """Change brightness, contrast and saturation by up to half."""
    randaugment: Natural = 0
    """So many of the 14 changes of RandAugment, drawn anew for each image (Cubuk et al., arXiv:1909.13719); usual is 2."""
    randaugment_magnitude: Annotated[float, Range(0, 30)] = 9
    """Their strength, 0 to 30."""
    random_erasing: Share = 0.0
    """Share of the images of which a rectangle becomes noise (Zhong et al., arXiv:1708.04896); usual is 0.25."""
    resize_short_size: Count | None = None
    """Short side of an evaluation image before its central crop; by default the network's own."""
    interpolation: Literal["linear", "area", "cubic", "lanczos"] = "linear"
    """How images are resized."""
    image_mean: tuple[Share, Share, Share] | None = None
    """Mean of red, green, blue in 0..1; by default the network's own."""
    image_std: tuple[Positive, Positive, Positive] | None = None
    """Standard deviation of red, green, blue; by default the network's own."""
    prescale_short_side: Count | None = None
    """Train on a copy of the images with this short side (320 say), DATA_DIR_320, made at the first start: for GPUs that are
    faster than the readers. Evaluation reads the originals."""
    max_bad_samples: Natural = 100
    """Unreadable training images that are replaced and reported before the run ends with an error."""

    def __post_init__(self) -> None:
        # A run that goes on elsewhere finds the file again.
        if self.class_weights not in (None, BALANCED):
            self.class_weights = str(Path(self.class_weights).absolute())


ALIASES = {
    "model_save_dir": "output_dir",
    "print_step": "log_every",
    "random_seed": "seed",
    "reader_thread": "num_workers",
    "max_iter": "max_steps",
}
RETIRED = {
    "with_mem_opt": "the engines plan memory themselves",
    "total_images": "the list is counted",
    "enable_ce": "it belonged to the original's continuous evaluation",
    "use_dali": "see --num_workers",
    "use_aa": "AutoAugment belonged to EfficientNet",
    "drop_connect_rate": "it belonged to EfficientNet",
    "padding_type": "it belonged to EfficientNet",
    "use_se": "it belonged to EfficientNet",
    "reader_buf_size": "the readers keep a few batches ahead",
    "validate": "see --eval_every",
    "save_step": "see --save_every",
    "scale_loss": "bf16 needs no loss scaling; see --precision",
    "use_dynamic_loss_scaling": "bf16 needs no loss scaling; see --precision",
    "data_format": "the xla engine chooses the layout",
    "fuse_elewise_add_act_ops": "the xla engine fuses by itself",
    "fuse_bn_act_ops": "the xla engine fuses by itself",
    "same_feed": "see --benchmark",
    "is_profiler": "see --benchmark",
    "profiler_path": "see --benchmark",
}

WARMUP_EPOCHS = 5
"""Of the schedules with a warm-up, where no flag says it."""
NETWORK_FLAGS = (
    *("model", "class_dim", "image_shape", "image_mean", "image_std", "resize_short_size", "interpolation"),
    *("from_scratch", "freeze", "freeze_params"),
)
"""Flags that make another network of a run."""
AUGMENTATION = (
    *("lower_scale", "lower_ratio", "upper_ratio", "max_shift", "flip", "rotate", "color_jitter"),
    *("randaugment", "randaugment_magnitude", "random_erasing"),
)
"""Flags that are fields of `Augment`, too."""
FREE = (
    *("max_bad_samples", "prescale_short_side", "from_scratch", "finetune_exclude_pretrained_params"),
    *("augment", "balanced_sampling", *AUGMENTATION),
)
"""Flags that Programs from files were not built with."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    flags = recipes.applied(flags, console.print)
    settled = settle(flags, TASK, free=FREE)
    flags = settled.flags
    settled.refuse_changes(*NETWORK_FLAGS)
    classifier = describe(flags, settled.captured)
    train_source, test_source = sources(flags, classifier)
    batches = batches_per_epoch(train_source, flags.batch_size)
    length = settled.length(batches, flags.num_epochs, batch_size=flags.batch_size, accumulate=flags.accumulate_batches)
    settled.refuse_other_length(length)
    labels = train_source.images.labels
    programs = settled.programs(lambda: build_programs(flags, classifier, labels, length.steps_per_epoch))
    settled.start_engine(length.total_steps * flags.accumulate_batches, batch_size=flags.batch_size)

    with settled.open(
        facts={"classifier": classifier.to_facts()},
        data={"training images": fingerprint_of(train_source), "test images": fingerprint_of(test_source)},
        load=(lambda state: start_from(flags, state, classifier, programs["eval"])) if flags.pretrained_model else None,
    ) as session:
        session.run.say(
            f"{flags.model}: {session.update.parameter_count:,} parameters, {classifier.class_dim} classes, "
            f"{len(train_source):,} training and {number_of(len(test_source), 'test image')}"
        )
        for remark in remarks(train_source.images, test_source.images) if flags.data_dir is not None else ():
            session.run.say(remark)
        counted, rows = partial(Accuracy, classifier.class_dim), flags.test_batch_size
        evaluator = Evaluator(session, programs["eval"], test_source, counted, batch_size=rows)
        return session.train(
            lambda start: open_batches(session, train_source, start),
            unit="images",
            evaluations=[Evaluation("eval", evaluator, decides="acc1", higher_is_better=True)],
            finish=lambda outcome: finish(session.run, outcome, evaluator.measured, classifier, test_source),
        )


def describe(flags: Flags, captured: Captured | None = None) -> Classifier:
    """The classifier that the flags and the data set describe, or that Programs from files were built for.

    Raises UserError for what does not fit together.
    """
    names = class_names(flags.data_dir)
    if captured is not None:
        classifier = Classifier.from_facts(captured.facts["classifier"])
        return replace(classifier, class_names=names_for(classifier.class_dim, names, flags.data_dir))
    from image_classification.models import find_model

    model = find_model(flags.model)
    class_dim = flags.class_dim
    if class_dim is None:
        class_dim = len(names) if names else count_classes(open_images(flags.data_dir, "train", 2**31))
    image_shape = flags.image_shape or model.image_shape
    own_short = model.resize_short * min(image_shape[1:]) // min(model.image_shape[1:])
    return Classifier(
        model=flags.model,
        class_dim=class_dim,
        preprocess=Preprocess(image_shape, flags.resize_short_size or own_short, flags.interpolation),
        mean=flags.image_mean or model.mean,
        std=flags.image_std or model.std,
        class_names=names_for(class_dim, names, flags.data_dir),
    )


def names_for(class_dim: int, names: list[str] | None, data_dir: Path | None) -> list[str]:
    """Those of so many classes. Raises DataError where the data's class_names.txt has fewer: evaluation goes by name."""
    names = names or []
    if data_dir is not None and len(names) < class_dim and (file := data_dir / "class_names.txt").is_file():
        raise DataError(
            f"{file}: has {number_of(len(names), 'name')}, one a line, and the network {number_of(class_dim, 'class', 'classes')}: "
            f"add the names of the others, or give --class_dim {len(names)}"
        )
    return names[:class_dim]


def sources(flags: Flags, classifier: Classifier) -> tuple[ImageSource, ImageSource]:
    """Training and test images."""
    train_images = open_images(training_data(flags), "train", classifier.class_dim)
    test_images = open_images(flags.data_dir, "val", classifier.class_dim)
    augment = augmentation(flags, classifier.preprocess)
    return (
        ImageSource(train_images, classifier.preprocess, augment),
        ImageSource(test_images, classifier.preprocess),
    )


def training_data(flags: Flags) -> Path | None:
    """Folder of the training images: --data_dir, or its copy with smaller ones, which is made if it is not there."""
    if flags.prescale_short_side is None:
        return flags.data_dir
    if flags.data_dir is None:
        raise UserError("--prescale_short_side: the embedded images are small already; it belongs to a --data_dir")
    return scaled_copy(flags.data_dir, flags.prescale_short_side)


def augmentation(flags: Flags, preprocess: Preprocess) -> Augment | None:
    """The random changes of training images."""
    if flags.augment == "none":
        if asked := [
            name for name in ("rotate", "color_jitter", "randaugment", "random_erasing") if getattr(flags, name)
        ]:
            raise UserError(
                f"--augment none leaves images as they are, and --{asked[0]} changes them; leave out one of them"
            )
        return None
    small = max(preprocess.image_shape[1:]) <= 64
    crop: Literal["resized", "shifted"] = "shifted" if small else "resized"
    if flags.augment != "auto":
        crop = flags.augment
    return Augment(crop, **{name: getattr(flags, name) for name in AUGMENTATION})


def build_programs(
    flags: Flags, classifier: Classifier, labels: np.ndarray, steps_per_epoch: int
) -> dict[str, Interface]:
    """The Programs by role, built with Paddle; with --capture that of infer.py too."""
    from image_classification.building import training_programs
    from image_classification.network import evaluation_program, inference_program

    rate = schedule(
        flags,
        steps_per_epoch=steps_per_epoch,
        num_epochs=flags.num_epochs,
        warmup_steps=WARMUP_EPOCHS * steps_per_epoch,
    )
    weights = class_weights(flags.class_weights, labels, classifier.class_dim, classifier.class_names)
    programs = {**training_programs(flags, classifier, rate, weights), "eval": evaluation_program(classifier)}
    return {**programs, "infer": inference_program(classifier)} if flags.capture else programs


def fingerprint_of(source: ImageSource) -> str:
    """A fingerprint of the relative paths and labels."""
    return fingerprint(source.images.names, source.images.ends, source.images.labels)


def start_from(
    flags: Flags, state: dict[str, np.ndarray], classifier: Classifier, program: Interface
) -> tuple[dict[str, np.ndarray], Report]:
    """`state` with the weights of --pretrained_model, and what became of each of them; `program` has their names."""
    return load_weights(
        state,
        flags.pretrained_model,
        classifier,
        names=program.state_names,
        exclude=flags.finetune_exclude_pretrained_params,
        allow_partial=flags.allow_partial,
        source_names=names_of_classes(flags.pretrained_model),
    )


@contextmanager
def open_batches(session: Session[Flags], source: ImageSource, start: int) -> Iterator[Iterator[Batch]]:
    """The training batches from a position on."""
    flags, plan = session.flags, None
    _, height, width = source.preprocess.image_shape
    if flags.balanced_sampling:
        plan = balanced_plan(source.images.labels, flags.batch_size, flags.seed)
    samples = Repeated(source) if flags.balanced_sampling else source
    with session.batches(samples, start, plan=plan, max_bad=flags.max_bad_samples) as batches:
        yield mixed(batches, flags, flags.seed, height, width)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
