"""Evaluations while a translator trains."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from fluid import weights
from fluid.engine.base import Engine
from fluid.errors import UserError
from neural_machine_translation import train
from neural_machine_translation.indices import EOS
from neural_machine_translation.model import parameter_shapes
from neural_machine_translation.opening import open_translator
from neural_machine_translation.options import NetworkFlags
from neural_machine_translation.reader import TextPairs
from neural_machine_translation.translator import SHIPPED, Transformer, Translator
from neural_machine_translation.vocabulary import SPECIAL_WORDS, WordList

import numpy as np
import pytest

FLAGS = {"n_layer": 1, "d_model": 16, "digit_copy": True, "test_batch_size": 4}


class Recorder(Engine):
    """Translates everything into one word, and remembers the shapes of what it was asked to compile and to run."""

    name, device, on_gpu = "recorder", "none", True

    def __init__(self) -> None:
        self.compiled: list[Any] = []
        self.ran: list[Any] = []

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        raise AssertionError("an evaluation has no business with the state")

    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        raise AssertionError("an evaluation has no business with the state")

    def compile(self, jobs: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
        self.compiled.append([described(*job) for job in jobs])

    def run(self, program: Any, feed: Mapping[str, Any], step: int = 0, fetch: Any = None) -> dict[str, Any]:
        self.ran.append(described(program, feed))
        rows = len(feed["src_word"])
        ids = np.full((rows, 1, 2), EOS)
        ids[:, :, 0] = 3
        return {"ids": ids, "scores": np.zeros((rows, 1)), "nll": np.ones(rows), "words": np.ones(rows)}


def described(program: Any, feed: Mapping[str, Any]) -> Any:
    return program.name, {name: (array.shape, array.dtype) for name, array in feed.items()}


def program(name: str, *inputs: str) -> Any:
    return SimpleNamespace(name=name, inputs=dict.fromkeys(inputs), state_names=[], averages={})


def test_what_an_evaluation_runs_on_a_gpu_was_compiled_at_once():
    """Of each length; the first time, for then it is there."""
    lines = [" ".join("1234567890" * 3)[: 2 * length - 1] for length in (2, 3, 5, 9, 12, 20, 21, 25, 26)]
    pairs = TextPairs(lines, lines, ["digits"], [(0, number) for number in range(len(lines))])
    flags = train.Flags(**FLAGS)
    translator = train.describe(flags, pairs, None)[0]
    programs = {
        "eval": program("eval", "src_word", "trg_word", "lbl_word"),
        "search": program("search", "src_word"),
        "score": program("score", "src_word"),
    }
    engine = Recorder()
    source = train.sources(flags, translator, pairs, pairs)[1]
    evaluate = train.Evaluator(engine, program("train"), programs, translator, pairs, source, flags)
    assert evaluate()["loss"] == 1.0
    (compiled,) = engine.compiled
    assert len(compiled) == 4, "two Programs for batches of 16 and of 32 words"
    assert len(engine.ran) > 4 and all(item in compiled for item in engine.ran)
    evaluate()
    assert len(engine.compiled) == 1


def test_programs_from_files_can_be_trained_from_weights():
    """Those of --pretrained_model, where the files hold none; a run that goes on has its own."""
    pairs = TextPairs(["a"], ["b"], ["made"], [(0, 1)])
    flags = train.Flags(pretrained_model=SHIPPED)
    described, start = train.describe(flags, pairs, None)
    assert start is not None and described.corpora[-1] == train.fingerprint_of(pairs) and len(described.corpora) == 3
    facts = {"translator": described.to_facts()}
    again, loaded = train.describe(flags, pairs, facts)
    assert again == described and loaded is not None and loaded.keys() == start.keys()
    assert train.describe(flags, pairs, facts, resumed=True) == (described, None)
    assert train.describe(train.Flags(), pairs, facts) == (described, None)
    drier, scaled = train.describe(dataclasses.replace(flags, dropout=0.0), pairs, None)
    assert drier.config == dataclasses.replace(described.config, dropout=0.0)
    assert scaled is not None and not np.array_equal(scaled["fc_3.w_0"], start["fc_3.w_0"])


def test_weights_alone_tell_where_they_normalise(tmp_path):
    config = Transformer(40, 40, max_length=16, d_model=16, d_inner_hid=32, n_head=2, n_layer=1, norm="post")
    arrays = {name: np.ones(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    weights.write_weights(tmp_path / "post.safetensors", arrays)
    pairs = TextPairs(["a"], ["b"], ["made"], [(0, 1)])
    flags = train.Flags(pretrained_model=str(tmp_path / "post.safetensors"), n_head=2)
    assert train.describe(flags, pairs, None)[0].config == config


def test_flags_of_another_network_than_that_of_the_weights_are_refused():
    """Another rate of dropout makes no other network."""
    digits = WordList((*SPECIAL_WORDS, *"0123456789"))
    small = Translator(Transformer(13, 13, **{**train.SIZES["small"], "dropout": 0.3}), digits, digits)
    for named in ({"model": "small", "dropout": 0.1, "d_model": 256}, {}):
        train.refuse_idle_flags(train.Flags(**named), small)
    for named, message in (
        ({"model": "base"}, "--model base .it has another."),
        ({"n_layer": 6, "norm": "post"}, "--n_layer 6 .it has 3.; --norm post .it has pre."),
    ):
        with pytest.raises(UserError, match=f"--pretrained_model x decides the network; leave out {message}"):
            train.refuse_idle_flags(train.Flags(pretrained_model="x", **named), small)


def test_weights_that_say_their_network_take_no_flags_of_another(tmp_path):
    translator = open_translator(NetworkFlags(pretrained_model=SHIPPED)).facts
    (tmp_path / "own.model").write_bytes(translator.source.model)
    (tmp_path / "other").write_text("\n".join([*SPECIAL_WORDS, "a"]))
    same = {
        "n_head": 5,
        "n_layer": 6,
        "norm": "pre",
        "languages": ("en", "de"),
        "src_vocab_fpath": tmp_path / "own.model",
    }
    assert open_translator(NetworkFlags(pretrained_model=SHIPPED, **same)).facts == translator
    for other, message in (
        ({"n_head": 4, "languages": ("en", "fr")}, "leave out --n_head, --languages"),
        ({"norm": "post"}, "leave out --norm"),
        ({"trg_vocab_fpath": tmp_path / "other"}, "leave out --trg_vocab_fpath"),
    ):
        with pytest.raises(UserError, match=f"{SHIPPED} has its own network and vocabulary; {message}"):
            open_translator(NetworkFlags(pretrained_model=SHIPPED, **other))
