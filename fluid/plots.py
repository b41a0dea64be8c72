"""Figures for pictures of a run, drawn without a display."""

import logging
import warnings
from typing import TYPE_CHECKING, Any

from fluid import lettering

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, columns: int = 1) -> tuple["Figure", Any]:
    """A figure of so many inches, to be written with `savefig`, and its axes: one, or an array of `columns`.

    matplotlib is imported here, a third of a second that whoever draws nothing does not spend.
    """
    # Of a home that cannot be written it warns, makes a folder elsewhere, and says that it looked for fonts.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *lettering.installed()]
    # What no font has is an empty frame in the picture.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def plain(text: str) -> str:
    """What matplotlib draws as `text`, which may have dollar signs: they would start a formula, which few names are."""
    return text.replace("$", r"\$")
