"""Vocabularies: sentences to word indices and back.

Two kinds. A sentencepiece model (Kudo and Richardson, EMNLP 2018) takes raw text; it is trained here on the training
sentences. A vocabulary file of 2018 has one word a line and takes text that was cut into words (and byte pairs, `@@ `)
beforehand. In both, `<s>`, `<e>` and `<unk>` are the first three.
"""

import base64
import io
import itertools
import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fluid.errors import DataError, UserError
from fluid.files import read_plain
from fluid.text import read_lines
from neural_machine_translation.indices import BOS, EOS, UNK

import numpy as np

SPECIAL_WORDS = ("<s>", "<e>", "<unk>")


@dataclass(frozen=True)
class SentencePiece:
    """A sentencepiece model: raw text in, raw text out."""

    model: bytes

    @cached_property
    def processor(self) -> Any:
        """The loaded model."""
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_proto=self.model)

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model}

    @property
    def size(self) -> int:
        """Number of words, special ones included."""
        return self.processor.get_piece_size()

    def encode(self, text: str) -> np.ndarray:
        """Word indices of a sentence, int32, without special words."""
        return np.asarray(self.processor.encode(text), np.int32)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of many sentences, in threads."""
        return [np.asarray(indices, np.int32) for indices in self.processor.encode(list(texts), num_threads=-1)]

    def encode_at_random(self, texts: Sequence[str], dropout: float, seed: int) -> list[np.ndarray]:
        """`encode` of many sentences, each word cut at random: BPE-dropout (Provilkov et al., arXiv:1910.13267).

        Every merge that could be next is left out with the probability `dropout`. A word is cut in the same way wherever
        it stands in the texts. `seed` decides, which sentencepiece's own random numbers are not for two processes.
        """
        rng = random.Random(seed)
        encoded = self.encode_all(texts)
        flat = np.concatenate([np.zeros(0, np.int32), *encoded])
        ends = np.cumsum([len(indices) for indices in encoded], dtype=np.int64)
        begins = self._begins[flat]
        begins[np.concatenate([[0], ends])[:-1][[len(indices) > 0 for indices in encoded]]] = True
        starts = np.flatnonzero(begins)
        numbers: dict[bytes, int] = {}
        packed, width = flat.tobytes(), flat.itemsize
        words = [
            numbers.setdefault(packed[width * start : width * end], len(numbers))
            for start, end in zip(starts.tolist(), [*starts.tolist()[1:], len(flat)])
        ]
        cut = [self._cut_at_random(np.frombuffer(word, np.int32).tolist(), dropout, rng) for word in numbers]
        sizes = np.array([len(word) for word in cut], np.int64)[words]
        pieces = np.fromiter(itertools.chain.from_iterable(map(cut.__getitem__, words)), np.int32)
        # The words of a text are those that start before its end.
        cuts = np.concatenate([[0], np.cumsum(sizes)])[np.searchsorted(starts, ends)]
        return np.split(pieces, cuts[:-1]) if encoded else []

    def _cut_at_random(self, word: Sequence[int], dropout: float, rng: random.Random) -> list[int]:
        pieces, numbers = [self.processor.id_to_piece(index) for index in word], self._numbers
        if not all(piece in numbers for piece in pieces):
            return list(word)
        parts = list("".join(pieces))
        # Pieces are numbered in the order of their merges.
        merges = [numbers.get(left + right) for left, right in itertools.pairwise(parts)]
        while left_in := [
            (merge, place) for place, merge in enumerate(merges) if merge is not None and rng.random() >= dropout
        ]:
            _, place = min(left_in)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
            del merges[place]
            for pair in (place - 1, place):
                if 0 <= pair < len(merges):
                    merges[pair] = numbers.get(parts[pair] + parts[pair + 1])
        return [numbers[part] for part in parts]

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.array([self.begins_word(index) for index in range(self.size)])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        own = self.processor
        return {
            own.id_to_piece(index): index
            for index in range(self.size)
            if not (own.is_control(index) or own.is_unknown(index) or own.is_byte(index) or own.is_unused(index))
        }

    def decode(self, indices: Iterable[int], unknown: Iterable[str] = ()) -> str:
        """The sentence of word indices; `unknown` words stand, one after the other, where `<unk>` does."""
        words, copies = [int(index) for index in indices], iter(unknown)
        if UNK not in words:
            return self.processor.decode(words)
        surface = self.processor.decode([UNK])
        own = self.processor
        return own.decode([next(copies, surface) if word == UNK else own.id_to_piece(word) for word in words])

    def plain(self, text: str) -> str:
        """A line of a data set as people write it: here it is."""
        return text

    def word(self, index: int) -> str:
        """One word as people see it, with a bar where a new word begins."""
        return self.processor.id_to_piece(int(index)).replace("▁", "|")

    def begins_word(self, index: int) -> bool:
        """Whether a blank precedes it in the text, if it is not its beginning."""
        return self.processor.id_to_piece(int(index)).startswith("▁")

    @property
    def unspeakable(self) -> list[int]:
        """Words that no text consists of: `<s>`, `<unk>`, and single bytes, of which hardly any row is a letter."""
        return [BOS, UNK, *(index for index in range(self.size) if self.processor.is_byte(index))]

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {"kind": "sentencepiece", "model": base64.b85encode(zlib.compress(self.model, 9)).decode()}


@dataclass(frozen=True)
class WordList:
    """A vocabulary of words: text is cut at blanks."""

    words: tuple[str, ...]
    language: str = ""
    """Of the detokeniser, where sentences of 2018's data sets are put together again; empty joins words with blanks."""

    @cached_property
    def index(self) -> dict[str, int]:
        """Word -> index. `<s>` and `<e>` that stand in a text are words like others, and unknown: they begin and end nothing."""
        return {word: number for number, word in enumerate(self.words) if number not in (BOS, EOS)}

    @cached_property
    def detokenizer(self) -> Any:
        """Puts the words of Moses' tokeniser together."""
        from sacremoses import MosesDetokenizer

        return MosesDetokenizer(lang=self.language)

    @property
    def size(self) -> int:
        """Number of words, special ones included."""
        return len(self.words)

    def encode(self, text: str) -> np.ndarray:
        """Word indices of a sentence, int32, without special words."""
        return np.asarray([self.index.get(word, UNK) for word in text.split()], np.int32)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of many sentences."""
        return [self.encode(text) for text in texts]

    def decode(self, indices: Iterable[int], unknown: Iterable[str] = ()) -> str:
        """The sentence of word indices, as people write it; `unknown` words stand, one after the other, where `<unk>` does."""
        copies = iter(unknown)
        words = (next(copies, self.words[UNK]) if index == UNK else self.words[int(index)] for index in indices)
        return self.plain(" ".join(words))

    def plain(self, text: str) -> str:
        """A line of a data set as people write it: byte pairs joined, and put together again if there is a language."""
        text = re.sub(r"@@( |$)", "", text)
        return self.detokenizer.detokenize(text.split()) if self.language else text

    def word(self, index: int) -> str:
        """One word."""
        return self.words[int(index)]

    def begins_word(self, index: int) -> bool:
        """Whether a blank precedes it in the text, if it is not its beginning: always."""
        return True

    @property
    def unspeakable(self) -> list[int]:
        """Words that no text consists of: `<s>` and `<unk>`."""
        return [BOS, UNK]

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {"kind": "words", "words": list(self.words), "language": self.language}


Vocabulary = SentencePiece | WordList


def from_facts(facts: Mapping[str, Any]) -> Vocabulary:
    """The inverse of `to_facts`; raises UserError for an unknown kind."""
    if facts["kind"] == "words":
        return WordList(tuple(facts["words"]), facts["language"])
    if facts["kind"] == "sentencepiece":
        return SentencePiece(zlib.decompress(base64.b85decode(facts["model"])))
    raise UserError(f"the weights have a vocabulary of the unknown kind {facts['kind']}")


def train_sentencepiece(texts: Iterable[str], size: int, *, kind: str = "bpe") -> SentencePiece:
    """A sentencepiece model of at most `size` words for `texts`; the same texts give the same model.

    Raises DataError for a size that leaves no room for the characters of the texts.
    """
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=written,
            vocab_size=size,
            model_type=kind,
            character_coverage=1.0 if size >= 1000 else 0.9995,
            hard_vocab_limit=False,
            byte_fallback=size >= 1000,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            pad_id=-1,
            bos_piece=SPECIAL_WORDS[BOS],
            eos_piece=SPECIAL_WORDS[EOS],
            unk_piece=SPECIAL_WORDS[UNK],
            max_sentence_length=100_000,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"no vocabulary of {size} words can be made of these sentences ({error}); give a --vocab_size well above the "
            "number of different characters in them"
        ) from None
    return SentencePiece(written.getvalue())


def read_vocabulary(path: Path, special: Sequence[str] = SPECIAL_WORDS, language: str = "") -> Vocabulary:
    """A vocabulary from a file: a sentencepiece model (`*.model`), or one word a line as in 2018.

    The `special` words `<s> <e> <unk>` must be the first three lines, as in the data sets of 2018. Raises DataError
    (FILE:LINE of one word a line).
    """
    if path.suffix == ".model":
        return _read_sentencepiece(path, special)
    words = read_lines(path)
    while words and not words[-1]:
        words.pop()
    if words[:3] != list(special):
        raise DataError(
            f"{path}:1: a vocabulary starts with the lines {' '.join(special)} (see --special_token), "
            f"not {' '.join(words[:3]) or 'nothing'}"
        )
    if len(set(words)) < len(words):
        first: dict[str, int] = {}
        number = next(number for number, word in enumerate(words, 1) if first.setdefault(word, number) < number)
        raise DataError(f"{path}:{number}: the word {words[number - 1]!r} occurs twice")
    return WordList(tuple(words), language)


def _read_sentencepiece(path: Path, special: Sequence[str]) -> SentencePiece:
    try:
        vocabulary = SentencePiece(read_plain(path))
        if not vocabulary.model:
            raise RuntimeError("it is empty")
        first = [vocabulary.processor.id_to_piece(number) for number in range(min(3, vocabulary.size))]
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from None
    if first != list(special):
        raise DataError(f"{path}: its first pieces are not {' '.join(special)}; train it with those ids 0, 1, 2")
    return vocabulary
