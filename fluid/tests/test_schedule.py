"""Learning rates at their corner points, and schedules as data."""

import json
import math

from fluid import schedule
from fluid.schedule import Constant, Cosine, CosineByEpoch, Exponential, Noam, Piecewise, Polynomial, Warmup

import pytest


@pytest.mark.parametrize(
    "rate, points",
    [
        (Constant(0.1), {0: 0.1, 10**6: 0.1}),
        (Piecewise((30, 60), (1.0, 0.1, 0.01)), {0: 1.0, 29: 1.0, 30: 0.1, 59: 0.1, 60: 0.01, 999: 0.01}),
        (Cosine(0.1, 100), {0: 0.1, 50: 0.05, 100: 0.0, 200: 0.0}),
        (CosineByEpoch(0.1, 10, 4), {0: 0.1, 9: 0.1, 10: 0.05 * (math.cos(math.pi / 4) + 1), 40: 0.0}),
        (Polynomial(1.0, 10, end=0.1), {0: 1.0, 5: 0.55, 10: 0.1, 11: 0.1}),
        (Polynomial(1.0, 10, power=2.0), {5: 0.25}),
        (Exponential(1.0, 10, 0.5), {0: 1.0, 9: 1.0, 10: 0.5, 25: 0.25}),
        (Exponential(1.0, 10, 0.25, staircase=False), {5: 0.5}),
        (Noam(512, 4000), {0: 512**-0.5 * 4000**-1.5, 3999: 512**-0.5 * 4000**-0.5, 15999: 512**-0.5 * 16000**-0.5}),
        (Warmup(10, Cosine(0.1, 100)), {0: 0.0, 5: 0.05, 10: 0.1, 60: 0.05}),
    ],
)
def test_values_and_round_trip(rate, points):
    copy = schedule.from_json(json.loads(json.dumps(schedule.to_json(rate))))
    assert copy == rate
    for step, value in points.items():
        assert rate(step) == pytest.approx(value, rel=1e-12, abs=1e-15)


def test_piecewise_counts_its_values():
    with pytest.raises(ValueError, match="one value more"):
        Piecewise((1,), (1.0,))


def test_unknown_kind():
    with pytest.raises(ValueError, match="unknown learning-rate schedule 'Magic'"):
        schedule.from_json({"kind": "Magic"})
