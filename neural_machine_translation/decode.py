"""Decoding inside the Program: the Transformer as `fluid.search` calls it, with caches of fixed size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluid import search as searching
from fluid.program import Value
from fluid.search import Beam, LengthPenalty
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.model import decode_step, encode, memory_keys_values
from neural_machine_translation.translator import Transformer

import paddle

__all__ = ["LengthPenalty", "Search", "beam_search", "sample"]


@dataclass(frozen=True)
class Search(Beam):
    """How hypotheses are searched and ranked."""

    max_out_len: int = 256
    """Longest translation in words, `<e>` included; at most twice the source and 10 more are tried."""


def beam_search(
    parameters: Mapping[str, Value], config: Transformer, search: Search, src_word: Value
) -> dict[str, Value]:
    """The most probable translations of `src_word` [N, S] int64: see `fluid.search.beam_search`."""
    decoder = Decoder(parameters, config, search.max_out_len, search.beam_size, src_word)
    return searching.beam_search(decoder.step, decoder.caches, search, **decoder.bounds)


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
    options = {"temperature": temperature, "top_k": top_k, "forbidden": forbidden}
    return searching.sample(decoder.step, decoder.caches, **options, **decoder.bounds)


class Decoder:
    """The encoded sentences, and the decoder for K hypotheses of each."""

    def __init__(
        self, parameters: Mapping[str, Value], config: Transformer, max_out_len: int, hypotheses: int, src_word: Value
    ):
        self._parameters, self._config = parameters, config
        memory, self._source_bias = encode(parameters, config, src_word, training=False)
        self._memory = memory_keys_values(parameters, config, memory)
        sentences, words = paddle.shape(src_word)[0], paddle.shape(src_word)[1]
        longest = paddle.full([], min(max_out_len, config.max_length), "int64")
        length = paddle.minimum(2 * words + 10, longest)
        self.bounds = {"rows": sentences, "length": length, "bos": BOS, "eos": EOS}
        empty = paddle.zeros([sentences * hypotheses, config.n_head, length, config.d_head], "float32")
        self.caches = [empty] * (2 * config.n_layer)

    def step(self, word: Value, place: Value, caches: Sequence[Value]) -> tuple[Value, list[Value]]:
        """Logits [N, K, V] after `word` [N, K] at `place`, and the caches with that place filled in."""
        pairs = list(zip(caches[::2], caches[1::2], strict=True))
        logits, pairs = decode_step(self._parameters, self._config, word, place, pairs, self._memory, self._source_bias)
        return logits, [cache for pair in pairs for cache in pair]
