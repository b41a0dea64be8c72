"""The scripts end to end: training, resuming, evaluating, translating and exporting agree; bad input is refused."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

from fluid import checkpoint, weights
from fluid.arrays import read_npz
from fluid.errors import DataError, UserError
from fluid.export import ExportedModel
from fluid.tests.devices import with_devices
from fluid.tests.extras import need_onnx
from fluid.trainer import Outcome
from neural_machine_translation import eval as evaluate
from neural_machine_translation import export, infer, pictures, scoring, train
from neural_machine_translation.options import with_pairs

import numpy as np
import pytest
from golden_values import GOLDEN_FEED, golden_state

ROOT = Path(__file__).resolve().parents[2]
FAST = {
    "n_layer": 1,
    "d_model": 16,
    "d_inner_hid": 32,
    "n_head": 2,
    "batch_size": 256,
    "engine": "paddle",
    "digit_copy": True,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Outcome]:
    """A short run: the weights are poor, which is all the same to these tests."""
    folder = tmp_path_factory.mktemp("run") / "output"
    flags = train.Flags(
        max_steps=12, save_every=4, eval_every=12, output_dir=folder, seed=3, beam_size=3, dropout=0.2, **FAST
    )
    return folder, train.main(flags)


def digits_file(folder: Path) -> Path:
    """The dev pairs of the run as a file."""
    pairs = train.digit_pairs(200, 4)
    path = folder / "dev.tsv"
    path.write_text("".join(f"{left}\t{right}\n" for left, right in zip(pairs.sources, pairs.targets, strict=True)))
    return path


def test_a_run_leaves_its_records(trained):
    folder, outcome = trained
    assert outcome.step == 12
    for name in ("curves.png", "attention_1.png", "log.jsonl", "config.json", "best/state.safetensors"):
        assert (folder / name).is_file(), name
    _, meta = checkpoint.load(folder / "best", task="neural_machine_translation")
    assert meta.extra["translator"]["corpora"] == [train.fingerprint_of(train.digit_pairs(4000, 3))]


def test_evaluation_agrees_with_training(trained, tmp_path):
    folder, outcome = trained
    flags = evaluate.Flags(
        checkpoint=folder, test_file_pattern=str(digits_file(tmp_path)), beam_size=3, engine="paddle"
    )
    flags.output_file = tmp_path / "new" / "translations.txt"
    result = evaluate.main(flags)
    assert result.bleu == pytest.approx(outcome.metrics["bleu"], abs=1e-9)
    assert result.chrf == pytest.approx(outcome.metrics["chrf"], abs=1e-9)
    assert "tok:13a" in result.bleu_signature
    assert len(flags.output_file.read_text().splitlines()) == 200


def test_inference_agrees_with_the_exported_model(trained, tmp_path, capsys):
    folder, _ = trained
    lines = tmp_path / "lines.txt"
    lines.write_text("1 2 3\n\n9 8 7 6 5\n4\n")
    common = {"beam_size": 3, "n_best": 2, "test_batch_size": 2}
    flags = infer.Flags(inputs=(str(lines),), checkpoint=folder, engine="paddle", **common)
    direct = [line.hypotheses for line in infer.translated(flags)]
    assert [len(some) for some in direct] == [2, 1, 2, 2]
    export.main(export.Flags(checkpoint=folder, export_dir=tmp_path / "exported", beam_size=3))
    flags = infer.Flags(
        inputs=(str(lines),), exported_model=tmp_path / "exported", output_file=tmp_path / "out.jsonl", **common
    )
    assert infer.main(flags) == 4
    exported = [line.hypotheses for line in infer.translated(flags)]
    for one, other in zip(direct, exported, strict=True):
        assert [item.text for item in one] == [item.text for item in other]
        assert [item.score for item in one] == pytest.approx([item.score for item in other], rel=1e-4)
    with pytest.raises(UserError, match=r"exported was built with --beam_size 3, not 4: export it again"):
        next(infer.translated(dataclasses.replace(flags, beam_size=4)))
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["place"] for record in records] == [f"{lines}:{number}" for number in (1, 2, 3, 4)]
    capsys.readouterr()


def test_several_devices_translate_like_one(capsys):
    """Each of four searches for its own sentences."""
    sentences = ["The children are playing in the garden.", "Where is the train station?", "Open the window!"]
    command = [sys.executable, str(ROOT / "neural_machine_translation" / "infer.py"), "--engine", "xla", *sentences]
    done = subprocess.run(command, capture_output=True, text=True, env=with_devices(4), check=False)
    assert done.returncode == 0, done.stderr
    infer.main(infer.Flags(inputs=tuple(sentences), engine="xla", device="cpu"))
    assert done.stdout == capsys.readouterr().out


def test_attention_is_drawn_for_every_translation(tmp_path, monkeypatch):
    """The maps of the shipped model: a row for each word written, whose weights sum to 1, looking at the right noun."""
    seen, draw = [], pictures.draw_attention

    def record(path, attention, source, target):
        seen.append((attention, source, target))
        return draw(path, attention, source, target)

    monkeypatch.setattr(scoring.pictures, "draw_attention", record)
    sentences = ("The children are playing in the garden.", "Open the window!")
    infer.main(infer.Flags(inputs=sentences, attention_dir=tmp_path, device="cpu"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attention_1.png", "attention_2.png"]
    for attention, source, target in seen:
        assert attention.shape == (len(target), len(source))
        assert np.allclose(attention.sum(1), 1, atol=1e-5)
    attention, source, target = seen[0]
    garden = next(place for place, word in enumerate(source) if "garden" in word)
    assert np.argmax(attention[:, garden]) == next(place for place, word in enumerate(target) if "Garten" in word)


def test_interactive_mode_answers_each_line(trained, monkeypatch, capsys):
    folder, _ = trained
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1 2 3\n4 5\n\xff\n")))
    with pytest.raises(DataError, match="standard input:3: is not UTF-8 text"):
        infer.main(infer.Flags(interactive=True, checkpoint=folder, engine="paddle", beam_size=3))
    answers = capsys.readouterr().out.splitlines()
    infer.main(infer.Flags(inputs=("1 2 3", "4 5"), checkpoint=folder, engine="paddle", beam_size=3))
    assert answers == capsys.readouterr().out.splitlines()
    capsys.readouterr()


def test_sampling_gives_what_was_asked_for(trained, capsys):
    folder, _ = trained
    flags = infer.Flags(inputs=("1 2 3",), checkpoint=folder, engine="paddle", sampling=True, n_best=3, max_out_len=6)
    found = next(infer.translated(flags)).hypotheses
    assert len(found) == 3 and found == sorted(found, key=lambda item: -item.score)
    assert next(infer.translated(flags)).hypotheses == found, "the same seed draws the same"
    capsys.readouterr()


def test_moving_averages_are_measured_and_used(tmp_path):
    """train.py's evaluation is eval.py's, both of the averages: after one update at this rate the weights are far off."""
    flags = {
        "seed": 3,
        "use_ema": True,
        "ema_decay": 0.999,
        "lr": 50.0,
        "warmup_steps": 1,
        "beam_size": 2,
        "max_out_len": 12,
    }
    outcome = train.main(train.Flags(max_steps=1, eval_every=1, output_dir=tmp_path / "run", **flags, **FAST))
    result = evaluate.main(
        evaluate.Flags(
            checkpoint=tmp_path / "run",
            test_file_pattern=str(digits_file(tmp_path)),
            beam_size=2,
            max_out_len=12,
            engine="paddle",
        )
    )
    assert result.chrf == pytest.approx(outcome.metrics["chrf"], abs=1e-9)
    state = checkpoint.load(tmp_path / "run")[0]
    opened = weights.read_weights(tmp_path / "run")
    assert np.array_equal(opened["fc_0.w_0"], state["fc_0.w_0_ema"])
    assert not np.allclose(opened["fc_0.w_0"], state["fc_0.w_0"])
    assert outcome.metrics["loss"] < 3.5, "about the logarithm of 13 words, as before the update"


def test_gradient_accumulation_runs(tmp_path):
    flags = train.Flags(
        max_steps=2,
        accumulate_batches=3,
        grad_clip=1.0,
        beam_size=1,
        max_out_len=4,
        output_dir=tmp_path / "run",
        **FAST,
    )
    assert train.main(flags).step == 2


def test_feed_and_fetch_give_the_golden_logits(tmp_path, capsys):
    weights.write_weights(tmp_path / "model", golden_state())
    np.savez(tmp_path / "in.npz", **GOLDEN_FEED)
    model = {"pretrained_model": str(tmp_path / "model"), "n_head": 2}
    flags = {**model, "engine": "paddle"}
    infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / "out.npz", **flags))
    golden = read_npz(Path(__file__).parent / "golden" / "transformer_00f3_small.npz")["out2"]
    logits = read_npz(tmp_path / "out.npz")["logits"]
    assert logits.shape == (2, 4, 40)
    assert np.abs(logits.reshape(8, 40) - golden).max() <= 1e-5 * np.abs(golden).max()
    export.main(export.Flags(export_dir=tmp_path / "scoring", what="scoring", **model))
    infer.main(
        infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / "exported.npz", exported_model=tmp_path / "scoring")
    )
    assert np.abs(read_npz(tmp_path / "exported.npz")["logits"] - logits).max() <= 1e-4 * np.abs(logits).max()
    for wrong in (99, -1):
        np.savez(tmp_path / "wrong.npz", src_word=np.array([[0, wrong, 3]]), trg_word=np.array([[0]]))
        with pytest.raises(UserError, match=f"--feed: src_word holds {wrong}; the vocabulary has the words 0 to 39"):
            infer.main(infer.Flags(feed=tmp_path / "wrong.npz", fetch=tmp_path / "out.npz", **flags))
    np.savez(tmp_path / "wrong.npz", src_word=np.array([[0, 2]]))
    with pytest.raises(UserError, match="wrong.npz: .*missing: trg_word"):
        infer.main(infer.Flags(feed=tmp_path / "wrong.npz", fetch=tmp_path / "out.npz", **flags))
    with pytest.raises(UserError, match="give the vocabulary of these weights"):
        infer.main(infer.Flags(inputs=("some words",), **flags))
    search = {"beam_size": 2, "max_out_len": 4}
    export.main(export.Flags(export_dir=tmp_path / "search", **search, **model))
    with pytest.raises(UserError, match="search has no vocabulary; export it again with --src_vocab_fpath"):
        infer.main(infer.Flags(inputs=("some words",), exported_model=tmp_path / "search", **search))
    capsys.readouterr()


def test_search_and_scoring_agree_in_onnx_runtime(trained, tmp_path):
    need_onnx()
    import onnxruntime

    folder, _ = trained
    export.main(export.Flags(checkpoint=folder, export_dir=tmp_path / "search", onnx=True))
    session = onnxruntime.InferenceSession(tmp_path / "search" / "model.onnx")
    names, model = [item.name for item in session.get_outputs()], ExportedModel(tmp_path / "search")
    for rows, source in ((2, 5), (4, 9)):
        words = np.random.default_rng(rows).integers(3, 13, (rows, source))
        found = dict(zip(names, session.run(None, {"src_word": words}), strict=True))
        expected = model.run({"src_word": words})
        assert np.array_equal(found["ids"], expected["ids"])
        np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-4)
    export.main(export.Flags(checkpoint=folder, export_dir=tmp_path / "scoring", what="scoring", onnx=True))
    session = onnxruntime.InferenceSession(tmp_path / "scoring" / "model.onnx")
    rng = np.random.default_rng(0)
    for rows, source, target in ((2, 7, 5), (3, 12, 20)):
        feed = {"src_word": rng.integers(3, 13, (rows, source)), "trg_word": rng.integers(3, 13, (rows, target))}
        np.savez(tmp_path / "in.npz", **feed)
        infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / "out.npz", checkpoint=folder))
        logits = read_npz(tmp_path / "out.npz")["logits"]
        assert np.abs(session.run(None, feed)[0] - logits).max() <= 1e-4 * np.abs(logits).max()


def test_flags_of_2018():
    words = [
        "--device",
        "GPU",
        "--train_file_pattern",
        "a*.tsv",
        "n_head",
        "16",
        "d_model",
        "1024",
        "weight_sharing",
        "True",
    ]
    assert with_pairs(words) == [
        "--device", "gpu", "--train_file_pattern", "a*.tsv", "--n_head", "16", "--d_model", "1024", "--weight_sharing", "True",
    ]  # fmt: skip
    assert with_pairs(["--languages", "en", "de"]) == ["--languages", "en", "de"]


def test_the_embedded_sentences_have_a_recipe():
    flags = train.Flags(lr=0.1)
    learned = train.with_recipe(flags)
    assert dataclasses.asdict(learned) == {**dataclasses.asdict(flags), **train.EMBEDDED_RECIPE, "lr": 0.1}
    others = ({"digit_copy": True}, {"data_dir": Path("x")}, {"pretrained_model": "x"}, {"checkpoint": Path("x")})
    for other in (train.Flags(**named) for named in others):
        assert train.with_recipe(other) is other


def test_it_is_told_where_other_pairs_are_measured_than_learned(tmp_path, capsys):
    (tmp_path / "own.tsv").write_text("one\tun\n")
    own = str(tmp_path / "own.tsv")
    assert [len(part) for part in train.read_data(train.Flags(train_file_pattern=own))] == [1, 231]
    assert "the dev pairs are the embedded English and German ones" in capsys.readouterr().out
    assert [len(part) for part in train.read_data(train.Flags(train_file_pattern=own, val_file_pattern=own))] == [1, 1]
    assert not capsys.readouterr().out


def test_a_full_disk_is_told_with_the_picture(tmp_path):
    (tmp_path / "attention_1.png").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"attention_1.png: cannot be written \(No space left"):
        pictures.draw_attention(tmp_path / "attention_1.png", np.eye(2), ["a", "b"], ["c", "d"])


@pytest.mark.parametrize("content", ["", "\t\n \t \n"])
def test_pairs_without_a_word_are_told_as_that(tmp_path, content):
    (tmp_path / "train.tsv").write_text(content)
    (tmp_path / "dev.tsv").write_text("a\tb\n")
    with pytest.raises(DataError, match="train.tsv: no sentence to learn from"):
        train.main(train.Flags(data_dir=tmp_path, output_dir=tmp_path / "run"))


def test_wrong_values_are_refused(tmp_path):
    with pytest.raises(UserError, match="--n_best 7 must be between 1 and --beam_size 5"):
        infer.main(infer.Flags(inputs=("a b",), n_best=7))
    with pytest.raises(UserError, match="d_model 15 is odd"):
        train.main(train.Flags(output_dir=tmp_path / "run", **{**FAST, "d_model": 15, "n_head": 1}))
    with pytest.raises(UserError, match="--digit_copy makes its own strings of digits; leave out --data_dir"):
        train.read_data(train.Flags(digit_copy=True, data_dir=tmp_path))
    with pytest.raises(UserError, match="--feed and --fetch go together"):
        infer.main(infer.Flags(feed=tmp_path / "in.npz"))
    for other in ({"inputs": ("a b",)}, {"test_file_pattern": "a.tsv"}):
        with pytest.raises(UserError, match="--interactive translates standard input; leave out the sentences"):
            infer.main(infer.Flags(interactive=True, **other))
