"""Recordings that people name: files, folders, patterns, lists."""

from fluid import finding

ENDINGS = (".wav", ".flac")
"""What is looked for in folders."""
STANDARD_INPUT = "-"
"""The name of a recording on standard input."""


def find(words: tuple[str, ...]) -> list[str]:
    """Recordings that the words of a command line name (`fluid.finding.find`), in order. Raises DataError."""
    return finding.find(words, "recording", ENDINGS, apart=lambda word: word == STANDARD_INPUT)
