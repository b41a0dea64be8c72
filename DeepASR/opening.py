"""Opened weights as a recogniser: which weights, and what must be known to use them."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path

from DeepASR.options import NetworkFlags
from DeepASR.recogniser import FOLDER, Normalisation, Recogniser, rounded
from DeepASR.sizes import sizes_of
from DeepASR.transforms import DELTAS, read_statistics
from fluid import weights
from fluid.errors import DataError
from fluid.files import read_plain
from fluid.text import number_of
from fluid.weights import Bare, Opened, Report, load_into

import numpy as np

SOME_NAMES = ("conv2d_0.w_0", "fc_0.w_0", "fc_0.b_0", "lstmp_0.w_0", "lstmp_0.w_1", "lstmp_0.b_0")
"""Variables of every network, by which the folder of the others is found in an archive."""
MEASURED, USED = "commands", "digits"
"""What comes along: the model that training without flags makes, and the one to use where none is named."""


def open_recogniser(
    flags: NetworkFlags, default: str = MEASURED, say: Callable[[str], None] | None = None
) -> Opened[Recogniser]:
    """The weights that the flags name, or else the best there are; raises UserError for what cannot be used."""
    read, fit = Recogniser.from_facts, functools.partial(_fitted, allow_partial=flags.allow_partial)
    opened = weights.open(FOLDER, flags, default=default, key="recogniser", from_facts=read, fit=fit, say=say)
    return dataclasses.replace(opened, facts=_completed(opened.facts, flags))


def _fitted(bare: Bare, *, allow_partial: bool) -> tuple[Recogniser, dict[str, np.ndarray], Report]:
    """Weights that do not say what they are of."""
    from DeepASR import network
    from fluid.program import initialise

    arrays = bare.read(SOME_NAMES)
    sizes = sizes_of(arrays)
    columns = DELTAS * sizes.frame_dim
    plain = Normalisation((0.0,) * columns, (1.0,) * columns)
    recogniser = Recogniser(sizes, plain, (0.0,) * sizes.class_num)
    state, report = load_into(initialise(network.build_inference(sizes), seed=0), arrays, allow_partial=allow_partial)
    return recogniser, state, report


def _completed(recogniser: Recogniser, flags: NetworkFlags) -> Recogniser:
    """With the statistics and priors that flags name."""
    if flags.mean_var is not None:
        known = read_statistics(flags.mean_var)
        recogniser = dataclasses.replace(
            recogniser, normalisation=Normalisation(rounded(known.mean), rounded(known.variance))
        )
    if flags.log_prior is not None:
        prior = read_log_prior(flags.log_prior)
        if len(prior) != recogniser.sizes.class_num:
            raise DataError(
                f"{flags.log_prior}: {number_of(len(prior), 'number')} where the network has {recogniser.sizes.class_num} classes"
            )
        recogniser = dataclasses.replace(recogniser, log_prior=prior)
    return recogniser


def read_log_prior(path: Path) -> tuple[float, ...]:
    """A text vector of Kaldi's, `[ -5.1 -7.3 ... ]`, as 2018 had it. Raises DataError."""
    try:
        text = read_plain(path).decode("utf-8-sig")
        match = re.fullmatch(r"\s*\[([^\[\]]*)\]\s*", text)
        if match is None:
            raise ValueError("numbers in brackets are expected")
        values = tuple(map(float, match[1].split()))
        if not values or not np.isfinite(values).all():
            raise ValueError("not all numbers are finite")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as logarithms of priors ({error})") from None
    return values
