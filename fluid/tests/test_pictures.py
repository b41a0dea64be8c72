"""Curves and sheets show what they are given."""

import os
import subprocess
import sys
from pathlib import Path

from fluid import pictures, plots
from fluid.errors import UserError
from fluid.pictures import Panel, draw_confusion, draw_curves, draw_sheet

import numpy as np
import pytest
from PIL import Image

TRAIN = [{"step": step, "loss": 1 / step, "nll": 0.1 * step} for step in (10, 20, 30)]
EVALUATIONS = [{"step": 20, "loss": 0.2, "score": 3.0, "deviation": 0.5}]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def drawn(monkeypatch: pytest.MonkeyPatch, *arguments: object, **options: object) -> list:
    """The axes of a figure that `draw_curves` draws."""
    kept = []

    def new_figure(*size: float, columns: int) -> tuple:
        kept.append(plots.new_figure(*size, columns=columns))
        return kept[0]

    monkeypatch.setattr(pictures, "new_figure", new_figure)
    draw_curves(*arguments, **options)
    return kept[0][0].axes


def test_curves_hold_the_values_of_the_log(tmp_path, monkeypatch):
    panels = [
        Panel("loss", "loss", "loss", log_scale=True),
        Panel("perplexity", "nll", shown=np.exp),
        Panel("score", evaluation="score", deviation="deviation"),
    ]
    loss, perplexity, score = drawn(monkeypatch, tmp_path / "curves.png", panels, TRAIN, EVALUATIONS, steps="updates")
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [(10, 1 / 10), (20, 1 / 20), (30, 1 / 30)])
    np.testing.assert_array_equal(loss.lines[1].get_xydata()[0], (20, 0.2))
    assert loss.get_yscale() == "log" and loss.get_xlabel() == "updates" and loss.get_title() == "loss"
    np.testing.assert_allclose(perplexity.lines[0].get_ydata(), np.exp([1, 2, 3]))
    assert len(score.containers) == 1 and score.containers[0].has_yerr
    assert pixels(tmp_path / "curves.png").shape[1] > 1500


def test_curves_of_a_run_that_logged_nothing_are_empty(tmp_path, monkeypatch):
    (axis,) = drawn(
        monkeypatch, tmp_path / "curves.png", [Panel("loss", "loss", "loss")], [], [{"step": 1, "other": 2}]
    )
    assert not axis.lines and axis.get_legend() is None


def test_a_sheet_shows_each_picture_with_the_colour_of_its_verdict(tmp_path):
    images = [np.full((size, size, 3), level, np.uint8) for size, level in ((4, 50), (300, 100), (150, 150))]
    draw_sheet(
        tmp_path / "sheet.png",
        images,
        ["right\nmore", "wrong " * 30, "known by nobody"],
        [True, False, None],
        columns=2,
    )
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape == (2 * (150 + 34 + 8) + 8, 2 * (150 + 8) + 8, 3)
    for number, (image, color) in enumerate(zip(images, (pictures.GREEN, pictures.RED, pictures.GREY), strict=True)):
        top, left = 8 + number // 2 * (150 + 34 + 8), 8 + number % 2 * (150 + 8)
        assert (sheet[top : top + 150, left : left + 150] == image[0, 0]).all()
        caption = sheet[top + 150 : top + 184, left : left + 150]
        assert np.abs(caption - color).sum(axis=2).min() < 30


@pytest.mark.parametrize("first, told", [(900.0, ["900"]), (2.5, []), (float("nan"), [])])
def test_a_value_far_outside_does_not_flatten_the_curves(tmp_path, monkeypatch, first, told):
    train = [{"step": step, "loss": 2 / step} for step in range(1, 40)]
    evaluations = [{"step": 1, "loss": first}, *({"step": step, "loss": 0.2} for step in range(10, 40, 10))]
    (axis,) = drawn(monkeypatch, tmp_path / "curves.png", [Panel("loss", "loss", "loss")], train, evaluations)
    assert -0.2 < axis.get_ylim()[0] < 0.05 and 2 < axis.get_ylim()[1] < 3
    assert [text.get_text() for text in axis.texts] == told


def test_drawing_says_nothing_of_a_home_that_cannot_be_written():
    code = "from fluid.plots import new_figure; new_figure(1, 1)[0].canvas"
    environment = os.environ | {"HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null"}
    environment.pop("MPLCONFIGDIR", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_curves(path, [Panel("loss", "loss")], TRAIN, EVALUATIONS),
        lambda path: draw_confusion(path, np.eye(2, dtype=int), ["a", "b"]),
        lambda path: draw_sheet(path, [np.zeros((4, 4, 3), np.uint8)], ["a"], [True]),
    ],
)
def test_a_full_disk_is_told_with_the_file(draw, tmp_path: Path) -> None:
    path = tmp_path / "drawn.png"
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"drawn.png: cannot be written \(No space left on device\)"):
        draw(path)


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    figure, axis = plots.new_figure(3, 3)
    axis.set_title(plots.plain("$x$ and $5"))
    figure.savefig(tmp_path / "text.png")
    raw, axis = plots.new_figure(3, 3)
    axis.set_title("$x$ and $5", parse_math=False)
    raw.savefig(tmp_path / "same.png")
    assert (pixels(tmp_path / "text.png") == pixels(tmp_path / "same.png")).all()
    draw_confusion(tmp_path / "confusion.png", np.eye(2, dtype=int), ["$_$", r"$\price$"])
