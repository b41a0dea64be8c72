"""Features less the mean of their speaker: in training, evaluation and use."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from DeepASR import eval as evaluation
from DeepASR import infer, realign, train
from DeepASR.augmentation import AugmentationFlags
from DeepASR.corpus import open_corpus
from DeepASR.kaldi.tables import ArchiveWriter
from DeepASR.opening import open_recogniser
from DeepASR.options import SearchFlags
from DeepASR.posteriors import Network
from DeepASR.reader import Utterances
from DeepASR.recogniser import Normalisation
from DeepASR.tests import tiny
from DeepASR.tests.test_reader import DIM, part
from DeepASR.transforms import speaker_means
from fluid.errors import DataError, UserError

import numpy as np
import pytest


def test_means_are_those_of_speakers() -> None:
    features = {
        name: np.full((frames, 2), value) for name, frames, value in (("a", 1, 0.0), ("b", 3, 4.0), ("c", 5, 7.0))
    }
    means = speaker_means(features, {"a": "one", "b": "one"})
    assert {name: mean.tolist() for name, mean in means.items()} == {"a": [3, 3], "b": [3, 3], "c": [7, 7]}


def test_how_loud_a_speaker_is_recorded_makes_no_difference() -> None:
    """Nor does another volume in training."""
    normalisation = Normalisation((0.0,) * 3 * DIM, (1.0,) * 3 * DIM, by_speaker=True)
    quiet, loud = part({"a": 40, "b": 30, "c": 25}), part({"a": 40, "b": 30, "c": 25})
    for item in (quiet, loud):
        item.speakers = {"a": "one", "b": "one", "c": "two"}
    offsets = {"one": np.float32(3), "two": np.linspace(-5, 5, DIM, dtype=np.float32)}
    loud._features = {name: array + offsets[loud.speakers[name]] for name, array in quiet.items()}
    for index, volume in ((0, 0.0), (1, 10.0), (2, 0.0)):
        augmentation = AugmentationFlags(volume=volume)
        one, other = (
            Utterances(item, normalisation, batch_size=1, augmentation=used).load(index, np.random.default_rng(0))
            for item, used in ((quiet, AugmentationFlags()), (loud, augmentation))
        )
        np.testing.assert_allclose(one["x"], other["x"], atol=1e-4)


def test_whoever_is_left_out_need_not_be_in_dev(tmp_path: Path) -> None:
    data = Path(str(tiny.data(tmp_path)[1]))
    for folder, changed in (("train", "train3"), ("dev", "dev1")):
        path = data / folder / "utt2spk"
        path.write_text(path.read_text().replace(f"{changed} nobody", f"{changed} anna"))
    path = data / "train" / "utt2spk"
    path.write_text(path.read_text().replace("train5 nobody", "train5 bert"))
    _, parts = train.open_data(train.Flags(data_dir=data, without_speakers=("anna", "bert")))
    assert set(parts["train"]) == {f"train{number}" for number in range(12)} - {"train3", "train5"}
    assert set(parts["dev"]) == {f"dev{number}" for number in range(5)} - {"dev1"}
    with pytest.raises(DataError, match="train/utt2spk: has no speaker carl"):
        train.open_data(train.Flags(data_dir=data, without_speakers=("carl",)))


def test_a_network_learns_and_is_used_with_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path(str(tiny.data(tmp_path)[1]))
    small: dict[str, Any] = {"hidden_dim": 6, "proj_dim": 4, "filters": 2, "batch_size": 4, "stacked_num": 1}
    train.main(
        train.Flags(data_dir=data, max_steps=1, cmvn="speaker", engine="paddle", output_dir=Path("run"), **small)
    )
    flags = SearchFlags(checkpoint=Path("run"), engine="paddle")
    network = Network(open_recogniser(flags), flags, rows=2, runs=None)
    assert network.recogniser.normalisation.by_speaker
    dev = open_corpus(data).part("dev")
    plain = dict(network.posteriors(dev.items(), dev.speakers))
    louder = dict(network.posteriors(((name, array + 3) for name, array in dev.items()), dev.speakers))
    alone = dict(network.posteriors(dev.items()))
    for name in plain:
        np.testing.assert_allclose(plain[name], louder[name], atol=1e-4)
    assert any(np.abs(plain[name] - alone[name]).max() > 1e-4 for name in plain)
    asked: list[Any] = []
    listening: Any = SimpleNamespace(posteriors=lambda _, speakers: asked.append(speakers) or iter(plain.items()))
    paths = realign.align_part(listening, dev, tiny.LEXICON, np.zeros(tiny.LEXICON.class_num))
    assert paths.keys() == dev.keys() and asked == [dev.speakers]
    evaluated = evaluation.main(evaluation.Flags(checkpoint=Path("run"), data_dir=data, split="dev", engine="paddle"))
    assert evaluated["frames"] == sum(map(len, dev.values()))
    with ArchiveWriter(tmp_path / "f.ark") as archive:
        for name, array in dev.items():
            archive.write(name, array)
    (tmp_path / "utt2spk").write_text("".join(f"{name} nobody\n" for name in dev))
    given: dict[str, Any] = {"checkpoint": Path("run"), "features": tmp_path / "f.ark", "engine": "paddle"}
    assert len(infer.main(infer.Flags(**given, utt2spk=tmp_path / "utt2spk"))) == len(dev)
    with pytest.raises(UserError, match="whoever speaks"):
        infer.main(infer.Flags(pretrained_model="commands", utt2spk=tmp_path / "utt2spk"))
