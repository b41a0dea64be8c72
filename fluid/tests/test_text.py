"""Lines of text files."""

from fluid.errors import DataError
from fluid.text import number_of, read_lines

import pytest


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\r\nb\n\n", ["a", "b", ""]),
        ("\ufeffä\nno end".encode(), ["ä", "no end"]),
        # Other ends of lines are characters.
        ("a\u2028b\x0bc\n".encode(), ["a\u2028b\x0bc"]),
    ],
)
def test_lines(tmp_path, content, lines):
    (tmp_path / "file").write_bytes(content)
    assert read_lines(tmp_path / "file") == lines


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin").write_bytes(b"good\nno\xe9l\n")
    with pytest.raises(DataError, match="latin:2: is not UTF-8 text .byte 0xe9."):
        read_lines(tmp_path / "latin")
    with pytest.raises(DataError, match="missing: cannot be read .No such file"):
        read_lines(tmp_path / "missing")


def test_a_count_agrees_with_its_noun():
    told = [number_of(count, "image") for count in (0, 1, 2, 1000)]
    assert told == ["0 images", "1 image", "2 images", "1,000 images"]
    assert [number_of(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]
