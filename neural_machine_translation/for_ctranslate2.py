"""A translator for CTranslate2 (https://github.com/OpenNMT/CTranslate2), which runs Transformers fast on CPUs and small GPUs.

FOLDER/model.bin config.json *_vocabulary.json    what ctranslate2.Translator loads
       sentencepiece.model                        turns text into its tokens and back, where the vocabulary is one

Its Transformer has no factors of dropout and divides attention scores by sqrt(d_head); so they are multiplied into the
weights before them. Everything else is the same network.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluid import files
from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError
from neural_machine_translation.indices import BOS, EOS, UNK
from neural_machine_translation.model import (
    SOURCE_POSITIONS,
    SOURCE_TABLE,
    TARGET_POSITIONS,
    TARGET_TABLE,
    decoder_layers,
    encoder_layers,
    fc,
    final_norms,
    norm_scale,
    offset_of,
    output_layer,
)
from neural_machine_translation.network import evaluation_program
from neural_machine_translation.scoring import feed_of
from neural_machine_translation.translator import Transformer, Translator
from neural_machine_translation.vocabulary import SentencePiece, Vocabulary

import numpy as np

STORAGES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
"""--storage as CTranslate2 calls it."""
MODEL = "model.bin"
TOLERANCE = 1e-3
"""Largest difference of log-probabilities from the network's own, a word, in float32."""


def write(translator: Translator, state: Mapping[str, np.ndarray], folder: Path, storage: str) -> float:
    """Write the translator with the weights `state`; returns the `difference` of what was written.

    The folder appears whole or not at all. Raises UserError without the package ctranslate2, if the folder is something else
    or cannot be written, and if in float32 the model computes something else than the network.
    """
    try:
        from ctranslate2.specs import common_spec, transformer_spec
    except ImportError:
        raise UserError("a model for CTranslate2 needs ctranslate2: pip install '.[ctranslate2]'") from None
    if folder.exists() and not (folder / MODEL).is_file():
        raise UserError(f"{folder} exists and is no model for CTranslate2; choose another folder")
    config = translator.config
    spec = transformer_spec.TransformerSpec.from_config(
        (config.n_layer, config.decoder_depth),
        config.n_head,
        pre_norm=config.norm == "pre",
        activation=common_spec.Activation.RELU,
    )
    Weights(config, state).fill(spec)
    spec.register_source_vocabulary(tokens(translator.source))
    spec.register_target_vocabulary(tokens(translator.target))
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = (
        tokens(translator.target)[index] for index in (BOS, EOS, UNK)
    )
    spec.config.decoder_start_token = spec.config.bos_token
    spec.config.add_source_bos = spec.config.add_source_eos = True
    spec.validate()
    spec.optimize(quantization=None if storage == "float32" else storage)
    partial = files.partial(folder)
    try:
        partial.mkdir(parents=True)
        spec.save(str(partial))
        if isinstance(translator.source, SentencePiece):
            (partial / "sentencepiece.model").write_bytes(translator.source.model)
        found = difference(partial, translator, state)
        if storage == "float32" and found > TOLERANCE:
            raise UserError(f"CTranslate2 computes something else: log-probabilities differ by {found:.2g} a word")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write the model for CTranslate2 to {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def tokens(vocabulary: Vocabulary) -> list[str]:
    """The words of a vocabulary as the model knows them: its pieces, or its lines."""
    if isinstance(vocabulary, SentencePiece):
        return [vocabulary.processor.id_to_piece(index) for index in range(vocabulary.size)]
    return list(vocabulary.words)


def difference(folder: Path, translator: Translator, state: Mapping[str, np.ndarray]) -> float:
    """How far the written model's log-probabilities of random translations are from the network's, a word, at most."""
    import ctranslate2

    rng = np.random.default_rng(0)
    sources, targets = tokens(translator.source), tokens(translator.target)
    # The first three are special words.
    pairs = [[rng.integers(3, len(side), length) for side in (sources, targets)] for length in (1, 5, 14)]
    found = ctranslate2.Translator(str(folder), "cpu").score_batch(
        [[sources[index] for index in source] for source, _ in pairs],
        [[targets[index] for index in target] for _, target in pairs],
    )
    program, engine = evaluation_program(translator.config), PaddleEngine()
    engine.load({name: state[name] for name in program.state_names})
    outputs = engine.run(program, feed_of(pairs, 16))
    have, words = np.asarray([sum(result.log_probs) for result in found]), np.asarray(outputs["words"])
    return float(np.max(np.abs(have + np.asarray(outputs["nll"])) / words))


@dataclasses.dataclass(frozen=True)
class Weights:
    """The parts of the network, as they go into a specification of ctranslate2."""

    config: Transformer
    state: Mapping[str, np.ndarray]

    def fill(self, spec: Any) -> None:
        """Put every weight into its place in `spec`."""
        config = self.config
        target_table = SOURCE_TABLE if config.weight_sharing else TARGET_TABLE
        self._embed(spec.encoder, spec.encoder.embeddings[0], SOURCE_TABLE, SOURCE_POSITIONS)
        self._embed(spec.decoder, spec.decoder.embeddings, target_table, TARGET_POSITIONS)
        for layer, own in zip(encoder_layers(config), spec.encoder.layer, strict=True):
            self._attend(own.self_attention, layer.fc, layer.norm)
            self._forward(own.ffn, layer.fc + 4, layer.norm + 1)
        for layer, own in zip(decoder_layers(config), spec.decoder.layer, strict=True):
            self._attend(own.self_attention, layer.fc, layer.norm)
            self._attend(own.attention, layer.fc + 4, layer.norm + 1, crossing=True)
            self._forward(own.ffn, layer.fc + 8, layer.norm + 2)
        if config.norm == "pre":
            for part, number in zip((spec.encoder, spec.decoder), final_norms(config), strict=True):
                self._normalise(part.layer_norm, number)
        shared = self.state[SOURCE_TABLE] if config.weight_sharing else self.state[output_layer(config)].T
        spec.decoder.projection.weight = _matrix(shared)
        spec.decoder.projection.bias = np.zeros(config.trg_vocab_size, np.float32)

    @property
    def _kept(self) -> float:
        return 1.0 - self.config.dropout

    def _embed(self, part: Any, embeddings: Any, table: str, positions: str) -> None:
        words, places = self.state[table] * self.config.d_model**0.5, self.state[positions]
        if self.config.norm == "pre":
            words[BOS] = 0.0
        else:
            places = places[1:]
        embeddings.weight, part.position_encodings.encodings = _matrix(words * self._kept), _matrix(places * self._kept)
        part.scale_embeddings = False

    def _normalise(self, part: Any, number: int) -> None:
        part.gamma, part.beta = self.state[norm_scale(number)], self.state[offset_of(norm_scale(number))]

    def _attend(self, part: Any, first: int, norm: int, crossing: bool = False) -> None:
        query, key, value, output = (self.state[fc(first + number)].T for number in range(4))
        query = query * (self.config.d_head / self.config.d_model) ** 0.5
        output = output * self._kept**2
        joined = [query, np.concatenate([key, value])] if crossing else [np.concatenate([query, key, value])]
        for linear, matrix in zip(part.linear, [*joined, output], strict=True):
            linear.weight, linear.bias = _matrix(matrix), np.zeros(len(matrix), np.float32)
        self._normalise(part.layer_norm, norm)

    def _forward(self, part: Any, first: int, norm: int) -> None:
        inside = self._kept if self.config.norm == "pre" else 1.0
        part.linear_0.weight, part.linear_0.bias = _matrix(self.state[fc(first)].T), self.state[offset_of(fc(first))]
        part.linear_1.weight = _matrix(self.state[fc(first + 1)].T * inside * self._kept)
        part.linear_1.bias = self.state[offset_of(fc(first + 1))] * np.float32(self._kept)
        self._normalise(part.layer_norm, norm)


def _matrix(array: np.ndarray) -> np.ndarray:
    # A copy: the specification rounds in place.
    return np.array(array, np.float32, order="C")
