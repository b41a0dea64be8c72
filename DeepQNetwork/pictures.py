"""Pictures of a run and of a game: learning curves, and a screen drawn in the terminal or a window."""

import sys
from collections.abc import Mapping
from pathlib import Path

from fluid.errors import UserError
from fluid.pictures import Panel
from fluid.plots import new_figure
from fluid.records import writing

import cv2
import numpy as np

CURVES = (
    Panel("episode return", "episode_return", "score", deviation="deviation"),
    Panel("loss", "loss"),
    Panel("Q of the actions taken", "q"),
)
"""By agent step; the evaluation's score with its standard deviation."""


def draw_band(path: Path, scores: Mapping[int, Mapping[int, float]], *, title: str) -> Path:
    """Evaluations of several seeds: `scores` by seed and step; the median and, between the worst and the best, a band."""
    figure, axis = new_figure(7, 4)
    steps = sorted(set.intersection(*(set(own) for own in scores.values())))
    for own in scores.values():
        axis.plot(list(own), list(own.values()), color="C0", lw=0.7, alpha=0.4)
    together = np.array([[own[step] for step in steps] for own in scores.values()])
    axis.fill_between(steps, together.min(axis=0), together.max(axis=0), color="C0", alpha=0.2, label="worst to best")
    seeds = ", ".join(map(str, scores))
    axis.plot(steps, np.median(together, axis=0), "o-", color="C0", ms=4, label=f"median of seeds {seeds}")
    axis.set(title=title, xlabel="agent steps", ylabel="score")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    with writing(path):
        figure.savefig(path, dpi=120)
    return path


class TerminalScreen:
    """Draws frames in the terminal, two pixels a character, over each other."""

    def __init__(self, width: int = 80):
        self.width = width
        self._drawn = 0

    def show(self, frame: np.ndarray, caption: str) -> None:
        """Draw a frame [H, W, 3] uint8 and a line below it."""
        height = frame.shape[0] * self.width // frame.shape[1] // 2 * 2
        small = cv2.resize(frame, (self.width, height), interpolation=cv2.INTER_AREA)
        lines = []
        for upper, lower in zip(small[::2], small[1::2]):
            cells = (
                "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀".format(*top, *bottom) for top, bottom in zip(upper, lower)
            )
            lines.append("".join(cells) + "\x1b[0m")
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        sys.stdout.write(back + "\n".join(lines) + f"\n\x1b[K{caption}\n")
        sys.stdout.flush()
        self._drawn = len(lines) + 1

    def close(self) -> None:
        """Leave the last frame standing."""


class WindowScreen:
    """Shows frames in a window of the desktop. Raises UserError where there is none."""

    SCALE = 3

    def __init__(self) -> None:
        try:
            import tkinter

            self._root, self._gone = tkinter.Tk(), tkinter.TclError
        except Exception as error:
            raise UserError(f"no window can be opened ({error}); use --show terminal, or --video FILE.mp4") from error
        self._image = tkinter.PhotoImage()
        self._label = tkinter.Label(self._root, image=self._image)
        self._label.pack()

    def show(self, frame: np.ndarray, caption: str) -> None:
        """Show a frame [H, W, 3] uint8; the caption is the window's title. Closing the window is as Ctrl-C."""
        height, width = frame.shape[:2]
        large = cv2.resize(frame, (width * self.SCALE, height * self.SCALE), interpolation=cv2.INTER_NEAREST)
        header = f"P6 {large.shape[1]} {large.shape[0]} 255 ".encode()
        try:
            self._image.configure(data=header + large.tobytes(), format="PPM")
            self._root.title(caption)
            self._root.update()
        except self._gone:
            raise KeyboardInterrupt from None

    def close(self) -> None:
        """Close the window."""
        self._root.destroy()
