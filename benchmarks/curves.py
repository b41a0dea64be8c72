"""Curves of training as a picture (SVG). Written by hand: those of matplotlib differ from version to version."""

import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]
"""(step, value) of one run."""

COLUMNS = 3
WIDTH, HEIGHT, GAP = 215, 120, 68
"""Of a frame, and around it, in the units of the picture."""


def picture(frames: Mapping[str, Sequence[Points]]) -> str:
    """The picture: a frame for each title, with the runs in it. Steps begin at 0, values where the lowest is."""
    lines = math.ceil(len(frames) / COLUMNS)
    size = f"{COLUMNS * (WIDTH + GAP)} {lines * (HEIGHT + GAP)}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="11">']
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    for place, (title, runs) in enumerate(frames.items()):
        line, column = divmod(place, COLUMNS)
        parts += _frame(title, runs, column * (WIDTH + GAP) + GAP * 3 // 4, line * (HEIGHT + GAP) + GAP // 2)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(title: str, runs: Sequence[Points], left: int, top: int) -> list[str]:
    right, bottom = left + WIDTH, top + HEIGHT
    steps, values = zip(*(point for points in runs for point in points), strict=True)
    last, apart, unit = max(steps), _round_part(max(steps)), _round_part(max(values) - min(values))
    low, high = math.floor(min(values) / unit), math.ceil(max(values) / unit)

    def x(step: float) -> float:
        return left + WIDTH * step / last

    def y(value: float) -> float:
        return bottom - HEIGHT * (value / unit - low) / (high - low)

    parts = [f'<text x="{left}" y="{top - 8}">{title}{f", {len(runs)} seeds" if runs[1:] else ""}</text>']
    for value in (unit * count for count in range(low, high + 1)):
        parts.append(f'<path d="M{left} {y(value):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 5}" y="{y(value) + 4:.1f}" fill="#555" text-anchor="end">{value:g}</text>')
    for step in (apart * count for count in range(int(last / apart) + 1)):
        parts.append(f'<path d="M{x(step):.1f} {bottom}v4" stroke="#555"/>')
        parts.append(
            f'<text x="{x(step):.1f}" y="{bottom + 16}" fill="#555" text-anchor="middle">{_short(step)}</text>'
        )
    parts.append(f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#555"/>')
    for points in runs:
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="#1f6fb4" stroke-width="1.5"/>')
    return parts


def _round_part(size: float) -> float:
    """1, 2 or 5 times a power of ten, of which at most four make `size`."""
    power = 10.0 ** math.floor(math.log10(size / 4))
    return next(part for part in (power, 2 * power, 5 * power, 10 * power) if part >= size / 4)


def _short(steps: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if steps >= unit:
            return f"{steps / unit:g}{name}"
    return f"{steps:g}"
