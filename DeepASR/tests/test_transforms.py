"""The transforms against their formulas, frame by frame."""

from pathlib import Path

from DeepASR.transforms import (
    CONTEXT,
    DELAY,
    NOT_COUNTED,
    Statistics,
    add_deltas,
    delay_labels,
    hold_last,
    normalise,
    read_statistics,
    splice,
    statistics,
    undo_delay,
)
from fluid.errors import DataError

import numpy as np
import pytest


def features(frames: int = 12, columns: int = 4) -> np.ndarray:
    return np.random.default_rng(frames).normal(size=(frames, columns)).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 5, 12])
def test_deltas_are_differences_of_neighbours(frames: int) -> None:
    x = features(frames)

    def at(time: int) -> np.ndarray:
        return x[min(max(time, 0), frames - 1)]

    def slope(function, time: int) -> np.ndarray:
        return sum(step * (function(time + step) - function(time - step)) for step in (1, 2)) / 10

    first = [slope(at, time) for time in range(frames)]
    second = [slope(lambda time: slope(at, time), time) for time in range(frames)]
    wanted = np.concatenate([x, np.stack(first), np.stack(second)], axis=1)
    np.testing.assert_allclose(add_deltas(x), wanted, rtol=0, atol=1e-6)
    assert add_deltas(x).dtype == np.float32


def test_a_ramp_has_the_slope_one_and_no_second_difference() -> None:
    deltas = add_deltas(np.arange(20, dtype=np.float32)[:, None])
    np.testing.assert_allclose(deltas[4:-4, 1:], [[1, 0]] * 12, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 3, 12])
def test_splicing(frames: int) -> None:
    x = features(frames, 6)
    spliced = splice(x)
    assert spliced.shape == (frames, 3, 11, 2)
    for time in range(frames):
        for place, neighbour in enumerate(range(time - CONTEXT, time + CONTEXT + 1)):
            frame = x[min(max(neighbour, 0), frames - 1)].reshape(3, 2)
            np.testing.assert_array_equal(spliced[time, :, place], frame)


def test_every_frame_keeps_its_label_and_its_answer() -> None:
    x, labels = features(7), np.arange(7, dtype=np.int64)
    late, late_labels = hold_last(x), delay_labels(labels)
    assert len(late) == len(late_labels) == 7 + DELAY and (late[7:] == x[-1]).all()
    assert (late_labels[:DELAY] == NOT_COUNTED).all()
    np.testing.assert_array_equal(undo_delay(late_labels), labels)
    # A network that answers with what it saw five frames before.
    np.testing.assert_array_equal(undo_delay(np.concatenate([x[:1].repeat(DELAY, 0), late[:-DELAY]])), x)


def test_normalised_features_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    utterances = [features(30) * [1, 10, 0.1, 5] + [0, 3, 100, -7], features(50)]
    measured = statistics(utterances)
    path = tmp_path / "global_mean_var"
    path.write_text("".join(f"{mean} {variance}\n" for mean, variance in zip(*measured)))
    for given in (measured, read_statistics(path)):
        together = np.concatenate([normalise(x, given) for x in utterances])
        np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(together.std(axis=0), 1, atol=1e-4)
    with pytest.raises(DataError, match="feature 2 is the same in all 30 frames"):
        statistics([utterances[0] * [1, 1, 0, 1]])
    with pytest.raises(DataError, match="those of 4 columns and the features with deltas have 6"):
        normalise(features(3, 6), measured)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3\n", "mean_var:2: a line 'MEAN VARIANCE'"),
        ("1 2\n1 0\n", "mean_var:2: the variance must be above 0"),
        ("1 2\nnan 3\n", "mean_var:2: the variance must be above 0"),
        ("one 2\n", "mean_var:1: a line"),
        ("", "mean_var: holds no line"),
    ],
)
def test_statistics_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mean_var").write_text(text)
    with pytest.raises(DataError, match=message):
        read_statistics(tmp_path / "mean_var")


def test_statistics_as_editors_leave_them(tmp_path: Path) -> None:
    (tmp_path / "mean_var").write_text("\ufeff1 2\r\n -3\t4 \r\n", encoding="utf-8", newline="")
    mean, variance = read_statistics(tmp_path / "mean_var")
    assert (mean.tolist(), variance.tolist()) == ([1, -3], [2, 4])


def test_statistics_of_2018_divide_by_the_deviation() -> None:
    given = Statistics(np.array([1, 2], np.float32), np.array([4, 9], np.float32))
    np.testing.assert_allclose(normalise(np.array([[5, 5]], np.float32), given), [[2, 1]])
