"""What people of 2018 had: every flag acts or says why it does not, the recipe, the lists, the released archives."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from DeepASR import infer, infer_by_ckpt, score_error_rate, train
from DeepASR.corpus import open_corpus
from DeepASR.network import build_inference
from DeepASR.opening import open_recogniser
from DeepASR.options import (
    ALIASES,
    RETIRED_IN_TRAINING,
    RETIRED_IN_USE,
    NetworkFlags,
    with_small_devices,
)
from DeepASR.sizes import Sizes
from DeepASR.tests import tiny
from DeepASR.tools import profile
from fluid import config as configuration
from fluid.errors import UserError, WeightsError
from fluid.program import initialise
from fluid.schedule import Exponential
from fluid.weights import registry, write_weights

import numpy as np
import pytest

COMMON = "batch_size minimum_batch_size frame_dim stacked_num proj_dim hidden_dim device parallel class_num"
LISTS = "train_feature_lst train_label_lst val_feature_lst val_label_lst"
TRAIN = f"{COMMON} learning_rate mean_var pass_num print_per_batches {LISTS} init_model_path checkpoints infer_models"
INFER = "batch_size device mean_var infer_feature_lst infer_label_lst infer_model_path"
BY_CHECKPOINT = (
    f"{COMMON} mean_var beam_size num_threads infer_feature_lst checkpoint trans_model vocabulary graphs log_prior "
    "acoustic_scale post_matrix_path decode_to_path"
)
PROFILE = (
    "batch_size minimum_batch_size frame_dim stacked_num proj_dim hidden_dim device parallel class_num learning_rate mean_var "
    "feature_lst label_lst max_batch_num first_batches_to_skip print_train_acc sorted_key"
)
SCORE = "error_rate_type special_tokens ref hyp"
VALUES = {
    "device": "CPU",
    "parallel": "False",
    "error_rate_type": "wer",
    "learning_rate": "0.1",
    "acoustic_scale": "0.059",
    "print_train_acc": "True",
    "sorted_key": "ave",
}


@pytest.mark.parametrize(
    ("script", "names", "aliases", "retired"),
    [
        (train, TRAIN, ALIASES, RETIRED_IN_TRAINING),
        (infer, INFER, ALIASES, RETIRED_IN_USE),
        (infer_by_ckpt, BY_CHECKPOINT, infer_by_ckpt.HERE, RETIRED_IN_USE),
        (score_error_rate, SCORE, {}, {}),
        (profile, PROFILE, profile.HERE, profile.RETIRED_HERE),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_every_flag_acts_or_says_why_not(
    script: Any, names: str, aliases: dict, retired: dict, capsys: pytest.CaptureFixture
) -> None:
    plain = configuration.to_dict(script.Flags())
    for name in names.split():
        words = with_small_devices([f"--{name}", VALUES.get(name, "7")])
        flags = configuration.to_dict(configuration.parse(script.Flags, words, aliases=aliases, retired=retired))
        note = capsys.readouterr().err
        changed = [field for field in flags if flags[field] != plain[field]]
        assert (len(changed) == 1) != (f"note: --{name} has no effect any more" in note), (name, changed, note)


def test_the_recipe_of_2018_gives_way_to_named_flags() -> None:
    flags = train.with_recipe(configuration.parse(train.Flags, ["--recipe", "2018", "--batch_size", "64"]))
    assert (flags.hidden_dim, flags.proj_dim, flags.stacked_num, flags.filters) == (1024, 512, 5, 32)
    assert (flags.batch_size, flags.optimizer, flags.lr, flags.running_mean) == (64, "adam", 0.00016, 0)
    begun = configuration.parse(train.Flags, ["--recipe", "2018", "--checkpoint", "run"])
    assert train.with_recipe(begun) is begun, "a run that goes on remembers what it began with"
    assert not any((flags.speed, flags.warp, flags.noise, flags.time_masks, flags.l2_decay, flags.grad_clip))


def test_the_schedule_of_2018() -> None:
    """A step down by 1.2 every 1879 updates."""
    named: dict[str, Any] = {"hidden_dim": 6, "proj_dim": 4, "stacked_num": 1, "filters": 2}
    flags = train.with_recipe(train.Flags(recipe="2018", **named))
    rate = train.build_programs(flags, Sizes(8, 1, 6, 4, 9, 2), 10)["train"].schedule
    assert rate is not None
    assert [rate(step) / 0.00016 for step in (0, 1878, 1879, 3758)] == pytest.approx([1, 1, 1 / 1.2, 1 / 1.44])


@pytest.mark.parametrize("own", [["--lr_strategy", "constant"], ["--decay_epochs", "2.4"], ["--warmup_steps", "100"]])
def test_another_schedule_beside_the_recipe(own: list[str]) -> None:
    flags = train.with_recipe(configuration.parse(train.Flags, ["--recipe", "2018", *own]))
    with mock.patch("DeepASR.building.build_programs", side_effect=lambda flags, sizes, rate: rate) as built:
        rate = train.build_programs(flags, Sizes(8, 1, 6, 4, 9, 2), 10)
    assert built.called and not isinstance(rate, Exponential)


def test_the_released_archive_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its names and format, of a smaller network: a folder of one file a variable, Adam's among them."""
    monkeypatch.chdir(tmp_path)
    entry = registry.load_registry(Path(train.__file__).parent)["aishell"]
    assert entry.md5 == "7b51bde64e884f43901b7a3461ccbfa3" and entry.licence
    sizes = Sizes(8, 2, 6, 4, 9, 3)
    state = initialise(build_inference(sizes), seed=1)
    moments = {f"{name}_moment1_0": np.ones_like(array) for name, array in state.items() if name.startswith("fc")}
    folder = tmp_path / "checkpoints" / "deep_asr.latest.checkpoint"
    write_weights(folder, {**state, **moments})
    archive = tmp_path / "aishell_pretrained_model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "checkpoints", "checkpoints")
        note = b"made up"
        information = tarfile.TarInfo("README")
        information.size = len(note)
        tar.addfile(information, io.BytesIO(note))
    # As editors leave it: with a byte order mark.
    (tmp_path / "prior").write_text(f"[ {' '.join(['-2.2'] * 9)} ]\n", encoding="utf-8-sig")
    (tmp_path / "mean_var").write_text("0.5 4\n" * 24)
    flags = NetworkFlags(pretrained_model=str(archive), log_prior=tmp_path / "prior", mean_var=tmp_path / "mean_var")
    opened = open_recogniser(flags)
    assert opened.facts.sizes == sizes and opened.facts.log_prior == (-2.2,) * 9
    assert set(opened.facts.normalisation.variance) == {4.0}
    assert opened.state.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(opened.state[name], array, err_msg=name)
    write_weights(tmp_path / "other.safetensors", {"fc_0.w_0": state["fc_0.w_0"]})
    with pytest.raises(WeightsError, match="not the weights of a stack of projected LSTMs"):
        open_recogniser(NetworkFlags(pretrained_model=str(tmp_path / "other.safetensors")))


def test_training_starts_from_given_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh state takes all of those that come along."""
    monkeypatch.chdir(tmp_path)
    known = open_recogniser(NetworkFlags(pretrained_model="commands"))
    fresh = initialise(build_inference(known.facts.sizes), seed=1)
    started, _ = train.start_from(train.Flags(pretrained_model="commands"), fresh)
    assert started.keys() == known.state.keys() and any((fresh[name] != known.state[name]).any() for name in fresh)
    for name, array in known.state.items():
        np.testing.assert_array_equal(started[name], array, err_msg=name)
    smaller = initialise(build_inference(Sizes(8, 2, 6, 4, 9, 3)), seed=1)
    with pytest.raises(WeightsError):
        train.start_from(train.Flags(pretrained_model="commands"), smaller)


def test_training_takes_its_sizes_from_given_weights(tmp_path: Path) -> None:
    corpus = open_corpus(Path(str(tiny.data(tmp_path)[1])))
    sizes = Sizes(corpus.frame_dim, 2, 6, 4, corpus.class_num, 3)
    given = {"pretrained_model": str(tmp_path / "weights.safetensors")}
    write_weights(Path(given["pretrained_model"]), initialise(build_inference(sizes), seed=1))
    assert train.sizes_for(train.Flags(**given), corpus) == sizes
    assert train.sizes_for(train.Flags(**given, hidden_dim=6), corpus) == sizes
    with pytest.raises(UserError, match="--hidden_dim 7: .*weights.safetensors has 6; leave the flag out"):
        train.sizes_for(train.Flags(**given, hidden_dim=7), corpus)
    partly = train.sizes_for(train.Flags(**given, hidden_dim=7, allow_partial=True), corpus)
    assert partly == replace(sizes, hidden_dim=7)
    assert train.sizes_for(train.Flags(hidden_dim=7), corpus).hidden_dim == 7


def test_batches_of_training_are_profiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data, here = tiny.data(tmp_path)[1], tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    # In place of the commands, whose utterances are ten times as long.
    monkeypatch.setattr(profile, "open_corpus", lambda folder: open_corpus(Path(str(data))))
    sizes: dict[str, Any] = {"hidden_dim": 6, "proj_dim": 4, "stacked_num": 1, "filters": 2}
    flags = profile.Flags(
        **sizes, batch_size=4, max_batch_num=2, engine="paddle", print_train_acc=True, sorted_key="total"
    )
    timed = profile.main(flags)
    printed = capsys.readouterr().out
    assert timed["frames_per_second"] > 0 and "batch 1: " in printed and "accuracy 0." in printed
    assert "pd_op.matmul" in printed and "Operator Summary" in printed
    assert not list(here.iterdir()), "the profiler leaves nothing behind"
    with pytest.raises(UserError, match="go together"):
        profile.main(profile.Flags(feature_lst=tmp_path / "a.lst"))
