"""Opening a classifier by flags. Needs Paddle only to fit weights that do not say which network they are for."""

from dataclasses import replace
from functools import partial

from fluid import weights
from fluid.config import EngineFlags
from fluid.errors import UserError
from fluid.run import console
from fluid.runner import Runner
from fluid.weights import Bare, Opened, Report
from image_classification import reader
from image_classification.classifier import FOLDER, NETWORK, SMALL, Classifier, NetworkFlags
from image_classification.fitting import load_weights
from image_classification.reader import Preprocess, imagenet_names

import numpy as np


def open_classifier(flags: NetworkFlags, default: str = SMALL) -> Opened[Classifier]:
    """The classifier that the flags name, else `default`, ready to be used; raises UserError for what cannot be."""
    read, fit = Classifier.from_facts, partial(fit_classifier, flags=flags)
    opened = weights.open(
        FOLDER, flags, default=default, key="classifier", from_facts=read, fit=fit, free=("class_names",)
    )
    own = opened.facts
    for name, value in zip(NETWORK, (own.model, own.class_dim, own.preprocess.image_shape), strict=True):
        if getattr(flags, name) not in (None, value):
            raise UserError(f"--{name} {getattr(flags, name)} contradicts {opened.source}, which has {value}")
    if opened.captured is not None and (flags.image_mean or flags.image_std):
        raise UserError("--image_mean and --image_std are part of the Programs in --programs; capture them with these")
    return replace(opened, facts=own.prepared_as(flags))


def open_runner(opened: Opened[Classifier], flags: EngineFlags, batches: int | None) -> Runner:
    """What computes logits from images as the reader emits them, of so many batches."""
    mean, std = opened.facts.mean, opened.facts.std
    return Runner(
        opened, flags, runs=batches, prepare=lambda feed: {"image": reader.normalise(feed["image"], mean, std)}
    )


def fit_classifier(bare: Bare, flags: NetworkFlags) -> tuple[Classifier, dict[str, np.ndarray], Report]:
    """Weights that do not say which network they are for: the flags do, or the list of released ones.

    Raises UserError if neither does, WeightsError if they do not fit.
    """
    from fluid.program import initialise
    from image_classification.models import find_model
    from image_classification.network import inference_program

    entry = bare.entry
    name = flags.model or (entry.model if entry else None)
    if name is None:
        raise UserError(f"--pretrained_model {bare.spec} does not say which network it is for; give --model too")
    description = find_model(name)
    classes = flags.class_dim or (entry.class_dim if entry else None) or 1000
    shape = flags.image_shape or (entry.image_shape if entry else None) or description.image_shape
    own_short = description.resize_short * min(shape[1:]) // min(description.image_shape[1:])
    listed_short = entry.resize_short if entry and not flags.image_shape else None
    classifier = Classifier(
        model=name,
        class_dim=classes,
        preprocess=Preprocess(tuple(shape), listed_short or own_short),
        mean=(entry.mean if entry else None) or description.mean,
        std=(entry.std if entry else None) or description.std,
        class_names=imagenet_names() if classes == 1000 else [],
    )
    classifier = classifier.prepared_as(flags)
    console.print(
        f"{bare.spec} does not say how its images are prepared; assumed: {classifier.preparation} "
        "(--resize_short_size, --interpolation, --image_mean, --image_std)",
    )
    initial = initialise(inference_program(classifier), seed=0)
    state, report = load_weights(initial, bare.spec, classifier, allow_partial=flags.allow_partial, replace_head=False)
    return classifier, state, report
