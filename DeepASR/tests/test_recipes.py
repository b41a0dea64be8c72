"""The recipes, on little trees of the layouts that they read."""

import gzip
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from DeepASR.corpus import open_corpus
from DeepASR.prepare_digits import read_takes
from DeepASR.recipes import aishell, asterisk, voices
from DeepASR.recipes.stages import sweep
from DeepASR.tests import tiny
from fluid.errors import DataError, UserError

import numpy as np
import pytest
import soundfile

RATE = 16_000
SAYINGS = ("今天 天气 好", "天气 不 好", "今天 好")
LEXICON = "SIL sil\n今天 j in1 t ian1\n天气 t ian1 q i4\n不 b u4\n好 h ao3\n很 h en3\n"
SMALL = (
    "--hidden_dim 6 --proj_dim 4 --stacked_num 1 --filters 2 --batch_size 4 --max_steps 2 --num_epochs 1 --device cpu"
)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """data_aishell.tgz with an archive for each speaker in it, and resource_aishell.tgz."""
    rng = np.random.default_rng(0)
    tree, folder = tmp_path / "tree", tmp_path / "archives"
    wav = tree / "data_aishell" / "wav"
    wav.mkdir(parents=True)
    transcript = ""
    for part, number in (("train", 2), ("train", 3), ("dev", 724), ("test", 764)):
        speaker = f"S{number:04d}"
        (wav / part / speaker).mkdir(parents=True)
        for take, saying in enumerate(SAYINGS):
            name = f"BAC009{speaker}W{take:04d}"
            times = np.arange(int(1.4 * RATE)) / RATE
            samples = (
                0.2 * np.sin(900 * (take + 2) * times) * np.sin(9 * times) ** 2 + rng.normal(size=len(times)) * 0.01
            )
            soundfile.write(wav / part / speaker / f"{name}.wav", samples, RATE, subtype="PCM_16")
            # One has no transcript, as some of the real ones, and one a word that the lexicon lacks.
            said = "很好 天气" if (speaker, take) == ("S0003", 2) else saying
            transcript += f"{name} {said}\n" if (speaker, take) != ("S0002", 2) else ""
        with tarfile.open(wav / f"{speaker}.tar.gz", "w:gz") as tar:
            tar.add(wav / part / speaker, f"{part}/{speaker}")
    (tree / "data_aishell" / "transcript").mkdir()
    (tree / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt").write_text(transcript)
    (tree / "resource_aishell").mkdir()
    (tree / "resource_aishell" / "lexicon.txt").write_text(LEXICON)
    folder.mkdir()
    with tarfile.open(folder / "data_aishell.tgz", "w:gz") as tar:
        tar.add(tree / "data_aishell" / "transcript", "data_aishell/transcript")
        for path in sorted(wav.glob("*.tar.gz")):
            tar.add(path, f"data_aishell/wav/{path.name}")
    with tarfile.open(folder / "resource_aishell.tgz", "w:gz") as tar:
        tar.add(tree / "resource_aishell", "resource_aishell")
    return folder


def flags(archives: Path, **more: Any) -> aishell.Flags:
    return aishell.Flags(work=archives.parent / "work", archives=archives, train=SMALL, use="--device cpu", **more)


def test_stages_go_on_where_they_ended(archives: Path, capfd: pytest.CaptureFixture) -> None:
    work = archives.parent / "work"
    assert aishell.main(flags(archives, stop_stage=2)) == [1, 2]
    assert "很 好 天气" in (work / "tables" / "train" / "text").read_text(), "spelled by characters"
    assert (work / "tables" / "dev" / "utt2spk").read_text().splitlines()[0] == "BAC009S0724W0000 S0724"
    assert aishell.main(flags(archives, stop_stage=3)) == [3]
    corpus = open_corpus(work / "prepared")
    assert {part: len(corpus.part(part)) for part in ("train", "dev", "test")} == {"train": 5, "dev": 3, "test": 3}  # type: ignore[arg-type]
    assert (
        corpus.unit == "cer" and corpus.lexicon is not None and set(corpus.lexicon.words) == {*"不好很", "今天", "天气"}
    )
    assert aishell.main(flags(archives, stop_stage=3)) == []
    assert aishell.main(flags(archives, stage=3, stop_stage=3)) == [3] and (work / "prepared.1").is_dir()
    (work / "prepared" / "corpus.json").unlink()
    with pytest.raises(UserError, match="train.py ended with 1; mend what it says"):
        aishell.main(flags(archives, stop_stage=4))
    assert "no prepared data there" in capfd.readouterr().err
    assert aishell.main(flags(archives, stage=3, stop_stage=3)) == [3]


@pytest.mark.full
def test_all_stages_lead_to_an_error_rate(archives: Path, capsys: pytest.CaptureFixture) -> None:
    assert aishell.main(flags(archives)) == [1, 2, 3, 4, 5, 6, 7, 8]
    printed = capsys.readouterr().out
    assert "this run, measured" in printed and "DeepASR of 2018 (published)" in printed
    assert (archives.parent / "work" / "results" / "result.json").exists()


def test_what_is_missing_is_told(archives: Path) -> None:
    with pytest.raises(UserError, match="data_aishell.tgz: not there; without --archives it is downloaded"):
        aishell.main(flags(archives.parent / "nowhere"))
    (archives / "resource_aishell.tgz").write_bytes(b"cut off")
    with pytest.raises(DataError, match="resource_aishell.tgz: cannot be unpacked"):
        aishell.main(flags(archives))
    with pytest.raises(DataError, match="nor the characters 车"):
        aishell.spell(["车"], aishell.Lexicon({"好": (("h", "ao"),)}))


ASTERISK = """; Core Asterisk Sounds in English

activated: Activated.
beep: [this is a simple beep tone]
digits/5: Five.
agent-pass: Please enter 5.
vm-unknown: Zyzzyva please.
gone: Please.
"""
CMU = "activated AE1 K T AH0 V EY2 T IH0 D\nfive F AY1 V\nplease P L IY1 Z\nplease(2) P L IH1 Z\nenter EH1 N T ER0\n"


@pytest.fixture
def prompts(tmp_path: Path) -> asterisk.Flags:
    """The recordings of a package, each of them ten times under other names."""
    rng = np.random.default_rng(0)
    sounds, text = tmp_path / "sounds", ASTERISK
    for name in ("activated", "digits/5", "agent-pass", "vm-unknown"):
        for copy in range(10):
            path = sounds / f"{name}{copy or ''}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            times = np.arange(int(1.2 * 8000)) / 8000
            samples = (
                0.2 * np.sin(900 * (copy + 2) * times) * np.sin(9 * times) ** 2 + rng.normal(size=len(times)) * 0.01
            )
            soundfile.write(path, samples, 8000, subtype="PCM_16")
            said = next(line.partition(":")[2] for line in ASTERISK.splitlines() if line.startswith(f"{name}:"))
            text += f"{name}{copy}:{said}\n" if copy else ""
    (tmp_path / "core.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "cmu.dict").write_text(CMU)
    files = {"transcripts": tmp_path / "core.txt.gz", "dictionary": tmp_path / "cmu.dict"}
    return asterisk.Flags(work=tmp_path / "work", sounds=sounds, train=SMALL, use="--device cpu", **files)


def test_prompts_become_a_data_set_that_gaussians_recognise(
    prompts: asterisk.Flags, capsys: pytest.CaptureFixture
) -> None:
    assert asterisk.main(replace(prompts, stop_stage=3)) == [1, 2, 3]
    printed = capsys.readouterr().out
    assert "without a pronunciation: 1 word, zyzzyva" in printed and "10 prompts left out" in printed
    corpus = open_corpus(prompts.work / "prepared")
    texts = [text for part in ("train", "dev", "test") for text in corpus.part(part).texts.values()]  # type: ignore[arg-type]
    assert len(texts) == 30 and set(texts) == {"activated", "five", "please enter five"}
    assert corpus.lexicon is not None and len(corpus.lexicon.words["please"]) == 2
    result = json.loads((prompts.work / "gaussians" / "result.json").read_text())
    assert result["out_of_vocabulary"] == 0 and 0 <= result["interval"][0] <= result["wer"] <= result["interval"][1]


@pytest.mark.full
def test_prompts_lead_to_an_error_rate(prompts: asterisk.Flags, capsys: pytest.CaptureFixture) -> None:
    assert asterisk.main(prompts) == [1, 2, 3, 4, 5, 6]
    printed = capsys.readouterr().out
    assert "network: WER" in printed and "Gaussians: WER" in printed


def test_prompts_that_are_not_there_are_told(prompts: asterisk.Flags, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none of the 41 recordings"):
        asterisk.tables(replace(prompts, sounds=tmp_path))
    with pytest.raises(DataError, match="install asterisk-core-sounds-en"):
        asterisk.tables(replace(prompts, transcripts=tmp_path / "nothing"))
    assert asterisk.spelled("If you'd like, press 1 or 'two'.") == ["if", "you'd", "like", "press", "one", "or", "two"]


def test_a_sweep_leaves_the_scale_with_the_fewest_errors(tmp_path: Path) -> None:
    tiny.commands(tmp_path / "few", 4)
    sweep(tmp_path / "new" / "scale.txt", "--sweep", "0.001", "0.2", data_dir=tmp_path / "few", device="cpu")
    assert (tmp_path / "new" / "scale.txt").read_text() == "0.2\n"


def test_a_synthetic_voice_becomes_takes_without_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    word = rng.normal(size=4000) * 0.1
    soundfile.write(tmp_path / "said.wav", np.concatenate([np.zeros(3000), word, np.zeros(5000)]), RATE)
    program = tmp_path / "flite"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said.wav\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(voices, "FLITE", {"kal16": 105})
    monkeypatch.setattr(voices, "WORDS", ("zero", "one"))
    folder = tmp_path / "voices"
    assert voices.main(voices.Flags(folder, ("flite",))) == 30
    takes = read_takes(folder)
    assert set(takes) == {(digit, "flitekal", take) for digit in (0, 1) for take in range(15)}
    assert all(2000 <= len(samples) <= 2800 and np.abs(samples).max() > 15_000 for samples in takes.values())
    program.write_text("#!/bin/sh\necho no such voice >&2\nexit 1\n")
    with pytest.raises(UserError, match="flite -voice kal16: no such voice"):
        voices.main(voices.Flags(folder, ("flite",)))
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install flite"):
        voices.main(voices.Flags(folder, ("flite",)))
