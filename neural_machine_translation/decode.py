"""Decoding inside the Program: the Transformer as `fluid.search` calls it, with caches of fixed size."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluid import search as searching
from fluid.program import Value
from fluid.search import NEVER, Beam, LengthPenalty
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.model import decode_step, encode, joined, memory_keys_values
from neural_machine_translation.translator import Transformer

import paddle
import paddle.nn.functional as F

__all__ = ["LengthPenalty", "Search", "beam_search", "sample"]


@dataclass(frozen=True)
class Search(Beam):
    """How hypotheses are searched and ranked."""

    max_out_len: int = 256
    """Longest translation in words, `<e>` included; at most twice the source and 10 more are tried."""


HALVINGS = 1
"""How often a search leaves behind the half of its sentences that is done."""

Network = tuple[Mapping[str, Value], Transformer]
"""Parameters and form of a network."""


def beam_search(
    networks: Sequence[Network], search: Search, src_word: Value, prefix: Value | None = None
) -> dict[str, Value]:
    """The most probable translations of `src_word` [N, S] int64: see `fluid.search.beam_search`.

    Several networks over the same words decide together: a word's probability is the mean of theirs. `prefix` [N, P] int64,
    padded with `<e>`, says how each translation begins; its words count in the scores as the networks think of them.
    """
    further = 0 if prefix is None else paddle.shape(prefix)[1]
    decoders = [
        Decoder(parameters, config, search.max_out_len, search.beam_size, src_word, further)
        for parameters, config in networks
    ]
    together = Together(decoders)
    shut = None if prefix is None else Beginning(prefix, networks[0][1].trg_vocab_size).shut
    options = {
        "staying": together.staying,
        "shut": shut,
        "halvings": 0 if shut else HALVINGS,
        **decoders[0].bounds,
    }
    return searching.beam_search(together.step, together.caches, search, **options)


def sample(
    parameters: Mapping[str, Value],
    config: Transformer,
    src_word: Value,
    *,
    max_out_len: int = 256,
    temperature: float = 1.0,
    top_k: int = 0,
    forbidden: Sequence[int] = (),
) -> dict[str, Value]:
    """One random translation of each sentence of `src_word` [N, S] int64: see `fluid.search.sample`."""
    decoder = Decoder(parameters, config, max_out_len, 1, src_word)
    return searching.sample(
        decoder.step, decoder.caches, temperature=temperature, top_k=top_k, forbidden=forbidden, **decoder.bounds
    )


class Decoder:
    """The encoded sentences, and the decoder for K hypotheses of each, of `further` words beside the usual ones."""

    def __init__(
        self,
        parameters: Mapping[str, Value],
        config: Transformer,
        max_out_len: int,
        hypotheses: int,
        src_word: Value,
        further: Value | int = 0,
    ):
        self._parameters, self._config = joined(parameters, config), config
        memory, self._source_bias = encode(parameters, config, src_word, training=False)
        self._memory = memory_keys_values(parameters, config, memory)
        sentences, words = paddle.shape(src_word)[0], paddle.shape(src_word)[1]
        longest = paddle.full([], min(max_out_len, config.max_length), "int64")
        length = paddle.minimum(2 * words + 10 + further, longest)
        self.bounds = {"rows": sentences, "length": length, "bos": BOS, "eos": EOS}
        shape = [sentences, config.n_head, length * hypotheses, config.d_head]
        # Each its own: they are written in place.
        keys_values = [paddle.zeros(shape, "float32") for _ in range(2 * config.decoder_depth)]
        about_source = [*(value for pair in self._memory for value in pair), self._source_bias]
        self.caches = [*keys_values, *about_source, paddle.zeros([sentences * hypotheses, length], "int64")]

    def step(self, word: Value, place: Value, caches: Sequence[Value]) -> tuple[Value, list[Value]]:
        """Logits [N, K, V] after `word` [N, K] at `place`, and the caches with that place filled in."""
        *both, source_bias, writer = caches
        own, about_source = both[: len(both) // 2], both[len(both) // 2 :]
        pairs, memory = (list(zip(values[::2], values[1::2], strict=True)) for values in (own, about_source))
        logits, pairs, writer = decode_step(
            self._parameters, self._config, word, place, pairs, writer, memory=memory, source_bias=source_bias
        )
        return logits, [*(cache for pair in pairs for cache in pair), *about_source, source_bias, writer]


class Together:
    """Decoders that decide together; of one of them alone it is that."""

    def __init__(self, decoders: Sequence[Decoder]):
        self._decoders = decoders
        self.staying = sum(len(decoder.caches) - 1 for decoder in decoders)
        self.caches = [cache for decoder in decoders for cache in decoder.caches[:-1]]
        self.caches += [decoder.caches[-1] for decoder in decoders]

    def step(self, word: Value, place: Value, caches: Sequence[Value]) -> tuple[Value, list[Value]]:
        """As of a `Decoder`; of several, the logarithms of their mean probabilities."""
        staying, moving = iter(caches[: self.staying]), caches[self.staying :]
        found, kept, moved = [], [], []
        for decoder, writer in zip(self._decoders, moving, strict=True):
            logits, own = decoder.step(word, place, [*itertools.islice(staying, len(decoder.caches) - 1), writer])
            found.append(logits)
            kept += own[:-1]
            moved.append(own[-1])
        if len(found) == 1:
            return found[0], [*kept, *moved]
        every = paddle.stack([F.log_softmax(logits, axis=2) for logits in found])
        return paddle.logsumexp(every, axis=0) - math.log(len(found)), [*kept, *moved]


class Beginning:
    """What each translation must begin with, [N, P], padded with `<e>`."""

    def __init__(self, prefix: Value, words: int):
        self._prefix, self._words = prefix, words
        self._length = paddle.sum(paddle.cast(prefix != EOS, "int64"), axis=1)

    def shut(self, place: Value) -> Value:
        """`NEVER` for every word but the next of the beginning, [N, 1, V]; 0 behind its end."""
        here = paddle.clip(place, max=paddle.shape(self._prefix)[1] - 1)
        wanted = F.one_hot(paddle.gather(self._prefix, here, axis=1).squeeze(1), self._words)
        inside = paddle.cast(place < self._length, "float32").unsqueeze(1)
        return (inside * (1.0 - wanted) * NEVER).unsqueeze(1)
