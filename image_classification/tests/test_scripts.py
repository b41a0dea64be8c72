"""train.py, eval.py, infer.py and export.py together: they agree on the same images, resume exactly, and refuse bad input."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

from fluid import checkpoint
from fluid.errors import CheckpointError, DataError, UserError, WeightsError
from fluid.media import read_image
from fluid.run import events
from fluid.tests.extras import need_onnx
from fluid.weights import write_weights
from image_classification import eval as evaluation
from image_classification import export, infer, train
from image_classification.building import statistics_batch
from image_classification.classifier import NetworkFlags
from image_classification.opening import open_classifier
from image_classification.reader import class_names, embedded_dataset, evaluation_image, normalise

import cv2
import numpy as np
import pytest

TRAIN, TEST = 60, 23
FOLDER = Path(train.__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A few of the embedded images, in a folder with a space and Chinese in its name."""
    folder = tmp_path_factory.mktemp("data") / "图片 set"
    (folder / "images").mkdir(parents=True)
    for split, count in (("train", TRAIN), ("val", TEST)):
        lines = (embedded_dataset() / f"{split}_list.txt").read_text().splitlines()
        kept = []
        for number, line in enumerate(lines[:: len(lines) // count][:count]):
            path, label = line.rsplit(" ", 1)
            name = f"images/{split} {number}.png"
            shutil.copy(embedded_dataset() / path, folder / name)
            kept.append(f"{name} {label}\n")
        (folder / f"{split}_list.txt").write_text("".join(kept), encoding="utf-8")
    (folder / "class_names.txt").write_text("\n".join(class_names(None)) + "\n", encoding="utf-8")
    return folder


def flags(data: Path, output: Path, **more) -> train.Flags:
    return train.Flags(data_dir=data, output_dir=output, batch_size=16, num_epochs=2, log_every=1, **more)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "run"
    train.main(flags(data, output, seed=3))
    return output


def same_bits(one: Path, other: Path) -> bool:
    left, right = checkpoint.load(one)[0], checkpoint.load(other)[0]
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


def test_a_run_leaves_records_and_pictures(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"config.json", "environment.json", "train.log", "log.jsonl", "best", "curves.png", "confusion.png"} <= names
    row = events(trained, "train")[-1]
    assert {"loss", "acc1", "acc5", "lr", "samples_per_second", "data_wait", "memory_mb"} <= row.keys()
    assert json.loads((trained / "config.json").read_text())["model"] == "SmallNet"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            **{"use_mixup": True, "use_cutmix": True, "label_smoothing": 0.1, "use_ema": True, "ema_decay": 0.9},
            **{"class_weights": "balanced", "balanced_sampling": True, "randaugment": 2, "random_erasing": 0.5},
        },
        {"accumulate_batches": 2},
        {"statistics_batch": 8, "engine": "xla"},
    ],
    ids=["plain", "mixtures, balance, average", "accumulated", "statistics of half a batch"],
)
def test_resume_inside_an_epoch_is_exact(tmp_path, data, more):
    more = {**more, "seed": 9, "eval_every": 100, "rotate": True, "color_jitter": True}
    train.main(flags(data, tmp_path / "straight", **more))
    train.main(flags(data, tmp_path / "parts", max_steps=1, **more))
    train.main(flags(data, tmp_path / "parts", checkpoint=tmp_path / "parts", max_steps=1000, num_workers=2, **more))
    assert same_bits(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.parametrize(
    ("given", "group"),
    [
        ({"batch_size": 64}, None),
        ({"batch_size": 256}, None),
        ({"batch_size": 384}, None),
        ({"batch_size": 1024}, 256),
        ({"batch_size": 1024, "engine": "paddle"}, None),
        ({"batch_size": 1024, "statistics_batch": 128}, 128),
        ({"batch_size": 1024, "statistics_batch": 1024}, None),
    ],
)
def test_images_that_share_batch_statistics(given, group):
    """As many as one GPU has where large batches are trained, on any number of GPUs."""
    assert statistics_batch(train.Flags(**given)) == group


def test_evaluation_agrees_everywhere(trained, data, tmp_path):
    """The training run's evaluation, eval.py at any batch size, infer.py and the exported model."""
    last = events(trained, "eval")[-1]
    step = checkpoint.load(trained)[1].step
    assert last["step"] == step
    for batch_size in (1, 7, 100):
        result = evaluation.main(
            evaluation.Flags(data_dir=data, checkpoint=trained, newest=True, test_batch_size=batch_size)
        )
        assert result["acc1"] == last["acc1"] and result["acc5"] == last["acc5"]
        assert result["loss"] == pytest.approx(last["loss"], rel=1e-6)

    exported = export.main(export.Flags(checkpoint=trained, newest=True, export_dir=tmp_path / "exported"))
    result = evaluation.main(evaluation.Flags(data_dir=data, exported_model=exported, test_batch_size=7))
    assert result["acc1"] == last["acc1"] and result["acc5"] == last["acc5"]
    assert result["loss"] == pytest.approx(last["loss"], rel=1e-5)

    common = {"image_list": data / "val_list.txt", "top_k": 10, "test_batch_size": 4}
    one = infer.main(infer.Flags(checkpoint=trained, newest=True, output_dir=tmp_path / "one", **common))
    other = infer.main(infer.Flags(exported_model=exported, output_dir=tmp_path / "other", **common))
    assert np.mean([record["correct"] for record in one]) == last["acc1"]
    for left, right in zip(one, other, strict=True):
        assert [entry["class"] for entry in left["predictions"]] == [entry["class"] for entry in right["predictions"]]
        np.testing.assert_allclose(
            [entry["score"] for entry in left["predictions"]],
            [entry["score"] for entry in right["predictions"]],
            atol=2e-6,
        )


def test_names_of_pictures_that_are_no_utf8_are_written_as_they_are(tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    record = {"image": name, "predictions": [{"class": 0, "name": "cat", "score": 0.5}]}
    infer.write_results(tmp_path, [record], [np.zeros((8, 8, 3), np.uint8)])
    assert b"\n\xff.jpg,1,0,cat,0.5" in (tmp_path / "predictions.csv").read_bytes().replace(b"\r", b"")


def test_infer_writes_its_results(trained, data, tmp_path):
    records = infer.main(infer.Flags(images=(str(data),), checkpoint=trained, top_k=3, output_dir=tmp_path))
    assert len(records) == TRAIN + TEST
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == records
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3 * len(records)
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_infer_takes_globs_and_names_on_standard_input(trained, data, tmp_path):
    assert (
        len(
            infer.main(
                infer.Flags(images=(str(data / "images" / "val 1*.png"),), checkpoint=trained, output_dir=tmp_path)
            )
        )
        == 11
    )
    command = [
        sys.executable,
        str(FOLDER / "infer.py"),
        "-",
        "--checkpoint",
        str(trained),
        "--output_dir",
        str(tmp_path),
    ]
    names = f"{data}/images/val 1.png\n\n{data}/images/train 2.png\n"
    result = subprocess.run(command, input=names, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "val 1.png: " in result.stdout and "train 2.png: " in result.stdout


def test_infer_goes_on_after_a_file_that_cannot_be_read(trained, data, tmp_path, capsys):
    shutil.copytree(data / "images", tmp_path / "images")
    for name in ("val 3.png", "val 5.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    with pytest.raises(DataError) as error:
        infer.main(infer.Flags(images=(str(tmp_path / "images"),), checkpoint=trained, output_dir=tmp_path / "found"))
    files = [tmp_path / "images" / name for name in ("val 3.png", "val 5.png")]
    listed = [f"{file}: the file is empty (0 bytes)" for file in files]
    assert str(error.value) == "\n".join([f"2 of {TRAIN + TEST} files cannot be read:", *listed])
    assert len((tmp_path / "found" / "predictions.jsonl").read_text().splitlines()) == TRAIN + TEST - 2


def test_infer_takes_every_so_many_frames_of_a_video(trained, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    for level in range(0, 250, 50):
        writer.write(np.full((32, 32, 3), level, np.uint8))
    writer.release()
    options = {"checkpoint": trained, "frame_step": 2, "test_batch_size": 2, "output_dir": tmp_path / "found"}
    records = infer.main(infer.Flags(images=(str(tmp_path / "film.avi"),), **options))
    assert [record["image"][-10:] for record in records] == ["film.avi#0", "film.avi#2", "film.avi#4"]


def test_features_of_a_named_layer(trained, data, tmp_path):
    images = (str(data / "images" / "val 1.png"), str(data / "images" / "val 2.png"))
    infer.main(infer.Flags(images=images, checkpoint=trained, feature="conv2", output_dir=tmp_path))
    with np.load(tmp_path / "features.npz") as arrays:
        assert arrays["features"].shape == (2, 64, 7, 7)
        assert list(arrays["images"]) == list(images)
    with pytest.raises(UserError, match="no such layer. Did you mean conv2?"):
        infer.main(infer.Flags(images=images, checkpoint=trained, feature="conv22", output_dir=tmp_path))


def test_raw_arrays_in_and_out(trained, data, tmp_path):
    classifier = open_classifier(NetworkFlags(checkpoint=trained)).facts
    files = [read_image(data / "images" / f"val {n}.png") for n in range(3)]
    images = np.stack([evaluation_image(image, classifier.preprocess) for image in files])
    np.savez(tmp_path / "in.npz", image=normalise(images, classifier.mean, classifier.std))
    exported = export.main(export.Flags(checkpoint=trained, export_dir=tmp_path / "exported"))
    for name, source in (("a", {"checkpoint": trained}), ("b", {"exported_model": exported})):
        infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / f"{name}.npz", **source))
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert a.files == b.files == ["logits"]
        assert a["logits"].shape == (3, 10)
        np.testing.assert_allclose(a["logits"], b["logits"], rtol=1e-4, atol=1e-5)

    np.savez(tmp_path / "wrong.npz", picture=np.zeros(3))
    with pytest.raises(DataError, match="takes the inputs image; missing: image; unknown: picture"):
        infer.main(infer.Flags(feed=tmp_path / "wrong.npz", fetch=tmp_path / "c.npz", checkpoint=trained))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="broken.npz"):
        infer.main(infer.Flags(feed=tmp_path / "broken.npz", fetch=tmp_path / "c.npz", checkpoint=trained))


def test_onnx_agrees_with_the_program(trained, tmp_path):
    need_onnx()
    import onnxruntime

    folder = export.main(export.Flags(checkpoint=trained, export_dir=tmp_path / "exported", onnx=True))
    image = np.random.default_rng(0).normal(size=(2, 3, 28, 28)).astype(np.float32)
    np.savez(tmp_path / "in.npz", image=image)
    infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / "out.npz", checkpoint=trained))
    (logits,) = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(["logits"], {"image": image})
    with np.load(tmp_path / "out.npz") as arrays:
        assert np.abs(logits - arrays["logits"]).max() <= 1e-4 * np.abs(arrays["logits"]).max()


@pytest.mark.parametrize("kind", ["folder", "safetensors", "pdparams", "checkpoint"])
def test_pretrained_weights_of_every_kind_start_a_run(trained, data, tmp_path, kind):
    state, _ = checkpoint.load(checkpoint.find_best(trained))
    path = {"folder": tmp_path / "w", "safetensors": tmp_path / "w.safetensors", "pdparams": tmp_path / "w.pdparams"}
    source = path.get(kind, trained)
    if kind != "checkpoint":
        write_weights(source, {name: array for name, array in state.items() if not name.endswith("_velocity_0")})
    train.main(flags(data, tmp_path / "run", pretrained_model=str(source), max_steps=1, lr=0.0, l2_decay=0.0))
    after, _ = checkpoint.load(tmp_path / "run")
    for name in ("conv1_weights", "conv3_bn_scale", "fc4_weights", "fc4_offset"):
        np.testing.assert_array_equal(after[name], state[name])


def test_fine_tuning_with_another_class_count_replaces_the_head_alone(trained, data, tmp_path, capsys):
    nameless = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("class_names.txt"))
    more = {"class_dim": 12, "pretrained_model": str(trained), "max_steps": 1, "lr": 0.0, "l2_decay": 0.0}
    train.main(flags(nameless, tmp_path, **more))
    said = capsys.readouterr().out
    assert "replaced head     2  " in said
    assert "fc4_weights [128, 10] -> [128, 12]" in said and "fc4_offset [10] -> [12]" in said
    before, after = checkpoint.load(checkpoint.find_best(trained))[0], checkpoint.load(tmp_path)[0]
    np.testing.assert_array_equal(after["conv2_weights"], before["conv2_weights"])
    assert after["fc4_weights"].shape == (128, 12)


def test_classes_without_a_name_are_refused_before_training(data, tmp_path):
    """Evaluation goes by name, so the score of a network with classes that have none could not be told afterwards."""
    fewer = shutil.copytree(data, tmp_path / "data")
    (fewer / "class_names.txt").write_text("\n".join(class_names(data)[:7]), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"data/class_names.txt: has 7 names, .* 10 classes: add .*, or give --class_dim 7"
    ):
        train.main(flags(fewer, tmp_path / "run", class_dim=10))
    assert not (tmp_path / "run").exists()


def test_wrong_class_count_in_weights_is_refused_for_inference(trained, tmp_path):
    state, _ = checkpoint.load(trained)
    write_weights(tmp_path / "w.safetensors", {n: a for n, a in state.items() if not n.endswith("_velocity_0")})
    with pytest.raises(WeightsError, match=r"fc4_weights \[128, 10\] -> \[128, 1000\]"):
        infer.main(infer.Flags(pretrained_model=str(tmp_path / "w.safetensors"), model="SmallNet", output_dir=tmp_path))


def test_a_checkpoint_of_another_task_or_model_is_refused(trained, data, tmp_path):
    state, meta = checkpoint.load(trained)
    meta.task = "object_detection"
    checkpoint.save(tmp_path / "other", state, meta)
    with pytest.raises(CheckpointError, match="belongs to the task object_detection"):
        evaluation.main(evaluation.Flags(data_dir=data, checkpoint=tmp_path / "other"))
    with pytest.raises(UserError, match="--model ResNet18 contradicts"):
        evaluation.main(evaluation.Flags(data_dir=data, checkpoint=trained, model="ResNet18"))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train.main(flags(data, tmp_path / "run", checkpoint=trained, optimizer="adam"))


def test_unreadable_images_are_replaced_in_training_and_refused_in_evaluation(data, tmp_path, capsys):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "images" / "train 5.png").write_bytes(b"")
    (copy / "images" / "train 6.png").write_bytes((copy / "images" / "train 6.png").read_bytes()[:40])
    outcome = train.main(flags(copy, tmp_path / "run", num_workers=1))
    said = capsys.readouterr().out
    assert outcome.skipped_samples >= 2
    assert "train_list.txt:6: " in said and "the file is empty" in said and "train_list.txt:7: " in said
    with pytest.raises(DataError, match="unreadable training samples, more than the 1 allowed"):
        train.main(flags(copy, tmp_path / "strict", max_bad_samples=1))
    (copy / "images" / "val 3.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="val_list.txt:4: .*val 3.png"):
        evaluation.main(evaluation.Flags(data_dir=copy, checkpoint=tmp_path / "run", num_workers=1))


def test_several_views_and_the_worst_mistakes(trained, data, tmp_path):
    common = {"checkpoint": trained, "newest": True, "views": 10, "resize_short_size": 32}
    measured = evaluation.main(
        evaluation.Flags(data_dir=data, output_dir=tmp_path / "eval", test_batch_size=7, **common)
    )
    result = json.loads((tmp_path / "eval" / "result.json").read_text())
    assert result["views"] == 10 and result["acc1"] == measured["acc1"] and result["samples"] == TEST
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {"result.json", "confusion.png", "mistakes.png"}
    wrong = {record["image"]: record for record in result["mistakes"]}
    assert len(wrong) == TEST - round(measured["acc1"] * TEST)
    records = infer.main(
        infer.Flags(image_list=data / "val_list.txt", output_dir=tmp_path / "infer", num_workers=1, **common)
    )
    assert {record["image"] for record in records if not record["correct"]} == wrong.keys()
    for record in records:
        if record["image"] in wrong:
            best = record["predictions"][0]
            assert wrong[record["image"]]["taken_for"] == best["name"]
            assert wrong[record["image"]]["score"] == pytest.approx(best["score"], abs=2e-5)
    with pytest.raises(UserError, match="--views averages probabilities"):
        infer.main(infer.Flags(feature="pool3", **common))


def test_files_that_cannot_be_read_are_passed_over_counted_and_named(trained, data, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"junk")
    good = sorted(str(path) for path in (data / "images").glob("val *.png"))[:3]
    with pytest.raises(DataError, match=r"1 of 4 files cannot be read:\n.*bad\.png: not an image"):
        infer.main(
            infer.Flags(
                images=(good[0], str(tmp_path / "bad.png"), *good[1:]), checkpoint=trained, output_dir=tmp_path / "p"
            )
        )
    lines = (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == good


SCRIPTS = {"train.py": train, "eval.py": evaluation, "infer.py": infer, "export.py": export}


def run_script(script: str, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(FOLDER / script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def run_here(script: str, *words: str) -> None:
    """In this process, as from the shell."""
    with mock.patch.object(sys, "argv", [script, *words]):
        runpy.run_path(str(FOLDER / script), run_name="__main__")


@pytest.mark.parametrize(
    "script, words, code, message",
    [
        ("train.py", ["--model", "ResNet51"], 1, "did you mean ResNet50"),
        ("train.py", ["--device", "gpu", "--engine", "paddle"], 1, "sees no GPU"),
        ("train.py", ["--data_dir", "/nowhere"], 1, "/nowhere is not a folder"),
        ("train.py", ["--image_shape", "1,28,28"], 1, "give 3,HEIGHT,WIDTH"),
        ("train.py", ["--model", "VGG11", "--image_shape", "3,8,8"], 1, "needs images of at least 32 x 32"),
        ("train.py", ["--class_dim", "3"], 1, "label"),
        ("train.py", ["--augment", "none", "--randaugment", "2"], 1, "--randaugment changes them"),
        ("train.py", ["--statistics_batch", "48"], 1, "--statistics_batch 48 does not divide --batch_size 64"),
        ("train.py", ["--statistics_batch", "16", "--engine", "paddle"], 1, "only the xla engine does: --engine xla"),
        ("train.py", ["--checkpoint", "/nowhere"], 1, "no checkpoint at /nowhere"),
        ("eval.py", ["--pretrained_model", "ResNet5O"], 1, "Did you mean"),
        ("infer.py", ["no such.jpg"], 1, "no such.jpg: no such file"),
        ("infer.py", ["--exported", "/nowhere"], 1, "not an exported model"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_an_exit_code(
    tmp_path, monkeypatch, capsys, script, words, code, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_here(script, *words)
    assert stopped.value.code == code
    assert message in capsys.readouterr().err


def test_an_error_is_one_line_in_a_process_of_its_own(tmp_path):
    result = run_script("train.py", "--data_dir", str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


def test_a_hostile_pickle_is_not_executed(tmp_path):
    """The classic: unpickling it would create a file."""
    target = tmp_path / "executed"
    program = f"cposix\nsystem\n(S'touch {target}'\ntR."
    (tmp_path / "weights.pdparams").write_bytes(program.encode())
    with pytest.raises(WeightsError):
        infer.main(infer.Flags(pretrained_model=str(tmp_path / "weights.pdparams"), model="SmallNet", class_dim=10))
    assert not target.exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag(script, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_here(script, "--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in SCRIPTS[script].Flags.__dataclass_fields__:
        assert f"--{name}" in text or name == "images"


def test_the_flags_of_july_2018_are_understood(data, tmp_path):
    """Those of the original's README, under their original names."""
    words = [
        "--model=SmallNet", "--batch_size=16", "--total_images=60", "--class_dim=10", "--image_shape=3,28,28",
        f"--model_save_dir={tmp_path}", "--with_mem_opt=False", "--lr_strategy=piecewise_decay", "--lr=0.1",
        "--num_epochs=1", "--use_gpu=False", f"--data_dir={data}",
    ]  # fmt: skip
    result = run_script("train.py", *words)
    assert result.returncode == 0, result.stderr
    assert "note: --with_mem_opt has no effect any more" in result.stderr
    assert checkpoint.load(tmp_path)[1].config["step_epochs"] == [30, 60, 90]
