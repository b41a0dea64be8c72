"""What `train.py --check_data` says."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fluid.errors import DataError
from fluid.run import console
from fluid.text import number_of
from object_detection.annotations import DataSet
from object_detection.datasets import open_part
from object_detection.detector import Detector
from object_detection.priors import GOOD_SHARE, covered_share
from object_detection.reader import report

if TYPE_CHECKING:
    from object_detection.train import Flags


def check_data(flags: "Flags", describe: Callable[[DataSet], Detector]) -> None:
    """Print faults, the objects of each class, and how many boxes the priors suit.

    Raises DataError if there are faults, and no --skip_bad_objects to train without these objects.
    """
    parts = [open_part(flags, "train", flags.train_split), open_part(flags, "val", flags.val_split)]
    maps = list(describe(parts[0]).network.priors.values())
    for data in parts:
        boxes = data.training_boxes()
        covered = covered_share(boxes, maps) if len(boxes) else 0.0
        console.print("\n".join(report(data, covered, GOOD_SHARE)))
    faults = sum(len(data.faults) for data in parts)
    if faults and not flags.skip_bad_objects:
        raise DataError(
            f"{number_of(faults, 'fault')}; correct that, or train without such objects with --skip_bad_objects"
        )
