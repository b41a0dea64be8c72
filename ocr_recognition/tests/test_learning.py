"""Both kinds of network learn words by heart; weights go on with other characters."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from fluid.keeper import Keeper
from fluid.run import events
from ocr_recognition import train
from ocr_recognition.generated import Recipe, write_words
from ocr_recognition.sources import SIMPLE
from ocr_recognition.words import Texts

import numpy as np
import pytest

HEIGHT, WORDS = 16, 32


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same words to learn and to measure."""
    folder = tmp_path_factory.mktemp("words")
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    # A step takes as long as the widest.
    short = tuple(word for word in Texts(SIMPLE.characters).words if len(word) <= 4 and word.islower())
    recipe = Recipe(SIMPLE, HEIGHT, columns_a_frame=8, style="simple", given=short)
    assert write_words(folder / "train", recipe, WORDS, seed=seed, num_workers=0) == WORDS
    shutil.copytree(folder / "train", folder / "test")
    return folder


def begin_with_target(
    keeper: Keeper, *arguments: Any, begin: Callable[..., None] = Keeper.__init__, **more: Any
) -> None:
    """The run is over as soon as every word is right."""
    begin(keeper, *arguments, **more)
    assert keeper.deciding is not None and keeper.deciding.decides == "exact"
    keeper.deciding.target = 1.0


@pytest.mark.parametrize("model", ["crnn_ctc", "attention", pytest.param("crnn_small", marks=pytest.mark.full)])
def test_32_words_are_learnt_by_heart(model: str, words: Path, tmp_path: Path) -> None:
    letters = tmp_path / "dict.txt"
    letters.write_text("\n".join(SIMPLE.characters) + "\n")
    flags = train.Flags(
        data_dir=words,
        dict=letters,
        model=model,
        height=HEIGHT,
        engine="xla",
        device="cpu",
        batch_size=32,
        num_epochs=400,
        lr=0.003 if model == "crnn_ctc" else 0.005,
        eval_every=20,
        save_every=10_000,
        output_dir=tmp_path / "run",
    )
    with mock.patch.object(Keeper, "__init__", begin_with_target):
        train.main(flags)
    assert max(row["exact"] for row in events(tmp_path / "run", "eval")) == 1.0


@pytest.mark.full
def test_the_default_run_reads_eight_words_of_ten(tmp_path: Path) -> None:
    """In fonts and of lists that it never saw; minutes on two cores."""
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    outcome = train.main(train.Flags(output_dir=tmp_path / "run", seed=seed, device="cpu"))
    assert outcome.best is not None and outcome.best >= 0.8
