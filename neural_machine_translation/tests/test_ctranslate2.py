"""What is written for CTranslate2 is the same network there: log-probabilities, and what a greedy search finds."""

from fluid import config as configuration
from fluid import engine as engines
from fluid.errors import UserError
from fluid.program import initialise
from neural_machine_translation import export, for_ctranslate2
from neural_machine_translation.decode import Search
from neural_machine_translation.indices import EOS
from neural_machine_translation.network import scoring_program, search_program
from neural_machine_translation.translator import Transformer, Translator
from neural_machine_translation.vocabulary import SPECIAL_WORDS, WordList

import ctranslate2
import numpy as np
import pytest

SOURCE = WordList((*SPECIAL_WORDS, "a", "b", "c", "d"))
TARGET = WordList((*SPECIAL_WORDS, "v", "w", "x", "y", "z"))
SIZES = {
    "max_length": 24,
    "d_model": 16,
    "d_inner_hid": 32,
    "n_head": 2,
    "n_layer": 2,
    "n_decoder_layer": 1,
    "dropout": 0.2,
}
NETWORKS = {
    "pre": Translator(Transformer(7, 7, **SIZES), SOURCE, SOURCE),
    "post": Translator(Transformer(7, 8, norm="post", weight_sharing=False, **SIZES), SOURCE, TARGET),
}


def random_state(translator: Translator) -> dict[str, np.ndarray]:
    """Weights that are told apart: offsets and scales too."""
    rng = np.random.default_rng(4)
    return {
        name: array if "pos_enc" in name else (array + 0.4 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in initialise(scoring_program(translator.config), seed=11).items()
    }


@pytest.mark.parametrize("norm", NETWORKS)
def test_a_written_model_is_the_same_network(norm, tmp_path):
    translator = NETWORKS[norm]
    state = random_state(translator)
    folder = tmp_path / "model"
    assert for_ctranslate2.write(translator, state, folder, "float32") < 1e-5
    sentences = np.array([[0, 3, 4, 5, 6, 1], [0, 6, 6, 3, 5, 1], [0, 5, 4, 4, 3, 1]])
    engine, _ = engines.create("paddle", "cpu")
    engine.load(state)
    program = search_program(translator.config, Search(beam_size=1, max_out_len=24))
    ids = engine.run(program, {"src_word": sentences})["ids"][:, 0]
    texts = [[SOURCE.words[index] for index in row[1:-1]] for row in sentences]
    found = ctranslate2.Translator(str(folder), "cpu").translate_batch(
        texts, beam_size=1, min_decoding_length=0, max_decoding_length=ids.shape[1]
    )
    for row, result in zip(ids, found, strict=True):
        words = [translator.target.words[index] for index in row]
        assert result.hypotheses[0] == words[: np.flatnonzero([*row, EOS] == np.int64(EOS))[0]]
    assert 1e-5 < for_ctranslate2.write(translator, state, folder, "int8") < 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_another_network_leaves_what_was_there(tmp_path, monkeypatch):
    translator, folder = NETWORKS["pre"], tmp_path / "model"
    state = random_state(translator)
    for_ctranslate2.write(translator, state, folder, "float32")
    written = (folder / "model.bin").read_bytes()
    monkeypatch.setattr(for_ctranslate2, "difference", lambda *_: 0.1)
    with pytest.raises(UserError, match="computes something else: log-probabilities differ by 0.1 a word"):
        for_ctranslate2.write(translator, {**state, "fc_0.w_0": state["fc_1.w_0"]}, folder, "float32")
    assert (folder / "model.bin").read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_it_cannot_hold_is_refused(tmp_path):
    flags = configuration.parse(export.Flags, ["--format", "ctranslate2", "--beam_size", "3", "--onnx", "True"])
    with pytest.raises(UserError, match="does not hold --onnx, --beam_size"):
        export.main(flags)
    six_bits = configuration.parse(export.Flags, ["--format", "ctranslate2", "--storage", "int6"])
    with pytest.raises(UserError, match="knows no int6; --storage may be fp32, fp16, int8"):
        export.main(six_bits)
    (tmp_path / "letters").mkdir()
    with pytest.raises(UserError, match="is no model for CTranslate2"):
        for_ctranslate2.write(NETWORKS["pre"], random_state(NETWORKS["pre"]), tmp_path / "letters", "float32")
