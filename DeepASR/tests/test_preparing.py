"""Preparing data: what is wrong is told before anything is computed, and what is written trains."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from DeepASR import corpus
from DeepASR.audio import problem, read_audio
from DeepASR.corpus import open_corpus
from DeepASR.features import Frontend
from DeepASR.kaldi.tables import read_text
from DeepASR.prepare_digits import LEXICON, WORDS
from DeepASR.prepare_digits import Flags as DigitFlags
from DeepASR.prepare_digits import main as prepare_digits
from DeepASR.prepare_wav import Flags, find, main, parts_of, read_tables
from DeepASR.preparing.manifests import read_manifest
from DeepASR.score_error_rate import Flags as ScoreFlags
from DeepASR.score_error_rate import main as score
from fluid.errors import DataError, UserError

import numpy as np
import pytest
import soundfile

RATE = 8000


def tone(seconds: float, height: float = 300, rate: int = RATE) -> np.ndarray:
    """Something that is not silent, in -1 to 1."""
    times = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * height * times) * np.sin(9 * times) ** 2).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six recordings of three speakers, in several forms."""
    speech = tmp_path / "speech"
    (speech / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    text, speakers = "", ""
    for number in range(6):
        rate, suffix, width = (8000, "wav", "PCM_16") if number % 2 else (22050, "flac", "PCM_24")
        samples = tone(1.2, 200 + 50 * number, rate) + rng.normal(size=int(1.2 * rate)) * 0.01
        stereo = np.stack([samples, samples], axis=1) if number > 3 else samples
        where = speech / "more" if number == 2 else speech
        soundfile.write(where / f"utt{number}.{suffix}", stereo, rate, subtype=width)
        text += f"utt{number} {'one two' if number % 2 else 'two one two'}\n"
        speakers += f"utt{number} speaker{number // 2}\n"
    (speech / "text").write_text(text)
    (speech / "utt2spk").write_text(speakers)
    (tmp_path / "lexicon.txt").write_text("one w ah n\ntwo t uw\n")
    return tmp_path


def flags(folder: Path, **more: Any) -> Flags:
    options = {"recordings": folder / "speech", "lexicon": folder / "lexicon.txt", "output_dir": folder / "data"}
    return Flags(**{**options, "sample_rate": RATE, "num_bins": 12, **more})


def test_recordings_become_a_data_set(folder: Path) -> None:
    main(flags(folder))
    corpus = open_corpus(folder / "data")
    assert (corpus.frame_dim, corpus.class_num, corpus.frontend) == (12, 18, Frontend(RATE, 12))
    parts = {name: corpus.part(name) for name in ("train", "dev", "test")}
    speakers = [set(part.speakers.values()) for part in parts.values()]
    assert sorted(speaker for group in speakers for speaker in group) == ["speaker0", "speaker1", "speaker2"]
    for name, part in parts.items():
        for utterance, features in part.items():
            assert features.shape == (part.lengths[utterance], 12) and len(features) == 118
            assert (utterance in part.alignments) == (name != "test")
    assert corpus.language_model is not None and "\\3-grams:" in corpus.language_model
    with pytest.raises(UserError, match="exists already"):
        main(flags(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda speech: (speech / "utt3.wav").unlink(), "lacks 1 recording of text:\n  utt3"),
        (lambda speech: (speech / "utt3.wav").write_bytes(b"RIFFnonsense"), "utt3.wav: cannot be read as a recording"),
        (lambda speech: soundfile.write(speech / "utt3.wav", np.zeros(RATE), RATE), "  utt3: silent"),
        (lambda speech: soundfile.write(speech / "utt3.wav", np.sign(tone(1)), RATE), "  utt3: clipped: "),
        (lambda speech: soundfile.write(speech / "utt3.wav", tone(0.12), RATE), "  utt3: 10 frames, too few"),
        (lambda speech: soundfile.write(speech / "utt3.wav", tone(0.05), RATE), "  utt3: 0.05 s are too short"),
        (lambda speech: add(speech / "text", "utt3 three two four three\n", 3), "of 2 words:\n  three .*\n  four"),
        (lambda speech: add(speech / "text", "utt3\n", 3), "  utt3: its text is empty"),
        (lambda speech: add(speech / "utt2spk", "utt3 speaker1 \nutt3 x\n", 3), "utt2spk:5: 'utt3' is listed before"),
        (
            lambda speech: shutil.copy(speech / "utt3.wav", speech / "more"),
            "utt3 is both .*more/utt3.wav and .*utt3.wav",
        ),
        (lambda speech: (speech / "wav.scp").write_text("utt3 sox x.wav |\n"), "commands of data files are never run"),
        (
            lambda speech: (speech / "utt2spk").write_text("".join(f"utt{n} me\n" for n in range(6))),
            "1 speaker cannot",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_name(folder: Path, change: Any, message: str) -> None:
    change(folder / "speech")
    with pytest.raises(DataError, match=message):
        main(flags(folder))
    assert not (folder / "data").exists()


def manifest(folder: Path, **changes: Any) -> Path:
    """A manifest of the recordings in a folder, other things said of utt3."""
    speech, lines = folder / "speech", []
    texts, speakers = read_text(speech / "text"), read_text(speech / "utt2spk")
    for name, file in find(speech, texts).items():
        of_peers = (
            {"utt": f"call {name}", "feat": str(file)} if name == "utt1" else {"audio_filepath": f"speech/{file.name}"}
        )
        of_peers |= {"audio_filepath": "speech/more/utt2.flac"} if name == "utt2" else {}
        entry = {**of_peers, "text": texts[name], "speaker": speakers[name], "duration": 1.2}
        lines.append(json.dumps(entry | (changes if name == "utt3" else {})))
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "all.jsonl"


def test_a_manifest_says_the_same(folder: Path) -> None:
    tables = read_tables(manifest(folder))
    texts, places, speakers = read_tables(folder / "speech")
    own = {name: "call_utt1" if name == "utt1" else name for name in texts}
    assert tables[0] == {own[name]: text for name, text in texts.items()}
    assert tables[2] == {own[name]: speaker for name, speaker in speakers.items()}
    assert {name: place.path.resolve() for name, place in tables[1].items()} == {
        own[name]: places[name].path for name in texts
    }
    for part in ("train", "dev", "test"):
        shutil.copy(folder / "all.jsonl", folder / f"{part}.jsonl")
    parts = parts_of(flags(folder, recordings=folder))
    assert {recording.name: recording.words for recording in parts["dev"]} == {
        own[name]: tuple(text.split()) for name, text in texts.items()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None}, r"all.jsonl:\d: text is no text"),
        ({"audio_filepath": ""}, r"all.jsonl:\d: audio_filepath is no text"),
        ({"audio_filepath": "gone.wav"}, "lacks 1 recording of text:\n  gone"),
        ({"utt": "call utt1"}, r"all.jsonl:\d: 'call_utt1' is listed before"),
        ({"offset": "0.2"}, r"all.jsonl:\d: offset and duration are no seconds: 0.2, 1.2"),
        ({"offset": 10**400}, r"all.jsonl:\d: offset and duration are no seconds: 1000"),
        ({"duration": -1}, r"all.jsonl:\d: offset and duration are no seconds: None, -1"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_told(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tables(manifest(folder, **changes))


@pytest.mark.parametrize("form", ["Kaldi", "NeMo"])
def test_utterances_are_stretches_of_long_recordings(folder: Path, form: str) -> None:
    speech = folder / "speech"
    samples = np.random.default_rng(0).normal(size=6 * RATE) * 0.1
    soundfile.write(speech / "long.wav", samples, RATE)
    stretches = {"call_a": (0.5, 1.75), "call_b": (2.0, 3.25), "call_c": (4.5, 6.0)}
    if form == "Kaldi":
        (speech / "text").write_text("".join(f"{name} one two\n" for name in stretches))
        ends = {"call_c": -1}
        lines = [f"{name} long {start} {ends.get(name, end)}\n" for name, (start, end) in stretches.items()]
        (speech / "segments").write_text("".join(lines))
        where = speech
    else:
        entries = [
            {
                "audio_filepath": "speech/long.wav",
                "text": "one two",
                "offset": start,
                "duration": end - start,
                "utt": name,
            }
            for name, (start, end) in stretches.items()
        ]
        where = folder / "all.jsonl"
        where.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    found = [recording for part in parts_of(flags(folder, recordings=where)).values() for recording in part]
    assert {recording.name for recording in found} == set(stretches)
    whole = read_audio(speech / "long.wav", RATE)
    for recording in found:
        start, end = (round(seconds * RATE) for seconds in stretches[recording.name])
        np.testing.assert_array_equal(recording.samples, whole[start:end])


def test_a_stretch_without_a_name_is_called_by_its_time(tmp_path: Path) -> None:
    entries = [{"audio_filepath": "a.wav", "text": "one", "offset": start, "duration": 1.5} for start in (0, 2)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, entries)))
    assert [*read_manifest(tmp_path / "m.jsonl")[0]] == ["a", "a_2_3.5"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("utt3 utt3 0 9", "utt3: .*utt3.wav: 0 to 9 s are asked for of a recording of 1.20 s"),
        ("utt3 utt3 1.5 1.6", "utt3: .*utt3.wav: 1.5 to 1.6 s are asked for of a recording of 1.20 s"),
        ("utt3 utt3 1 0.5", "segments: 'utt3 utt3 1 0.5' is not 'UTTERANCE RECORDING START END'"),
        ("utt3 utt3 0", "segments: 'utt3 utt3 0' is not 'UTTERANCE RECORDING START END'"),
        ("other utt3 0 1", "segments: lacks 1 utterance of text:\n  utt3"),
        ("utt3 gone 0 1", "lacks 1 recording of text:\n  gone"),
    ],
)
def test_stretches_that_are_none_are_told(folder: Path, line: str, message: str) -> None:
    lines = [f"utt{number} utt{number} 0 1.1\n" for number in range(6) if number != 3]
    (folder / "speech" / "segments").write_text("".join([*lines, f"{line}\n"]))
    with pytest.raises(DataError, match=message):
        main(flags(folder))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "m.jsonl:2: not JSON"),
        ("[1]", "m.jsonl:2: is no object"),
        ('{"text": "one"}', "m.jsonl:2: lacks audio_filepath or feat"),
        ('{"feat": "a.wav"}', "m.jsonl:2: lacks text"),
    ],
)
def test_lines_that_are_no_recordings_are_told(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "m.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path / "m.jsonl")


def add(path: Path, line: str, place: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:place], line, *lines[place + 1 :]]))


def test_what_is_wrong_is_left_out_if_that_is_asked_for(folder: Path, capsys: pytest.CaptureFixture) -> None:
    soundfile.write(folder / "speech" / "utt3.wav", np.zeros(RATE), RATE)
    (folder / "speech" / "utt4.flac").write_bytes(b"nonsense")
    main(flags(folder, leave_out=True))
    told = capsys.readouterr().out
    assert "  utt3: silent" in told and "utt4.flac: cannot be read as a recording" in told
    corpus = open_corpus(folder / "data")
    assert sum(len(corpus.part(name)) for name in ("train", "dev", "test")) == 4


def test_a_data_set_is_written_completely_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(lexicon: Any) -> str:
        raise KeyboardInterrupt

    before = set(folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "lexicon_lines", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(flags(folder))
    assert set(folder.iterdir()) == before
    main(flags(folder))
    assert open_corpus(folder / "data").lexicon is not None


def test_a_recording_is_the_same_whatever_its_form(tmp_path: Path) -> None:
    samples = tone(0.5, rate=48_000)
    soundfile.write(tmp_path / "a.wav", samples, 48_000, subtype="PCM_16")
    soundfile.write(tmp_path / "b.flac", np.stack([samples, samples], axis=1), 48_000, subtype="PCM_24")
    first, second = (read_audio(tmp_path / name, RATE) for name in ("a.wav", "b.flac"))
    assert len(first) == RATE // 2 and problem(first, RATE) is None
    np.testing.assert_allclose(first, second, atol=2)
    np.testing.assert_allclose(first[50:-50], tone(0.5)[50:-50] * 32768, atol=150)


def test_a_recording_that_is_cut_off_is_told(tmp_path: Path) -> None:
    for name, subtype in (("a.wav", "PCM_16"), ("b.wav", "PCM_24"), ("c.flac", "PCM_16")):
        soundfile.write(tmp_path / name, tone(2), RATE, subtype=subtype)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=f"{name}: (is cut off: .* bytes of samples are there of|cannot be read)"):
            read_audio(tmp_path / name, RATE)
    # A recorder that did not know when it would end; one that counted its header.
    soundfile.write(tmp_path / "d.wav", tone(2), RATE, subtype="PCM_16")
    whole = (tmp_path / "d.wav").read_bytes()
    place = whole.index(b"data") + 4
    for declared in (2**32 - 1, 2**31 - 1, 4 * RATE + 44):
        (tmp_path / "d.wav").write_bytes(whole[:place] + declared.to_bytes(4, "little") + whole[place + 4 :])
        assert len(read_audio(tmp_path / "d.wav", RATE)) == 2 * RATE


def test_features_of_a_stream_are_those_of_the_whole() -> None:
    frontend = Frontend(RATE, 12)
    samples = np.random.default_rng().normal(size=RATE) * 3000
    stream, pieces = frontend.open(), []
    for start in range(0, RATE, 777):
        stream.accept(samples[start : start + 777])
        pieces.append(stream.frames())
    pieces.append(stream.frames(last=True))
    np.testing.assert_array_equal(np.concatenate(pieces), frontend.features(samples))


def test_digit_strings_use_every_recording_once(tmp_path: Path) -> None:
    takes, voices = tmp_path / "takes", tmp_path / "voices"
    for folder in (takes, voices):
        folder.mkdir()
    for digit in range(10):
        for take in (0, 10, 11):
            soundfile.write(takes / f"{digit}_anna_{take}.wav", tone(0.4, 200 + 40 * digit), RATE)
        soundfile.write(voices / f"{digit}_robot_0.wav", tone(0.4, 300 + 40 * digit), RATE)
    prepare_digits(DigitFlags(takes, tmp_path / "digits", synthetic=0, times=2, voices=voices))
    corpus = open_corpus(tmp_path / "digits")
    assert corpus.lexicon == LEXICON and corpus.unit == "wer"
    words: Counter[tuple[str, str, str]] = Counter()
    for name in ("train", "dev", "test"):
        part = corpus.part(name)
        words.update((name, part.speakers[key], word) for key, text in part.texts.items() for word in text.split())
    for word in WORDS:
        assert [words[name, "anna", word] for name in ("train", "dev", "test")] == [2, 1, 1], "takes 11, 10 and 0"
        assert (words["train", "robot", word], words["dev", "robot", word], words["test", "robot", word]) == (1, 0, 0)


def test_scoring_prints_the_line_of_2018_and_counts_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "ref").write_text("a one two\nb three\nc four <SPOKEN_NOISE>\n")
    (tmp_path / "hyp").write_text("a one too\nc four\nd five\n")
    rates = score(ScoreFlags(tmp_path / "ref", tmp_path / "hyp", "wer"))
    assert (rates.total.errors, rates.total.length) == (2, 4)
    said = capsys.readouterr().out
    assert "Error rate[wer] = 0.500000 (2/4), total 3 sentences in hyp, 1 not presented in ref." in said
    assert "not in hyp, which counts as deletions: 1 sentence of ref" in said
