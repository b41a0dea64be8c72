"""What the scripts do with what they are given: pictures, lists, boxes, tries; other characters; data that cannot be used."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluid import checkpoint
from fluid.errors import DataError, UserError, WeightsError
from fluid.program import initialise
from fluid.weights import read_weights, write_weights
from ocr_recognition import eval as evaluate
from ocr_recognition import infer, train
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.generated import Recipe
from ocr_recognition.network import inference_program
from ocr_recognition.opening import open_recognizer
from ocr_recognition.options import NetworkFlags
from ocr_recognition.pictures import draw_places
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.reader import Labelling, WordSource, open_words
from ocr_recognition.recognizer import Recognizer
from ocr_recognition.sources import SIMPLE, example_words, made_words, notes_on, style_of

import cv2
import numpy as np
import pytest
from PIL import Image

TINY = {"model": "crnn_ctc", "height": 16, "max_width": 64, "batch_size": 4, "test_batch_size": 4}
SIGNS = Path(evaluate.__file__).parent / "data" / "signs"
RUN = {**TINY, "engine": "paddle", "max_steps": 2, "eval_every": 2, "lr": 0.01}


def write_words(folder: Path, texts: list[str], seed: int = 0) -> Path:
    """train.txt and test.txt of noise, with these texts in turn."""
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        lines = []
        for number, text in zip(range(8), itertools.cycle(texts)):
            name = f"{part}_{number}.png"
            Image.fromarray(rng.integers(0, 256, (16, 48), np.uint8)).save(folder / name)
            lines.append(f"{name}\t{text}\n")
        (folder / f"{part}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_words(tmp_path_factory.mktemp("data"), ["ab", "ba", "c"])
    (folder / "abc.txt").write_text("a\nb\nc\n")
    (folder / "xyz.txt").write_text("x\ny\nz\na\n")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a network that reads a, b and c."""
    output = tmp_path_factory.mktemp("run") / "run"
    train.main(train.Flags(data_dir=data, dict=data / "abc.txt", output_dir=output, **RUN))
    return output


def test_other_characters_keep_all_but_the_head(data: Path, run: Path, tmp_path: Path, capsys) -> None:
    folder = write_words(tmp_path, ["xa", "zy"])
    output = tmp_path / "run"
    options = {"pretrained_model": str(run), "dict": data / "xyz.txt", "output_dir": output, "engine": "paddle"}
    train.main(
        train.Flags(data_dir=folder, max_steps=1, eval_every=1, lr=0.0, batch_size=4, test_batch_size=4, **options)
    )
    said = capsys.readouterr().out
    (told,) = [line.split() for line in said.splitlines() if "excluded" in line]
    assert (told[0], told[1], {name.strip(",") for name in told[2:]}) == (
        "excluded",
        "3",
        {"fc_2.w_0", "fc_2.w_1", "fc_2.b_0"},
    )
    before, meta = checkpoint.load(run)
    after, found = checkpoint.load(output)
    # Height and network come with the weights; nothing was learnt at a rate of 0.
    assert found.extra["recognizer"] == {**meta.extra["recognizer"], "alphabet": list("xyza")}
    assert np.array_equal(after["conv2d_3.w_0"], before["conv2d_3.w_0"]) and after["fc_2.w_0"].shape[1] == 5


def test_the_same_characters_keep_everything(run: Path) -> None:
    recognizer = Recognizer.from_facts(checkpoint.load(run)[1].extra["recognizer"])
    weights = read_weights(run)
    fresh = {name: np.zeros_like(array) for name, array in weights.items()}
    state, _ = train.start_from(train.Flags(pretrained_model=str(run)), fresh, recognizer)
    assert "fc_2.w_0" in state and all(np.array_equal(state[name], array) for name, array in weights.items())


def test_weights_to_start_from_keep_their_network_and_take_flags_that_change_none(run: Path) -> None:
    flags = {"pretrained_model": str(run), "max_width": 48, "rotate_tall": True, "longest": 9}
    found = train.describe(train.Flags(**flags), None)
    assert (found.preprocess.height, found.alphabet.characters) == (16, ("a", "b", "c"))
    assert (found.preprocess.max_width, found.preprocess.rotate_tall, found.longest) == (48, True, 9)
    assert train.describe(train.Flags(pretrained_model=str(run)), None).preprocess.max_width == 64
    for other, message in (
        ({"height": 24}, "--height 24: .* has 16"),
        ({"blank": "first"}, "--blank first: .* has last"),
    ):
        with pytest.raises(UserError, match=message):
            train.describe(train.Flags(pretrained_model=str(run), **other), None)


def test_weights_that_fit_in_part_are_accepted_if_so_asked(run: Path, tmp_path: Path) -> None:
    whole = read_weights(run)
    recognizer = Recognizer("crnn_ctc", Alphabet.ascii())
    fresh = initialise(inference_program(recognizer), seed=0)
    part = {name: whole[name] for name in fresh if name.startswith("conv2d_1")}
    write_weights(tmp_path / "part.safetensors", part)
    flags = train.Flags(pretrained_model=str(tmp_path / "part.safetensors"), model="crnn_ctc")
    with pytest.raises(WeightsError, match="--allow_partial"):
        train.start_from(flags, fresh, recognizer)
    flags.allow_partial = True
    state, _ = train.start_from(flags, fresh, recognizer)
    assert all(np.array_equal(state[name], part.get(name, fresh[name])) for name in fresh)


def test_what_is_read_is_recorded(tmp_path: Path) -> None:
    """Of files, lists and boxes; each character lies in the picture."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (60, 200, 3), np.uint8), (0, 0), 2)
    Image.fromarray(scene).save(tmp_path / "scene.png")
    Image.fromarray(scene[:32, :90]).save(tmp_path / "word.png")
    (tmp_path / "list.txt").write_text("90 32 word.png 1,2\nscene.png\n\nword.png\tas written\n")
    (tmp_path / "boxes.txt").write_text("0,0,90,0,90,32,0,32,as cut above\n20,5,120,15,118,50,18,40\n")
    common = {"pretrained_model": "simple", "engine": "paddle", "output_dir": tmp_path / "readings"}
    files = infer.main(infer.Flags(images=(str(tmp_path / "word.png"),), **common))
    listed = infer.main(infer.Flags(image_list=tmp_path / "list.txt", **common))
    boxes = infer.main(infer.Flags(images=(str(tmp_path / "scene.png"),), boxes=tmp_path / "boxes.txt", **common))
    assert [len(files), len(listed), len(boxes)] == [1, 3, 2]
    names = infer.find_files(infer.Flags(images=(str(tmp_path / "word.png"),), image_list=tmp_path / "list.txt"))
    assert names == [str(tmp_path / name) for name in ("word.png", "word.png", "scene.png", "word.png")]
    assert listed[2]["text"] == listed[0]["text"] == files[0]["text"] == boxes[0]["text"]
    written = [json.loads(line) for line in (tmp_path / "readings" / "readings.jsonl").read_text().splitlines()]
    assert written == boxes and (tmp_path / "readings" / "words.png").stat().st_size
    for record in [*files, *listed, *boxes]:
        assert "".join(one["character"] for one in record["characters"]) == record["text"]
        assert 0 <= record["score"] <= 1
        assert all(0 <= one["start"] <= one["end"] <= 200 for one in record["characters"])
    several = (
        {"images": (str(tmp_path / "word.png"), str(tmp_path / "scene.png"))},
        {"image_list": tmp_path / "list.txt"},
    )
    for named, count in zip(several, (2, 3), strict=True):
        with pytest.raises(UserError, match=f"boxes are of one picture, and {count} are given"):
            infer.main(infer.Flags(boxes=tmp_path / "boxes.txt", **named, **common))


def test_the_surest_of_several_tries_counts(tmp_path: Path) -> None:
    ((_, picture),) = itertools.islice(example_words(Recognizer("crnn_small", SIMPLE)), 1)
    picture = np.rot90(picture)
    changed = [np.rot90(picture, turns) for turns in (0, 1, 3)]
    for number, one in enumerate([*changed, *(255 - one for one in changed)]):
        Image.fromarray(np.ascontiguousarray(one)).save(tmp_path / f"{number}.png")
    common = {"pretrained_model": "simple", "engine": "paddle", "output_dir": tmp_path / "readings"}
    names = tuple(str(tmp_path / f"{number}.png") for number in range(6))
    each = infer.main(infer.Flags(images=names, **common))
    (best,) = infer.main(infer.Flags(images=names[:1], try_inverted=True, try_rotated=True, **common))
    sure = [record["score"] * bool(record["text"]) for record in each]
    assert best["score"] == pytest.approx(max(sure), abs=1e-3) and len(set(sure)) > 1 and best["text"]


def test_a_camera_is_read_at_once_until_ctrl_c(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def frames(words: list[str], **_: object) -> Iterator[tuple[str, np.ndarray]]:
        for number in range(3):
            asked.append(len((tmp_path / "readings" / "readings.jsonl").read_text().splitlines()))
            if number == 2:
                raise KeyboardInterrupt
            yield f"{words[0]}#{number}", np.full((16, 48, 3), 40 * number, np.uint8)

    monkeypatch.setattr(infer.media, "pictures", frames)
    flags = infer.Flags(images=("camera:0",), checkpoint=run, output_dir=tmp_path / "readings", engine="paddle")
    records = infer.main(flags)
    assert [record["image"] for record in records] == ["camera:0#0", "camera:0#1"]
    assert asked == [0, 1, 2] and (tmp_path / "readings" / "words.png").is_file()


def test_evaluation_reads_what_infer_reads(data: Path, run: Path, tmp_path: Path) -> None:
    common = {"checkpoint": run, "engine": "paddle"}
    result = evaluate.main(evaluate.Flags(data_dir=data, output_dir=tmp_path / "result", **common))
    records = infer.main(infer.Flags(image_list=data / "test.txt", output_dir=tmp_path / "readings", **common))
    wanted = [line.split("\t")[1] for line in (data / "test.txt").read_text().splitlines()]
    assert result["exact"] == np.mean([record["text"] == text for record, text in zip(records, wanted, strict=True)])
    written = json.loads((tmp_path / "result" / "result.json").read_text())
    assert written["cer"] == result["cer"] and "calibration_error" in written
    assert {path.name for path in (tmp_path / "result").iterdir()} == {"result.json", "reliability.png", "words.png"}


def test_characters_that_are_never_read_are_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_words(tmp_path, ["ab", "bd"])
    result = evaluate.main(evaluate.Flags(test_list=folder / "test.txt", checkpoint=run, engine="paddle"))
    assert "not in the dictionary (drop): 'd' (U+0064) 4 times" in capsys.readouterr().out
    assert result["exact"] <= 0.5


def test_large_pictures_are_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "BYTES_AT_ONCE", 250)
    found = [(str(number), np.zeros((size, 1, 3), np.uint8)) for number, size in enumerate((90, 1, 1, 1, 50, 50, 1))]
    groups = [[int(name) for name, _ in group] for group in infer.groups(iter(found), words=3)]
    assert groups == [[0], [1, 2, 3], [4, 5], [6]]


@pytest.mark.parametrize("shape", [(3000, 4000, 3), (1, 90, 3), (60, 1)])
def test_words_on_the_sheet_are_as_large_as_can_be_seen(shape: tuple[int, ...]) -> None:
    assert draw_places(np.zeros(shape, np.uint8), [(0, 1)], "I").shape == (
        124,
        max(1, round(96 * shape[1] / shape[0])),
        3,
    )


def test_photographed_words_are_read_by_what_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every second one, in batches that waste little: Paddle's executor takes a second for eight."""
    monkeypatch.chdir(tmp_path)
    lines = (SIGNS / "test.txt").read_text().splitlines(keepends=True)
    (tmp_path / "half.txt").write_text("".join(lines[::2]))
    result = evaluate.main(
        evaluate.Flags(test_list=tmp_path / "half.txt", test_images=SIGNS, engine="paddle", test_batch_size=8)
    )
    assert capsys.readouterr().out.startswith("weights: english (comes along")
    # Peers read as many (benchmarks/ocr_peers.py).
    assert result["exact"] >= 0.85


def test_evaluation_without_words_measures_what_train_makes() -> None:
    assert evaluate.made_simple(evaluate.Flags()) and evaluate.made_simple(evaluate.Flags(style="simple"))
    others = ({"data_dir": SIGNS}, {"test_list": SIGNS / "test.txt"}, {"style": "general"})
    assert not any(evaluate.made_simple(evaluate.Flags(**one)) for one in others)


def test_a_network_of_small_letters_is_measured_on_small_letters() -> None:
    opened = open_recognizer(NetworkFlags(pretrained_model="simple"), say=lambda line: None)
    assert style_of(opened.facts) == "simple" and opened.facts.alphabet == SIMPLE


def test_flags_of_another_network_than_that_of_the_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model crnn: simple is a crnn_small"):
        open_recognizer(NetworkFlags(pretrained_model="simple", model="crnn"), say=lambda line: None)
    letters = NetworkFlags(pretrained_model="simple", dict=tmp_path / "letters.txt")
    (tmp_path / "letters.txt").write_text("\n".join(SIMPLE.characters))
    assert open_recognizer(letters, say=lambda line: None).facts.alphabet == SIMPLE
    (tmp_path / "letters.txt").write_text("\n".join(reversed(SIMPLE.characters)))
    with pytest.raises(UserError, match="letters.txt: simple reads other characters; leave the flag out"):
        open_recognizer(letters, say=lambda line: None)


def test_raw_arrays_that_do_not_fit_are_one_message(run: Path, tmp_path: Path) -> None:
    common = {"checkpoint": run, "engine": "paddle", "feed": tmp_path / "in.npz", "fetch": tmp_path / "out.npz"}
    for height, widths, message in (
        (24, [20], r"must be float32 \[any, 1, 16, any\]"),
        (16, [99], "between 1 and the 40 columns"),
        (16, [20, 30], "equally many samples, one at least; found pixel 1, width 2"),
    ):
        np.savez(tmp_path / "in.npz", pixel=np.zeros((1, 1, height, 40), np.float32), width=np.array(widths))
        with pytest.raises((UserError, DataError), match=message):
            infer.main(infer.Flags(**common))


def test_a_data_set_is_looked_through(data: Path, tmp_path: Path, capsys) -> None:
    folder = write_words(tmp_path, ["ab", "bd"])
    assert train.main(train.Flags(data_dir=folder, check_data=True, **TINY)).nothing_left
    (folder / "train_3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^\d+ faults in the words, listed above$"):
        train.main(train.Flags(data_dir=folder, dict=data / "abc.txt", check_data=True, **TINY))
    said = capsys.readouterr().out
    assert "train_3.png" in said and "'d' (U+0064)" in said and "8 words, " in said and "blank" not in said
    with open(folder / "test.txt", "a", encoding="utf-8") as file:
        file.write("test_0.png\tab \n")
    with pytest.raises(DataError, match="1 fault in the words"):
        train.main(train.Flags(data_dir=folder, check_data=True, **TINY))
    assert f"with a blank, which is a character: 1; the first: {folder / 'test.txt'}:9: " in capsys.readouterr().out
    with pytest.raises(UserError, match="give --data_dir"):
        train.main(train.Flags(check_data=True))


@pytest.mark.parametrize("idle", [{"style": "general"}, {"words_file": Path("w.txt")}, {"words_an_epoch": 9}])
def test_flags_of_made_words_beside_a_data_set_are_refused(data: Path, idle: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=f"--{next(iter(idle))} says how words are made, and --data_dir or --train_list"
    ):
        train.main(train.Flags(data_dir=data, **idle))


def test_a_list_to_train_on_wants_one_to_measure_on(data: Path) -> None:
    with pytest.raises(UserError, match="--test_list is missing: both parts are needed, or --data_dir"):
        train.main(train.Flags(train_list=data / "train.txt", **TINY))


def test_words_to_measure_on_that_cannot_be_read_are_told_before_training(tmp_path: Path) -> None:
    folder = write_words(tmp_path, ["ab"])
    (folder / "test_5.png").unlink()
    with pytest.raises(DataError, match=r"test.txt:6: .*test_5.png: no such file"):
        train.main(train.Flags(data_dir=folder, output_dir=tmp_path / "run", **RUN))
    assert not (tmp_path / "run").exists()


def test_the_order_of_letters_that_run_to_the_left_is_told() -> None:
    source = made_words(Recipe(SIMPLE, columns_a_frame=None), 2)
    for model, characters, told in (("crnn", "a\u05d0", True), ("crnn", "a\u0628", True), ("crnn", "ab1", False)):
        notes = notes_on(source, Recognizer(model, Alphabet(tuple(characters))))
        assert any("must have their characters in that order" in note for note in notes) == told
    assert not notes_on(source, Recognizer("attention", Alphabet(("\u05d0",)), longest=99))


def test_texts_with_a_blank_at_an_end_are_told(tmp_path: Path) -> None:
    listed, recognizer = (
        open_words(write_words(tmp_path, ["ab", "ab ", " b", "a"]), "train"),
        Recognizer("crnn", Alphabet.ascii()),
    )
    (note,) = notes_on(WordSource(listed, Preprocess(32), Labelling(recognizer.alphabet), 1), recognizer)
    assert note.startswith("4 texts with a blank at an end") and "train.txt:2: " in note


def test_what_is_dropped_is_counted(data: Path, tmp_path: Path, capsys) -> None:
    folder = write_words(tmp_path, ["ab", "bd", "a" * 20])
    options = {"data_dir": folder, "dict": data / "abc.txt", "output_dir": tmp_path / "run", **RUN}
    with pytest.raises(DataError, match=r"train.txt:2: .*'d'"):
        train.main(train.Flags(**options))
    with pytest.raises(DataError, match=r"train.txt:3: .*frames"):
        train.main(train.Flags(unknown="drop", **options))
    train.main(train.Flags(unknown="drop", skip_unalignable=True, **options))
    said = capsys.readouterr().out
    assert "(drop): 'd' (U+0064) 3 times" in said and "cannot be aligned: 2 words" in said
