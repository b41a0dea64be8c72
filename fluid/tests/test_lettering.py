"""Texts in pictures are drawn by a font that has their letters."""

from collections.abc import Iterator
from pathlib import Path

from fluid import lettering
from fluid.lettering import drawable, font
from fluid.pictures import draw_confusion

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import ImageFont

NOBODYS = "\U000f1234"
"""Of the part of Unicode that is left to private use."""


def shape_of(letter: str, text: str) -> bytes:
    return bytes(font(text, 24).getmask(letter))


@pytest.mark.parametrize("text", ["Straße", "café", "Привет", "Ελλάδα", "… 3 €"])
def test_letters_of_european_languages_are_none_of_them_missing(text: str) -> None:
    missing = shape_of(NOBODYS, text)
    assert drawable(text) and not any(shape_of(letter, text) == missing for letter in text if not letter.isspace())


def test_ascii_is_in_the_font_of_pillow() -> None:
    assert font("a cat… 0.93", 12).getname() == ImageFont.load_default(12).getname()


@pytest.fixture
def fresh() -> Iterator[None]:
    """No knowledge of the fonts that are installed, before and after."""
    caches = (lettering.installed, lettering._files)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_an_installed_font_draws_what_the_others_lack(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Matplotlib brings STIX along, too, which has letters in circles.
    monkeypatch.setattr(lettering, "FAMILIES", ("No such font", "STIXGeneral"))
    assert [*lettering.installed()] == ["STIXGeneral"]
    assert font("Привет", 12).getname()[0] == "DejaVu Sans" and font("Ⓐ", 12).getname()[0] == "STIXGeneral"
    draw_confusion(tmp_path / "confusion.png", np.eye(2, dtype=int), ["Ⓐ", NOBODYS])
    assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "STIXGeneral"]


def test_a_font_is_found_that_was_installed_after_matplotlib_looked(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entries = font_manager.fontManager.ttflist
    (stix,) = (
        entry.fname for entry in entries if entry.name == "STIXGeneral" and entry.fname.endswith("STIXGeneral.ttf")
    )
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [entry for entry in entries if "STIX" not in entry.name])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [stix, str(tmp_path / "damaged.ttf")])
    monkeypatch.setattr(lettering, "FAMILIES", ("STIXGeneral",))
    assert lettering.installed() == {"STIXGeneral": stix}


def test_letters_may_be_as_wide_as_each_other() -> None:
    widths = [font(text, 12, mono=True).getlength(text) for text in ("iiii", "mmmm", "é ßл")]
    assert len(set(widths)) == 1 and font("iiii", 12).getlength("iiii") < font("mmmm", 12).getlength("mmmm")


def test_what_no_font_has_is_said() -> None:
    assert not drawable(f"cat {NOBODYS}") and drawable("cat")
