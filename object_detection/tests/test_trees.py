"""The embedded data set, and priors for it."""

from pathlib import Path

from object_detection.annotations import open_data
from object_detection.models import find_model
from object_detection.priors import GOOD_SHARE, covered_share, fit_priors, prior_boxes
from object_detection.reader import Augment, DetectionSource

import numpy as np
import pytest

TREES = Path(__file__).resolve().parents[1] / "data" / "trees"


@pytest.mark.parametrize("split, pictures, objects", [("train", 34, 582), ("val", 9, 313), ("test", 1, 61)])
def test_what_is_in_it(split: str, pictures: int, objects: int) -> None:
    data = open_data(TREES, split)
    assert data.faults == []
    assert len(data.images) == pictures and data.counts() == {"tree": objects}
    for index in range(0, pictures, 10):
        for augment in (None, Augment()):
            sample = DetectionSource(data, 300, augment=augment).load(index, np.random.default_rng(index))
            assert sample["image"].shape == (300, 300, 3)


def test_its_small_boxes_need_priors_of_their_own() -> None:
    model, boxes = find_model("ssd_mobilenet_v1"), open_data(TREES, "train").training_boxes()
    assert covered_share(boxes, list(model.priors.values())) < 0.2
    fitted = model.with_priors(fit_priors(boxes, list(model.cells.values())))
    assert covered_share(boxes, list(fitted.priors.values())) >= GOOD_SHARE
    # Those of the validation tiles come from another photograph.
    assert covered_share(open_data(TREES, "val").training_boxes(), list(fitted.priors.values())) >= GOOD_SHARE
    assert len(prior_boxes(list(fitted.priors.values()))) < 20_000
