"""What a training run starts from: weights of a detector of other classes or priors, or of a backbone. Without Paddle."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from fluid import weights
from fluid.weights import Bare, Report, registry
from object_detection.caffe_names import known_names
from object_detection.detector import DETECTION_VARIABLES, HEAD_VARIABLES

import numpy as np

FOLDER = Path(__file__).resolve().parent
MODEL, WEIGHTS = "ssd_mobilenet_v1", "ssd_mobilenet_v1_voc"
"""The network whose weights come along, and their name: what training starts from if nothing else is named."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a variable's name is of one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def load_weights(
    state: dict[str, np.ndarray], names: Collection[str], spec: str, *, allow_partial: bool = False
) -> tuple[dict[str, np.ndarray], Report]:
    """Put weights into `state`, as far as they fit.

    Args:
        state: every variable with its initial value.
        names: of the network's variables in it.
        spec: a registered name, or a file or folder of any format that `fluid.weights.read_weights` knows.
        allow_partial: accept any difference.

    Heads for other classes or priors, and extra layers that the weights lack, keep their initial values; what the weights have
    beyond the network, deeper layers or the last one of a classifier, is left. The report lists both. Raises WeightsError if
    the backbone differs, or the weights cannot be read.
    """
    own = {name: state[name] for name in names}
    arrays = known_names(Bare(spec, FOLDER, registry.identify(spec, FOLDER)).read(names=own))
    beyond = arrays.keys() - own.keys()
    loaded, report = weights.load_into(
        own,
        {name: array for name, array in arrays.items() if name not in beyond},
        head=HEAD_VARIABLES,
        optional=DETECTION_VARIABLES,
        allow_partial=allow_partial,
    )
    report.ignored += sorted(beyond)
    return {**state, **loaded}, report
