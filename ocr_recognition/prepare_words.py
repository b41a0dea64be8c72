"""Make words with fonts: a set for training or evaluation that is read faster than words are made, or a sheet to look at.

python prepare_words.py --output_dir words/train --num_words 1000000
python prepare_words.py --output_dir words/test --num_words 5000 --split test
python train.py --data_dir words --model crnn --height 48

python prepare_words.py --sheet words.png
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import PROCESSORS
from fluid.config import Count, Natural, Seed, Was, Workers, parse
from fluid.errors import UserError
from fluid.lettering import font
from fluid.records import make_folder
from fluid.run import script
from fluid.text import number_of
from ocr_recognition.alphabet import Alphabet, read_dictionary
from ocr_recognition.generated import Recipe, write_words
from ocr_recognition.options import Style
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.words import Part, read_words

import numpy as np
from PIL import Image, ImageDraw

ON_A_SHEET, COLUMNS = 100, 5


@dataclass
class Flags:
    """Make words with fonts."""

    output_dir: Path | None = None
    """Folder to write, which must not be there yet."""
    sheet: Path | None = None
    """Picture to draw of the first hundred words."""
    num_words: Count = 100_000
    """How many to write, at least."""
    style: Style = "general"
    """What they say: simple, digits and small letters; general, all that signs, titles and displays do."""
    split: Annotated[Part, Was("part")] = "train"
    """Of the fonts and of the lists of words: a tenth is kept for tests."""
    words_file: Path | None = None
    """What they say instead: words, one a line; those of other characters than the dictionary's are left out."""
    fonts_dir: Path | None = None
    """Fonts to use instead of those that come along."""
    dict: Path | None = None
    """Characters to use, one a line; else the 95 of ASCII."""
    height: Count = 48
    """Of the pictures, in pixels."""
    columns_a_frame: Natural = 4
    """Of the network that is to read them by CTC, 8 for those of 2018: no word is too narrow for it; 0 for attention."""
    seed: Seed = 0
    """Of all that is random."""
    num_workers: Workers = PROCESSORS
    """Processes that make words."""


def main(flags: Flags) -> None:
    """Write the set, draw the sheet, or both. Raises UserError."""
    if flags.output_dir is None and flags.sheet is None:
        raise UserError("give --output_dir for a set of words or --sheet for a picture of some")
    alphabet = Alphabet.ascii() if flags.dict is None else read_dictionary(flags.dict)
    recipe = Recipe(
        alphabet,
        height=flags.height,
        columns_a_frame=flags.columns_a_frame or None,
        style=flags.style,
        part=flags.split,
        given=() if flags.words_file is None else read_words(flags.words_file, alphabet),
        fonts_dir=flags.fonts_dir,
    )
    if flags.sheet is not None:
        draw_sheet(flags.sheet, recipe, flags.seed)
        print(f"{flags.sheet}: {ON_A_SHEET} words")
    if flags.output_dir is not None:
        began = time.monotonic()
        count = write_words(flags.output_dir, recipe, flags.num_words, seed=flags.seed, num_workers=flags.num_workers)
        print(f"{flags.output_dir}: {number_of(count, 'word')}, {count / (time.monotonic() - began):,.0f} a second")


def draw_sheet(path: Path, recipe: Recipe, seed: int) -> None:
    """The first words of a recipe, resized to one height, each with its text below."""
    maker, preprocess = recipe.maker(), Preprocess(48, 234)
    sheet = Image.new("RGB", (COLUMNS * 240, ON_A_SHEET // COLUMNS * 68), "white")
    draw = ImageDraw.Draw(sheet)
    for number in range(ON_A_SHEET):
        made = maker.make(np.random.default_rng((seed, number)))
        x, y = number % COLUMNS * 240 + 3, number // COLUMNS * 68 + 2
        sheet.paste(Image.fromarray(preprocess.picture(made.picture)), (x, y))
        draw.text((x, y + 50), made.text, fill="black", font=font(made.text, 11))
    make_folder(path.parent)
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
