"""Train an object detector.

python train.py                                      a narrow network on drawn shapes, a few minutes on a CPU
python train.py --data trees --priors auto           fine-tuning on the photographs of trees that come along
python train.py --data_dir MINE --check_data         what is wrong with a data set, and whether the priors suit it
python train.py --data_dir MINE --priors auto        fine-tuning of the detector that comes along
python train.py --data_dir VOC --recipe 2018         the recipe of 2018
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, Count, Natural, Positive, Share, TrainFlags, changed, defaults
from fluid.data import batches_per_epoch
from fluid.errors import DataError, UserError
from fluid.evaluator import Evaluator
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.optimizers import OptimizerFlags
from fluid.run import script
from fluid.session import fingerprint, settle
from fluid.text import number_of
from fluid.trainer import Outcome
from fluid.weights import Report
from object_detection import boxes as box
from object_detection import recipes, starting
from object_detection.annotations import DataSet
from object_detection.checking import check_data
from object_detection.datasets import DataFlags, open_sound_part
from object_detection.detector import SIZES_OF_2018, TASK, TOLD_BY_NETWORK, DetectionFlags, Detector
from object_detection.priors import fit_priors
from object_detection.protocol import Protocol, deciding, described, metric_for
from object_detection.reader import Augment, DetectionSource
from object_detection.report import finish
from object_detection.starting import load_weights

import numpy as np


@dataclass
@defaults(lr=0.001, optimizer="adam", l2_decay=0.0, test_batch_size=8)
class Flags(OptimizerFlags, DataFlags, DetectionFlags, BatchFlags, TrainFlags):
    """Train an object detector."""

    recipe: Literal["own", "2018"] = "own"
    """2018 sets optimizer, schedule, decay, epochs, batch and augmentation of then, where no flag names them."""
    train_split: str | None = None
    """Split to train on; by default train, trainval, train2017 or train2014, whichever there is."""
    val_split: str | None = None
    """Split to evaluate on; by default val, valid, test, val2017 or val2014."""
    max_images: Natural = 0
    """Train on so many of the pictures alone; 0 takes all."""
    check_data: bool = False
    """Say what is wrong with the data, how many objects each class has and whether the priors suit them; train nothing."""

    model: str = "ssd_mobilenet_v1"
    """Network; `./zoo list models` names them."""
    num_classes: Count | None = None
    """Classes, never counting the background; the data tell, so it is only compared with them."""
    image_size: Count | None = None
    """Side of the network's input in pixels; by default the network's own."""
    priors: Literal["released", "auto"] = "released"
    """Prior boxes: those of the network's release, or sizes and maps fitted to the training boxes."""
    pretrained_model: str | None = None
    """Weights: those to start from, a registered name, or a file or folder of any format."""
    from_scratch: bool = False
    """Start from random numbers, where otherwise the detector that comes along would be the start."""
    allow_partial: bool = False
    """Accept weights that fit only in part."""
    freeze: Literal["auto", "none", "statistics", "backbone"] = "auto"
    """What is not trained: the statistics of batch normalisation, or the backbone too; auto keeps the statistics of the
    detector that comes along, which say nothing about its activations."""
    conv_lr: Positive | None = None
    """Factor on the learning rate of the convolutions that do not predict; by default a tenth where training starts from
    weights, which larger steps would destroy, else 1."""

    batch_size: Count = 8
    """Images in a batch, over all devices."""
    num_epochs: Count = 12
    """Passes over the training images."""
    max_boxes: Count | None = None
    """Objects of a picture that take part in the loss, of more the largest; by default as many as any picture has, at most 100."""
    apply_distort: bool = True
    """Change the colours."""
    apply_expand: bool = True
    """Lay every second picture into a larger one."""
    expand_ratio: Positive = 4.0
    """Sides of the larger picture at most, as a multiple."""
    apply_crop: bool = True
    """Cut parts out that hold enough of some object."""
    flip: bool = True
    """Mirror every second image."""
    turn: bool = False
    """Turn by any number of quarters, as pictures from above may be."""
    max_bad_samples: Natural = 100
    """Unreadable training images that are replaced and reported before the run ends with an error."""

    ap_version: Protocol = "integral"
    """Evaluation: PASCAL VOC's mean of 11 points (2007) or area (from 2010 on), or the averages of COCO."""
    overlap: Share = 0.5
    """IoU from which on a detection is right, for PASCAL VOC's figures."""


ALIASES = {
    "learning_rate": "lr",
    "num_passes": "num_epochs",
    "epoc_num": "num_epochs",
    "model_save_dir": "output_dir",
    "is_toy": "max_images",
    "iterations": "max_steps",
    "nms_threshold": "iou",
}
RETIRED = {
    **TOLD_BY_NETWORK,
    "parallel": "the engines use all devices",
    "for_model_ce": "it belonged to the original's continuous evaluation",
    "enable_ce": "it belonged to the original's continuous evaluation",
    "skip_batch_num": "see --benchmark",
    "dataset": "the layout of --data_dir tells",
    **dict.fromkeys(SIZES_OF_2018, "the network tells, or --image_size"),
    "use_multiprocess": "see --num_workers",
}

NETWORK_FLAGS = ("model", "image_size", "priors", "freeze", "max_boxes", "from_scratch")
"""Flags that make another network of a run."""
MOST_BOXES = 100
"""Of a picture, in the loss, where no flag says it: matching takes memory for all of them in each picture."""
FREE = (
    *("data", "skip_bad_objects", "train_split", "val_split", "max_images", "max_bad_samples", "from_scratch"),
    *("apply_distort", "apply_expand", "expand_ratio", "apply_crop", "flip", "turn", "ap_version", "overlap"),
    "check_data",
)
"""Flags that Programs from files were not built with."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    flags = recipes.applied(flags)
    settled = settle(flags, TASK, free=FREE)
    if settled.flags.check_data:
        check_data(settled.flags, lambda data: describe(settled.flags, data))
        return Outcome(step=0, nothing_left=True)
    settled.flags = flags = changed(settled.flags, {"pretrained_model": starting_weights(settled.flags)})
    settled.refuse_changes(*NETWORK_FLAGS)
    data, validation = training_data(flags), open_sound_part(flags, "val", flags.val_split)
    detector = describe(flags, data, settled.facts)
    refuse_other_classes(detector, data, validation)
    batches = batches_per_epoch(data.images, flags.batch_size)
    length = settled.length(batches, flags.num_epochs, batch_size=flags.batch_size, accumulate=flags.accumulate_batches)
    settled.refuse_other_length(length)
    programs = settled.programs(lambda: build_programs(flags, detector, data, length.steps_per_epoch))
    settled.start_engine(length.total_steps * flags.accumulate_batches, batch_size=flags.batch_size)
    source = training_source(flags, data, programs["train"])

    with settled.open(
        facts={"detector": detector.to_facts()},
        data={"training images": fingerprint_of(data), "validation images": fingerprint_of(validation)},
        load=(lambda state: start_from(flags, state, programs["predict"])) if flags.pretrained_model else None,
    ) as session:
        session.run.say(
            f"{detector.model}: {session.update.parameter_count:,} parameters, {number_of(len(detector.class_names), 'class', 'classes')}, "
            f"{len(data.images)} training and {number_of(len(validation.images), 'validation image')}"
        )
        if flags.recipe == "2018":
            session.run.listeners.append(recipes.lines_of_2018(session.run.say, length))
        precision = partial(metric_for, validation, flags.ap_version, flags.overlap)
        pictures, rows = measured_source(validation, programs["predict"]), flags.test_batch_size
        evaluator = Evaluator(session, programs["predict"], pictures, precision, batch_size=rows)
        return session.train(
            lambda start: session.batches(source, start, max_bad=flags.max_bad_samples),
            unit="images",
            evaluations=[Evaluation("eval", evaluator, decides=deciding(flags.ap_version), higher_is_better=True)],
            finish=lambda outcome: finish(
                session.run, outcome, deciding(flags.ap_version), described(validation, flags.ap_version, flags.overlap)
            ),
        )


def starting_weights(flags: Flags) -> str | None:
    """The weights to start from; None for random numbers. Raises UserError if the flags contradict each other."""
    if flags.pretrained_model is not None and flags.from_scratch:
        raise UserError("--from_scratch and --pretrained_model contradict each other; give one of them")
    comes_along = flags.model == starting.MODEL and not flags.from_scratch
    return starting.WEIGHTS if comes_along and flags.pretrained_model is None else flags.pretrained_model


def training_data(flags: Flags) -> DataSet:
    """The pictures to train on, or as many of them as the flags take. Raises DataError if none has an object that trains."""
    data = open_sound_part(flags, "train", flags.train_split)
    if flags.max_images:
        data = replace(data, images=data.images[: flags.max_images], objects=data.objects[: flags.max_images])
    if not len(data.training_boxes()):
        raise DataError(
            f"{data.origin}: has no object to train on in {number_of(len(data.images), 'picture')}; see --check_data"
        )
    return data


def describe(flags: Flags, data: DataSet, facts: dict[str, Any] | None = None) -> Detector:
    """The detector that the flags and the data describe, or that a run or Programs from files already have.

    Raises UserError for what does not fit together.
    """
    if facts is not None:
        return Detector.from_facts(facts["detector"])
    detector = Detector(flags.model, tuple(data.class_names), image_size=flags.image_size)
    if flags.num_classes not in (None, len(data.class_names)):
        raise UserError(
            f"--num_classes {flags.num_classes}: the data name {number_of(len(data.class_names), 'class', 'classes')}. The background is never "
            "counted; leave the flag out to take them all"
        )
    network, boxes = detector.network, data.training_boxes()
    if flags.priors == "released":
        return detector
    if not box.areas(boxes).any():
        raise DataError(f"{data.origin}: has no box to fit priors to (--priors auto)")
    return replace(detector, priors=fit_priors(boxes, list(network.cells.values())))


def refuse_other_classes(detector: Detector, *parts: DataSet) -> None:
    """Raise DataError if a part of the data has other classes than the detector."""
    for data in parts:
        if tuple(data.class_names) != detector.class_names:
            raise DataError(
                f"{data.origin}: its classes are {', '.join(data.class_names)}; the detector's are "
                f"{', '.join(detector.class_names)}"
            )


def build_programs(flags: Flags, detector: Detector, data: DataSet, steps_per_epoch: int) -> dict[str, Interface]:
    """The Programs by role, built with Paddle; with --capture that of infer.py too."""
    from object_detection.network import inference_program, nms_of, prediction_program, training_programs

    rate = recipes.learning_rate(flags, steps_per_epoch, coco=data.origin.endswith(".json"))
    programs: dict[str, Interface] = {
        **training_programs(
            flags,
            detector,
            rate,
            max_boxes=flags.max_boxes or data.most_boxes(MOST_BOXES),
            freeze=freezing(flags),
            conv_lr=flags.conv_lr or (0.1 if flags.pretrained_model else 1.0),
        ),
        "predict": prediction_program(detector, nms_of(flags)),
    }
    return {**programs, "infer": inference_program(detector, nms_of(flags))} if flags.capture else programs


def freezing(flags: Flags) -> Literal["none", "statistics", "backbone"]:
    """What is not trained."""
    if flags.freeze != "auto":
        return flags.freeze
    # Its author has folded batch normalisation into the convolutions: with statistics of batches it is another network.
    return "statistics" if starting_weights(flags) == starting.WEIGHTS else "none"


def training_source(flags: Flags, data: DataSet, program: Interface) -> DetectionSource:
    """The samples that the training Program takes."""
    size, count = program.inputs["image"].shape[1], program.inputs["boxes"].shape[1]
    assert size is not None and count is not None
    return DetectionSource(data, size, max_boxes=count, augment=augmentation(flags))


def augmentation(flags: Flags) -> Augment:
    """The random changes of training images."""
    usual = Augment()
    return Augment(
        distort=usual.distort if flags.apply_distort else 0.0,
        expand=usual.expand if flags.apply_expand else 0.0,
        expand_ratio=flags.expand_ratio,
        crop=flags.apply_crop,
        flip=usual.flip if flags.flip else 0.0,
        turn=flags.turn,
    )


def fingerprint_of(data: DataSet) -> str:
    """A fingerprint of the files' names, the boxes and their classes."""
    names = [Path(name).name for name in data.images]
    boxes = [np.concatenate([item.boxes.ravel(), item.labels]) for item in data.objects]
    return fingerprint(names, data.class_names, np.concatenate(boxes).astype(np.float32))


def start_from(flags: Flags, state: dict[str, np.ndarray], program: Interface) -> tuple[dict[str, np.ndarray], Report]:
    """`state` with the weights of --pretrained_model, and what became of each of them; `program` has their names."""
    return load_weights(state, program.state_names, str(flags.pretrained_model), allow_partial=flags.allow_partial)


def measured_source(data: DataSet, program: Interface) -> DetectionSource:
    """The samples that the Program which predicts takes."""
    size = program.inputs["image"].shape[1]
    assert size is not None
    return DetectionSource(data, size)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
