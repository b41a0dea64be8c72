"""The floor under a trained model: answer every sentence with the translation of its nearest training sentence.

    python neural_machine_translation/translation_memory.py --data_dir corpora

A model that scores no better than this has learned its training data by heart. Nearest is the largest Dice overlap of
the sets of words.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid.config import parse
from fluid.errors import DataError
from fluid.run import console, script
from neural_machine_translation.metrics import Quality, quality
from neural_machine_translation.reader import open_pairs
from neural_machine_translation.resemblance import words_of

import numpy as np
from scipy import sparse


@dataclass
class Flags:
    """Measure a translation memory on a test set."""

    data_dir: Path | None = None
    """Folder with train.tsv and test.tsv; by default the embedded sentences."""
    test_file_pattern: str | None = None
    """Files of pairs (source, tab, target) instead of the data set's test part."""
    languages: tuple[str, str] = ("en", "de")
    """Suffixes of the files of a data set in one file a language."""


def nearest(known: list[str], asked: list[str]) -> np.ndarray:
    """For each asked text the number of the known text that resembles it most, [len(asked)]."""
    numbers = {word: index for index, word in enumerate({word for text in known for word in words_of(text)})}

    def bags(texts: list[str]) -> sparse.csr_matrix:
        rows = [sorted({numbers[word] for word in words_of(text) if word in numbers}) for text in texts]
        starts = np.cumsum([0] + [len(row) for row in rows])
        columns = np.concatenate([np.array(row, np.int64) for row in rows])
        return sparse.csr_matrix((np.ones(len(columns), np.float32), columns, starts), (len(texts), len(numbers)))

    table, sizes = bags(known), np.array([len(set(words_of(text))) for text in known])
    found = np.zeros(len(asked), np.int64)
    for index, text in enumerate(asked):
        shared = (table @ bags([text]).T).toarray()[:, 0]
        found[index] = np.argmax(2 * shared / np.maximum(sizes + len(set(words_of(text))), 1))
    return found


def main(flags: Flags) -> Quality:
    """Print and return what the memory scores. Raises DataError for a part without pairs."""
    train = open_pairs("train", data_dir=flags.data_dir, pattern=None, languages=flags.languages)
    test = open_pairs("test", data_dir=flags.data_dir, pattern=flags.test_file_pattern, languages=flags.languages)
    for part in (train, test):
        if not len(part):
            raise DataError(f"{', '.join(part.files)}: no sentence pair")
    answers = [train.targets[index] for index in nearest(train.sources, test.sources)]
    result = quality(answers, test.targets)
    console.print(f"{len(train)} training pairs, {len(test)} test pairs")
    console.print(f"chrF {result.chrf:.2f}  {result.chrf_signature}")
    console.print(f"BLEU {result.bleu:.2f}  {result.bleu_signature}")
    return result


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
