"""The recogniser that comes along: its examples as the whole, piece by piece, exported, aligned; what it says of wrong input."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from DeepASR import align, export, infer, realign, stream
from DeepASR import eval as evaluation
from DeepASR.audio import read_audio
from DeepASR.corpus import open_corpus, write_corpus
from DeepASR.decoding.search import open_decoder
from DeepASR.forced_alignment import make_chain
from DeepASR.listener import Listener
from DeepASR.opening import open_recogniser
from DeepASR.options import SearchFlags
from DeepASR.posteriors import Network
from DeepASR.recogniser import FOLDER
from DeepASR.tests import tiny
from DeepASR.transcripts import RESULTS, Transcriber, Transcript, Word, transcripts_in
from fluid.errors import DataError, UserError

import numpy as np
import pytest
import soundfile

EXAMPLES = FOLDER / "data" / "examples" / "commands"
SAID = {
    "kitchen_light": "打开 厨房 的 灯",
    "temperature": "空调 温度 调到 二 十 六 度",
    "weather": "明天 北京 天气 怎么样",
}


def mandarin(kind: Any, **more: Any) -> Any:
    """Flags of a script with the weights that know commands, unless they name others."""
    named = {"exported_model", "checkpoint"} & more.keys()
    return kind(**({} if named else {"pretrained_model": "commands"}), **more)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Network and decoder, compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("opened"))
        flags = SearchFlags(engine="xla", device="cpu")
        opened = open_recogniser(flags)
        network = Network(opened, flags, rows=1, runs=None)
    return SimpleNamespace(network=network, decoder=open_decoder(opened.facts, flags), facts=opened.facts)


def test_recordings_are_recognised_and_written(tmp_path: Path) -> None:
    found = infer.main(mandarin(infer.Flags, output_dir=tmp_path / "heard", n_best=2, pictures=True))
    assert {Path(item.name).stem: item.text for item in found} == {
        name: text.replace(" ", "") for name, text in SAID.items()
    }
    records = [json.loads(line) for line in (tmp_path / "heard" / "transcripts.jsonl").read_text().splitlines()]
    for record in records:
        words = record["words"]
        assert " ".join(word["word"] for word in words) == SAID[Path(record["recording"]).stem]
        assert all(0 <= word["start"] < word["end"] <= record["seconds"] for word in words)
        assert all(one["end"] <= other["start"] for one, other in zip(words, words[1:]))
        assert all(0.5 < word["score"] <= 1 for word in words)
        assert record["alternatives"][0] == record["text"] and len(record["alternatives"]) in (1, 2)
    assert any(len(set(record["alternatives"])) == 2 for record in records)
    ctm = (tmp_path / "heard" / "transcripts.ctm").read_text().splitlines()
    assert len(ctm) == 15 and all(len(line.split()) == 6 for line in ctm)
    srt = (tmp_path / "heard" / "0002_weather.srt").read_text()
    assert srt.startswith("1\n00:00:00,") and srt.endswith("明天 北京 天气 怎么样\n")
    assert (tmp_path / "heard" / "0002_weather.png").stat().st_size > 5000


def test_transcripts_are_there_as_they_come_and_those_of_an_earlier_call_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with transcripts_in(tmp_path / "nothing"):
        pass
    assert "written to" not in capsys.readouterr().out
    heard = tmp_path / "heard"
    for names in (("a b.wav", "c.wav"), ("x" * 251 + ".wav", "\udcff.wav")):
        with transcripts_in(heard) as add:
            for count, name in enumerate(names, 1):
                add(Transcript(name, (Word("yes", 0.5, 1.0),), "yes", 2.0, True))
                assert [len((heard / file).read_bytes().splitlines()) for file in RESULTS] == 3 * [count]
    assert capsys.readouterr().out.count("written to") == 2
    written = sorted(path.name for path in heard.iterdir())
    assert written == [f"0000_{'x' * 235}.srt", "0001_\udcff.srt", "before", *sorted(RESULTS)]
    assert sorted(path.name for path in (heard / "before").glob("*.srt")) == ["0000_a b.srt", "0001_c.srt"]
    assert (heard / "before" / "transcripts.ctm").read_text() == "a_b 1 0.50 0.50 yes\nc 1 0.50 0.50 yes\n"


def test_words_without_a_known_pronunciation_have_no_picture(recogniser: SimpleNamespace, tmp_path: Path) -> None:
    transcriber = Transcriber(recogniser.facts, recogniser.decoder)
    heard = Transcript("call", (), "[unk]", 1.0, True)
    with pytest.raises(UserError, match="call: how its words are pronounced is not known"):
        transcriber.draw(tmp_path / "call.png", heard, np.ones((100, recogniser.facts.sizes.class_num)))


@pytest.mark.parametrize("chunk", [0.08, 0.16, 0.64])
def test_a_stream_is_understood_as_the_whole(recogniser: SimpleNamespace, chunk: float) -> None:
    frontend = recogniser.facts.frontend
    samples = read_audio(EXAMPLES / "temperature.flac", frontend.sample_rate)
    ((_, posterior),) = recogniser.network.posteriors([("whole", frontend.features(samples))])
    listener = Listener(recogniser.network, recogniser.decoder)
    answers, partial, size = [], [], round(chunk * frontend.sample_rate)
    accept = listener._listening.accept
    listener._listening.accept = lambda piece: (answers.append(piece), accept(piece))  # type: ignore[method-assign,assignment]
    for start in range(0, len(samples), size):
        listener.accept(samples[start : start + size])
        partial.append(listener.partial())
    (said,) = listener.finish()
    np.testing.assert_allclose(np.concatenate(answers), posterior, rtol=0, atol=1e-4)
    assert said.hypothesis.words == recogniser.decoder.decode(posterior).words
    assert said.hypothesis.text == SAID["temperature"] and any(0 < len(text) < 10 for text in partial)


def test_of_an_endless_sound_little_is_kept(recogniser: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a search go on for ever in which nothing is said."""
    sizes, rng = recogniser.facts.sizes, np.random.default_rng(0)
    answers = recogniser.network.open()
    counts = [len(answers.accept(rng.normal(size=(50, sizes.frame_dim)).astype(np.float32))) for _ in range(8)]
    assert counts[1:] == [50] * 7 and len(answers._centred) < 50
    silent = np.full((100, sizes.class_num), 1e-4, np.float32)
    silent[:, 0] = 1
    listener = Listener(recogniser.network, recogniser.decoder, pause=0.8)
    monkeypatch.setattr(listener._stream, "accept", lambda features, last: silent)
    for _ in range(35):
        listener.accept(np.zeros(10, np.float32))
    assert listener._listening.frames < 1000 and not listener.ended


def test_a_pause_ends_an_utterance(recogniser: SimpleNamespace) -> None:
    rate = recogniser.facts.frontend.sample_rate
    noise = np.random.default_rng(0).normal(size=2 * rate) * 30
    listener = Listener(recogniser.network, recogniser.decoder, pause=0.8)
    for name in ("kitchen_light", "weather"):
        samples = np.concatenate([read_audio(EXAMPLES / f"{name}.flac", rate), noise])
        for start in range(0, len(samples), 2560):
            listener.accept(samples[start : start + 2560])
    said = listener.finish()
    assert [item.hypothesis.text for item in said] == [SAID["kitchen_light"], SAID["weather"]]
    assert 2 < said[0].end < 4 and said[1].start == said[0].end


def test_what_comes_along_for_use_knows_digits(capsys: pytest.CaptureFixture) -> None:
    """It says so, and which."""
    found = infer.main(infer.Flags())
    assert {item.text for item in found} == {" ".join(Path(item.name).stem.split("_")) for item in found}
    assert len(found) == 3
    printed = capsys.readouterr().out
    assert "digits" in printed.splitlines()[0]
    assert "strings of English digits: zero one two three four five six seven eight nine;" in printed
    (heard,) = stream.main(stream.Flags())
    assert heard.hypothesis.text in {item.text for item in found}


def test_recordings_are_divided_at_pauses(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=16_000) * 0.001
    parts = [soundfile.read(EXAMPLES / f"{name}.flac")[0] for name in ("kitchen_light", "weather")]
    soundfile.write(tmp_path / "both.wav", np.concatenate([parts[0], noise, parts[1]]), 16_000)
    (found,) = infer.main(mandarin(infer.Flags, recordings=(str(tmp_path / "both.wav"),), pause=0.6))
    assert found.text.split(" ") == [SAID[name].replace(" ", "") for name in ("kitchen_light", "weather")]
    (_, first_end), (second_start, _) = found.speech
    middle = len(parts[0]) / 16_000
    assert first_end < second_start and middle - 0.5 < first_end < middle + 1
    assert [word.text for word in found.words] == SAID["kitchen_light"].split() + SAID["weather"].split()
    assert all(one.end <= other.start for one, other in zip(found.words, found.words[1:]))


def test_the_exported_model_recognises_piece_by_piece(tmp_path: Path) -> None:
    export.main(export.Flags(export_dir=tmp_path / "exported"))
    found = infer.main(mandarin(infer.Flags, exported_model=tmp_path / "exported"))
    assert [item.text for item in found] == [text.replace(" ", "") for text in SAID.values()]
    heard = stream.main(
        mandarin(stream.Flags, exported_model=tmp_path / "exported", recording=str(EXAMPLES / "kitchen_light.flac"))
    )
    assert [item.hypothesis.text for item in heard] == [SAID["kitchen_light"]]


def test_a_grammar_is_exchanged(tmp_path: Path, recogniser: SimpleNamespace) -> None:
    (tmp_path / "grammar").write_text("(打开 | 关上) (厨房 | 卧室) 的 (灯 | 电视)\n今天 (北京 | 上海) 天气 怎么样\n")
    found = infer.main(
        mandarin(infer.Flags, recordings=(str(EXAMPLES / "weather.flac"),), grammar=tmp_path / "grammar")
    )
    assert found[0].text == "今天北京天气怎么样"
    (tmp_path / "lamp").write_text("打开 厨房 的 灯\n")
    heard = infer.main(mandarin(infer.Flags, grammar=tmp_path / "lamp", unknown_words=True))
    assert [item.text for item in heard] == ["打开厨房的灯", "[unk]", "[unk]"]
    (tmp_path / "grammar").write_text("打开 车库 的 灯\n")
    with pytest.raises(DataError, match="no pronunciation of 车库"):
        infer.main(mandarin(infer.Flags, grammar=tmp_path / "grammar"))
    (tmp_path / "words").write_text("车库 ch e k u\n")
    infer.main(mandarin(infer.Flags, grammar=tmp_path / "grammar", lexicon=tmp_path / "words"))


def test_known_words_are_found_in_time(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("".join(f"{name} {text}\n" for name, text in SAID.items()))
    found = align.main(mandarin(align.Flags, recordings=(str(EXAMPLES),), texts=tmp_path / "text"))
    assert {name: " ".join(word for word, *_ in item.spans()) for name, item in found.items()} == SAID
    assert all((tmp_path / "alignments" / f"{name}.png").stat().st_size > 5000 for name in SAID)
    grid = (tmp_path / "alignments" / "weather.TextGrid").read_text()
    assert 'text = "怎么样"' in grid and 'name = "phones"' in grid and "xmax = 2.8" in grid
    shutil.copy(EXAMPLES / "weather.flac", tmp_path)
    with pytest.raises(DataError, match="weather.flac and .*weather.flac have one name"):
        align.main(mandarin(align.Flags, recordings=(str(EXAMPLES), "weather.flac"), texts=tmp_path / "text"))


def test_what_cannot_be_aligned_does_not_lose_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "b.wav", np.zeros(48_000), 16_000)
    for name in ("c", "d"):
        shutil.copy(EXAMPLES / "weather.flac", tmp_path / f"{name}.flac")
    said = SAID["weather"]
    (tmp_path / "text").write_text(f"a {said}\nb {said}\nc {said * 9}\nd {said}\n")
    flags = mandarin(align.Flags, recordings=(str(tmp_path),), texts=tmp_path / "text", output_dir=tmp_path / "found")
    with pytest.raises(DataError, match="no pronunciation of 怎么样明天"):
        align.main(flags)
    (tmp_path / "text").write_text(f"a {said}\nb {said}\nc {f'{said} ' * 9}\nd {said}\n")
    with pytest.raises(
        DataError, match=r"3 of 4 (.*\n)*.*a.wav: cannot be read(.*\n)*.*b.wav: silent(.*\n)*.*c.flac: .*too few"
    ):
        align.main(flags)
    table = (tmp_path / "found" / "words.ctm").read_text().splitlines()
    assert [line.split()[0] for line in table] == ["d"] * 4 and [line.split()[4] for line in table] == said.split()
    assert (tmp_path / "found" / "d.TextGrid").exists() and "d: 明天" in capsys.readouterr().out


def test_one_bad_recording_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "b.wav", np.zeros(16_000), 16_000)
    shutil.copy(EXAMPLES / "weather.flac", tmp_path / "c.flac")
    with pytest.raises(DataError, match=r"a.wav: cannot be read as a recording.*\n.*b.wav: silent"):
        infer.main(mandarin(infer.Flags, recordings=(str(tmp_path),)))
    assert "c.flac: 明天北京天气怎么样" in capsys.readouterr().out
    with pytest.raises(DataError, match="nowhere.wav: no such file"):
        infer.main(mandarin(infer.Flags, recordings=("nowhere.wav",)))
    with pytest.raises(UserError, match="--graphs goes with --vocabulary"):
        infer.main(mandarin(infer.Flags, graphs=tmp_path / "HCLG.fst"))


def test_sound_comes_through_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "infer.py"), "-", "--device", "cpu", "--pretrained_model", "commands"]
    with open(EXAMPLES / "weather.flac", "rb") as sound:
        ended = subprocess.run(command, stdin=sound, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "-: 明天北京天气怎么样" in ended.stdout.splitlines()


def test_a_data_set_is_aligned_anew(tmp_path: Path) -> None:
    """A little one, of the commands: most labels stay, and all belong to their texts."""
    commands, few = open_corpus(None), tiny.commands(tmp_path / "few", 3)
    stayed = realign.main(realign.Flags(data_dir=tmp_path / "few", output_dir=tmp_path / "new"))
    assert 60 < stayed["train"] < 100
    assert commands.lexicon is not None
    for name, pdfs in open_corpus(tmp_path / "new").part("train").alignments.items():
        chain = make_chain(commands.lexicon, few.texts[name].split())
        assert len(pdfs) == len(few.features[name]) and set(pdfs) <= set(chain.pdfs)
    write_corpus(replace(commands, folder=tmp_path / "other", class_num=999), {"train": few, "dev": few, "test": few})
    with pytest.raises(DataError, match="has other classes than the network: .* of SIL .*_zero"):
        realign.main(realign.Flags(data_dir=tmp_path / "few", output_dir=tmp_path / "x", pretrained_model="digits"))
    with pytest.raises(DataError, match="has other classes than the network: 999 "):
        realign.main(realign.Flags(data_dir=tmp_path / "other", output_dir=tmp_path / "x"))


def test_texts_that_are_empty_are_told_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tiny.commands(tmp_path / "few", 3)
    (tmp_path / "few" / "test" / "text").write_text("".join(f"{name}\n" for name in few.texts))
    monkeypatch.delattr(evaluation, "Network")
    with pytest.raises(DataError, match="few/test/text: all texts are empty"):
        evaluation.main(evaluation.Flags(data_dir=tmp_path / "few"))


def test_the_best_scale_is_written_whoever_decodes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = tiny.commands(tmp_path / "few", 3)
    flags = evaluation.Flags(data_dir=tmp_path / "few", sweep=(0.001, 0.2), num_decoders=2, output_dir=tmp_path / "out")
    result = evaluation.main(flags)
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["acoustic_scale"] == written["acoustic_scale"] == 0.2 and result["cer"] == written["cer"] < 20
    assert 60 < result["frame_accuracy"] <= 100 and written["samples"] == len(few.texts)
    small, large = map(float, re.findall(r"acoustic scale \S+: cer (\S+) %", capsys.readouterr().out))
    assert small > large + 20, "each scale is that of other processes, too"
    digits = evaluation.main(evaluation.Flags(data_dir=tmp_path / "few", pretrained_model="digits"))
    assert "frame_accuracy" not in digits and digits["wer"] > 50
    assert "the labels are of other classes" in capsys.readouterr().out
