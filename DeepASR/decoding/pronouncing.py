"""Words that a lexicon lacks, pronounced by somebody else: a function, or a command such as Phonetisaurus or Sequitur G2P.

    lexicon = completed(lexicon, words, by_command("phonetisaurus-apply --model en.fst --word_list /dev/stdin"))

A command reads words, one a line, and writes lines `WORD PHONE PHONE ...`; a number behind the word, as Phonetisaurus and Sequitur
write it, is skipped. It is run without a shell.
"""

import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence

from DeepASR.decoding.lexicon import Lexicon
from fluid.errors import DataError, UserError

Pronunciations = Mapping[str, tuple[tuple[str, ...], ...]]
Pronounce = Callable[[Sequence[str]], Pronunciations]
"""From words to their pronunciations; it may leave out words that it does not know."""


def completed(lexicon: Lexicon, words: Iterable[str], pronounce: Pronounce) -> Lexicon:
    """With the pronunciations of those of `words` that the lexicon lacks and `pronounce` knows.

    Raises DataError for a phone that the network does not know.
    """
    missing = lexicon.missing(words)
    return lexicon.with_words(pronounce(missing)) if missing else lexicon


def by_command(command: str) -> Pronounce:
    """What a command says. Calling it raises UserError for one that cannot be run, DataError for what is no pronunciation."""

    def pronounce(words: Sequence[str]) -> Pronunciations:
        try:
            done = subprocess.run(
                shlex.split(command), input="\n".join([*words, ""]), capture_output=True, text=True, check=True
            )
        except (OSError, ValueError, IndexError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", None) or error
            raise UserError(f"--g2p {command}: {str(told).strip()}") from None
        found: dict[str, list[tuple[str, ...]]] = {}
        for number, line in enumerate(done.stdout.splitlines(), 1):
            word, *phones = line.split() or [""]
            if phones and _is_number(phones[0]):
                phones = phones[1:]
            if not word:
                continue
            if word not in words or not phones:
                raise DataError(f"--g2p {command}: line {number} of its output is not 'WORD PHONE PHONE ...': '{line}'")
            found.setdefault(word, []).append(tuple(phones))
        return {word: tuple(dict.fromkeys(variants)) for word, variants in found.items()}

    return pronounce


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
