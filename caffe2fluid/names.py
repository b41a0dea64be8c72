"""Names from files as Python identifiers and as text in comments: data, never code."""

from __future__ import annotations

import builtins
import keyword
import math
import re
from typing import Any

MAX_LENGTH = 80
MODULES = {"paddle", "nn", "np", "F", "sys"}
BUILTINS = set(dir(builtins))


class Names:
    """Gives each name an identifier of its own: ``res2a/branch1`` -> ``res2a_branch1``.

    Names that collide, also if only by case (parameters become files), get a number.
    """

    def __init__(self, reserved: set[str]):
        self._taken = {name.lower() for name in reserved}
        self._last: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        base = re.sub(r"\W", "_", name, flags=re.ASCII)[:MAX_LENGTH] or "_"
        if not base[0].isalpha():
            base = "layer_" + base.lstrip("_")
        if keyword.iskeyword(base) or keyword.issoftkeyword(base):
            base += "_"
        result, key = base, base.lower()
        while result.lower() in self._taken:
            self._last[key] = self._last.get(key, 1) + 1
            result = f"{base}_{self._last[key]}"
        self._taken.add(result.lower())
        return result


def comment(text: str) -> str:
    """Text that stays inside a comment or docstring whatever it contains."""
    shown = re.sub(r"[^\w ./:,+()\[\]=<>-]", "?", text, flags=re.ASCII)
    return shown if len(shown) <= MAX_LENGTH else shown[: MAX_LENGTH - 3] + "..."


def quoted(text: str) -> str:
    """Source of a string, in double quotes where that is as easy to read."""
    source = repr(text)
    return f'"{source[1:-1]}"' if source.startswith("'") and '"' not in source else source


def literal(value: Any) -> str:
    """Source of numbers, strings, None and lists or dictionaries of them; also of infinity and NaN, whose repr is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    return repr(value)
