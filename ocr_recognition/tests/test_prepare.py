"""Scripts that make words or fetch them."""

from fluid.errors import UserError
from fluid.media import read_image
from ocr_recognition import prepare_words
from ocr_recognition.word_set import read_set

import pytest


def test_words_are_written_and_drawn(tmp_path, capsys):
    config = prepare_words.Config(
        output_dir=tmp_path / "set", sheet=tmp_path / "sheet.png", words=12, style="simple", height=32, num_workers=0
    )
    prepare_words.main(config)
    words = read_set(tmp_path / "set")
    assert len(words) == 12 and words.height == 32 and words.text(0).isalnum()
    assert read_image(tmp_path / "sheet.png").shape == (1360, 1200, 3)
    assert "set: 12 words" in capsys.readouterr().out
    with pytest.raises(UserError, match="give --output_dir"):
        prepare_words.main(prepare_words.Config())
    with pytest.raises(UserError, match="sheet.txt: cannot be written"):
        prepare_words.main(prepare_words.Config(sheet=tmp_path / "sheet.txt"))
