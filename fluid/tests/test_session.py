"""A run that goes on remembers: its flags, its engine, its data, its network; Programs from files remember theirs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fluid import checkpoint
from fluid import config as configuration
from fluid.checkpoint import Meta
from fluid.config import Count, Share, TrainFlags, Was, WasSwitch
from fluid.errors import CheckpointError, DataError, EngineError, UserError
from fluid.run import events
from fluid.session import fingerprint, settle
from fluid.tests import toy
from fluid.tests.test_trainer import assert_same_bits, final_state
from fluid.tests.toy import ToyFlags

import numpy as np
import pytest


def go_on(run: Path, *words: object, steps: int = 20) -> None:
    """Continue a run as from the command line."""
    toy.main(configuration.parse(ToyFlags, [str(word) for word in ("--checkpoint", run, "--max_steps", steps, *words)]))


def test_a_run_takes_its_own_flags(tmp_path):
    flags = {"seed": 5, "lr": 0.05, "batch_size": 4, "accumulate": 2, "dropout": 0.0, "eval_every": 7}
    toy.main(ToyFlags(output_dir=tmp_path / "parts", max_steps=9, **flags))
    go_on(tmp_path / "parts")
    toy.main(ToyFlags(output_dir=tmp_path / "straight", **flags))
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "straight"))
    steps = [[event["step"] for event in events(tmp_path / name, "eval")] for name in ("parts", "straight")]
    assert steps == [[7, 9, 14, 20], [7, 14, 20]]


def test_a_flag_that_is_named_anew_is_said_and_recorded(tmp_path, capsys):
    """A folder too: checkpoints are written all the same."""
    one, other = tmp_path / "one", tmp_path / "other"
    toy.main(ToyFlags(output_dir=tmp_path, lr=0.05, max_steps=9, data_dir=one))
    go_on(tmp_path, "--lr", 0.2, "--data_dir", other)
    said = capsys.readouterr().out
    assert f"--data_dir is {other} from here on, not {one}" in said
    assert "--lr is 0.2 from here on, not 0.05" in said and "--max_steps is 20 from here on, not 9" in said
    assert "the learning rate of the next update is 0.116; by the flags before it would be 0.0289" in said
    (event,) = events(tmp_path, "changes")
    assert event["step"] == 9 and event["flags"] == {"data_dir": str(other), "lr": "0.2", "max_steps": "20"}
    changes = checkpoint.load(tmp_path)[1].changes
    assert {"flag": "lr", "before": 0.05, "after": 0.2, "step": 9} in changes
    assert {"flag": "data_dir", "before": str(one), "after": str(other), "step": 9} in changes
    assert json.loads((tmp_path / "config.json").read_text())["lr"] == 0.2


@dataclass
class Renamed(TrainFlags):
    width: Annotated[Count, Was("hidden")] = 4
    smoothing: Annotated[Share, WasSwitch("use_smoothing", 0.1)] = 0.0


def test_a_run_of_an_earlier_version_takes_its_flags_by_their_names_of_today(tmp_path):
    config = {"hidden": 7, "use_smoothing": True, "seed": 3, "gone": 1}
    checkpoint.save(tmp_path, {"w": np.ones(1, np.float32)}, Meta("toy", 1, config=config))
    flags = settle(Renamed(checkpoint=tmp_path), "toy").flags
    assert (flags.width, flags.smoothing, flags.seed) == (7, 0.1, 3)
    assert settle(Renamed(checkpoint=tmp_path, width=5), "toy").changes == {"width": (7, 5)}


def test_the_engine_is_kept(tmp_path, capsys):
    toy.main(ToyFlags(output_dir=tmp_path, engine="xla", device="cpu", max_steps=2))
    go_on(tmp_path, steps=4)
    assert "engine xla on" in (said := capsys.readouterr().out.split("time:")[1]) and "(that of the run)" in said


@pytest.mark.parametrize(
    "words, message",
    [
        (["--dropout", 0.5], "run of another network: --dropout is 0.2 there, not 0.5"),
        (["--hidden", 17], "does not fit this model.*instead of"),
        (["--classes", "above", "below"], r"of other classes: classes is \['below', 'above'\] there"),
    ],
)
def test_another_network_or_other_classes_are_an_error(tmp_path, words, message):
    toy.main(ToyFlags(output_dir=tmp_path, max_steps=1))
    with pytest.raises(CheckpointError, match=message):
        go_on(tmp_path, *words)
    assert checkpoint.load(tmp_path)[1].step == 1


def test_other_data_are_an_error_unless_asked_for(tmp_path, capsys):
    toy.main(ToyFlags(output_dir=tmp_path, max_steps=3))
    with pytest.raises(DataError, match=r"the data of .* were others \(points: .*--other_data"):
        go_on(tmp_path, "--points", 72)
    go_on(tmp_path, "--points", 72, "--other_data", True)
    assert "the data are not those that the run has seen so far" in capsys.readouterr().out
    assert checkpoint.load(tmp_path)[1].step == 20


def test_another_batch_size_goes_on_at_the_next_epoch(tmp_path, capsys, monkeypatch):
    opened = []
    original = toy.training_batches

    def opening(*arguments, start, **more):
        opened.append(start)
        return original(*arguments, start=start, **more)

    monkeypatch.setattr(toy, "training_batches", opening)
    toy.main(ToyFlags(output_dir=tmp_path, max_steps=11))
    go_on(tmp_path, "--batch_size", 4, steps=15)
    said = capsys.readouterr().out
    assert "batches are now 1 x 4, 16 an epoch (before: 1 x 8, 8): the run goes on at the start of epoch 2" in said
    go_on(tmp_path, steps=19)
    # 11 updates are 1.4 epochs of 8 batches; two epochs of 16 batches are 32; and four updates later the run goes on at 36.
    assert opened == [0, 32, 36]
    assert checkpoint.load(tmp_path)[1].epoch == 2


def test_the_length_of_a_run_counts_from_where_its_batches_changed(tmp_path):
    toy.main(ToyFlags(output_dir=tmp_path, max_steps=11))
    settled = settle(ToyFlags(checkpoint=tmp_path, batch_size=4, max_steps=1000), "toy")
    length = settled.length(16, 5, batch_size=4)
    assert (length.steps_per_epoch, length.total_steps) == (16, 11 + 3 * 16)
    with pytest.raises(UserError, match="do not fill one update of 3 x 4"):
        settled.length(2, 5, batch_size=4, accumulate=3)


def test_a_benchmark_claims_no_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = toy.main(ToyFlags(benchmark=True))
    assert outcome.nothing_left and "synthetic" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_programs_from_files_train_to_the_same_bits(tmp_path, capsys):
    flags = {"seed": 5, "engine": "xla", "device": "cpu", "lr": 0.05, "accumulate": 2, "total_steps": 6}
    toy.main(ToyFlags(capture=tmp_path / "programs", **flags))
    toy.main(ToyFlags(output_dir=tmp_path / "built", **flags))
    toy.main(ToyFlags(output_dir=tmp_path / "files", programs=tmp_path / "programs", device="cpu", max_steps=4))
    more = {"programs": tmp_path / "programs", "checkpoint": tmp_path / "files", "max_steps": 6}
    toy.main(ToyFlags(**more))
    assert "the Programs come from" in capsys.readouterr().out
    assert_same_bits(final_state(tmp_path / "files"), final_state(tmp_path / "built"))
    with pytest.raises(UserError, match=r"were built with --lr 0.05, not 0.3: capture them again"):
        toy.main(ToyFlags(programs=tmp_path / "programs", lr=0.3))
    with pytest.raises(EngineError, match="Programs from files are run by the xla engine"):
        toy.main(ToyFlags(programs=tmp_path / "programs", engine="paddle"))


@dataclass
class Beginning(ToyFlags):
    pretrained_model: str | None = None


def test_programs_with_values_begin_with_other_weights_where_some_are_named(tmp_path):
    asked: list[str | None] = []

    def begin(**options: object) -> bool:
        flags = Beginning(device="cpu", seed=5, lr=0.05, output_dir=tmp_path / f"run{len(asked)}", **options)  # type: ignore[arg-type]
        settled = settle(flags, "toy", free=["lr"])
        settled.programs(dict)
        engine = settled.start_engine()
        before = len(asked)

        def load(state):
            asked.append(settled.flags.pretrained_model)
            return {name: np.zeros_like(array) for name, array in state.items()}, "told"

        with settled.open(facts={}, load=load):
            assert (len(asked) > before) == (not engine.state(["fc1_w"])["fc1_w"].any())
        return len(asked) > before

    toy.main(ToyFlags(capture=tmp_path / "programs", device="cpu", seed=5, lr=0.05))
    assert begin(programs=tmp_path / "programs", pretrained_model="other") and asked == ["other"]
    assert not begin(programs=tmp_path / "programs")


def test_named_flags(tmp_path):
    parsed = configuration.parse(ToyFlags, ["--lr=0.2", "--use_gpu", "False"])
    assert configuration.named(parsed) == {"lr", "device"}
    assert configuration.named(ToyFlags(lr=0.2, seed=3)) == {"seed"}
    # What comes of them has been named as well, even where it is the default.
    settled = settle(configuration.with_named(parsed, {"output_dir": tmp_path}), "toy")
    assert configuration.named(settled.flags) == {"lr", "device", "output_dir"}


@dataclass
class Odd(TrainFlags):
    shape: tuple[int, int] = (1, 2)
    place: Path | None = None


def test_a_configuration_is_read_back(tmp_path):
    flags = Odd(shape=(3, 4), place=Path("here"))
    data = json.loads(json.dumps(configuration.to_dict(flags)))
    assert configuration.from_dict(Odd, {**data, "gone": 1}) == Odd(shape=(3, 4), place=Path("here").absolute())


def test_fingerprints_see_what_belongs_together():
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"]) != fingerprint(["a"], ["bc"])
    assert fingerprint(np.arange(3)) == fingerprint(np.arange(6)[::2] // 2) != fingerprint(np.arange(1, 4))
