"""The scripts on small streets: evaluation against an independent count, pictures, videos, exports, the flags of 2018."""

import json
from pathlib import Path
from types import SimpleNamespace

from fluid import config as configuration
from fluid.data import Batch
from fluid.errors import DataError, UserError
from fluid.run import events
from fluid.tests.extras import need_onnx
from icnet import eval as evaluation
from icnet import export, infer, train
from icnet.classes import CITYSCAPES, IGNORE
from icnet.evaluation import Names, Written
from icnet.metrics import scores
from icnet.opening import DEFAULT, SIMPLE, open_segmenter
from icnet.reader import Pairs, image_size, label_values, open_pairs, read_label, read_pair
from icnet.segmenter import NetworkFlags, Segmenter
from icnet.streets.files import write_streets

import cv2
import numpy as np
import pytest
from PIL import Image

SIZE = (64, 128)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four streets to learn from, three to evaluate on, one of them of another size."""
    folder = tmp_path_factory.mktemp("data") / "streets"
    write_streets(folder, SIZE, {"train": 4, "val": 3}, processes=1)
    pairs = open_pairs(folder, "val")
    for path, cut in ((pairs.images[1], 100), (pairs.labels[1], 100)):
        with Image.open(path) as image:
            image.crop((0, 0, cut, 60)).save(path)
    return folder


def flags(data: Path, output: Path, **others: object) -> train.Flags:
    """The smallest run; Paddle prepares a Program with momentum in half the time of one with Adam."""
    small: dict[str, object] = {"width": 0.25, "crop": (128, 128), "batch_size": 2, "max_steps": 1, "engine": "paddle"}
    small |= {"optimizer": "momentum", "blocks": (1, 1, 1, 1)}
    return train.Flags(data_dir=data, output_dir=output, **{**small, **others})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    output = tmp_path_factory.mktemp("run") / "output"
    train.main(flags(data, output))
    return output


def test_evaluation_equals_an_independent_count(data: Path, trained: Path, tmp_path: Path) -> None:
    """Of the label files that it writes, pixel by pixel; whatever the batch."""
    options = {"checkpoint": trained, "data_dir": data}
    one = evaluation.main(evaluation.Flags(**options, test_batch_size=1, label_dir=tmp_path / "ids"))
    again = evaluation.main(evaluation.Flags(**options, test_batch_size=3, output_dir=tmp_path / "result"))
    assert one == again
    pairs, matrix = open_pairs(data, "val"), np.zeros((19, 19), np.int64)
    for image, path in zip(pairs.images, pairs.labels, strict=True):
        label = read_label(path, pairs)
        written = label_values(str(tmp_path / "ids" / f"{Path(image).stem}.png"))
        assert written.shape == label.shape and set(np.unique(written)) <= set(CITYSCAPES.ids)
        np.add.at(matrix, (label[label != IGNORE], CITYSCAPES.of_id[written][label != IGNORE]), 1)
    assert one == pytest.approx(scores(matrix, CITYSCAPES))
    found = json.loads((tmp_path / "result" / "result.json").read_text())
    assert found["samples"] == 3 and found["classes"].keys() <= set(CITYSCAPES.names)


def test_it_learns(data: Path, tmp_path: Path) -> None:
    """The four streets that it sees again and again."""
    seed = int(np.random.default_rng().integers(1000))
    print(f"seed {seed}")
    learning = {"optimizer": "adam", "scales": (1.0, 1.0), "flip": False, "color_jitter": 0.0, "seed": seed}
    train.main(flags(data, tmp_path, max_steps=48, num_epochs=24, log_every=4, eval_every=48, **learning))
    losses = [row["loss"] for row in events(tmp_path, "train")]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.full
def test_the_run_without_flags_learns(tmp_path: Path) -> None:
    """About ten minutes of CPU time. README, two seeds: 0.446, 0.425; road 0.84, 0.86, sky 0.81, 0.79, building 0.75, 0.66, car 0.67, 0.68."""
    seed = int(np.random.default_rng().integers(1000))
    print(f"seed {seed}")
    train.main(train.Flags(output_dir=tmp_path, seed=seed))
    options = {"checkpoint": tmp_path, "output_dir": tmp_path / "result"}
    assert evaluation.main(evaluation.Flags(**options))["miou"] > 0.4
    classes = json.loads((tmp_path / "result" / "result.json").read_text())["classes"]
    least = {"road": 0.8, "sky": 0.75, "building": 0.6, "car": 0.6}
    assert all(classes[name]["iou"] > bound for name, bound in least.items()), classes


def test_some_classes_alone_are_scored(data: Path, trained: Path) -> None:
    options = {"checkpoint": trained, "data_dir": data}
    chosen = evaluation.main(evaluation.Flags(**options, classes=("road", "sky")))
    assert chosen["miou"] != evaluation.main(evaluation.Flags(**options))["miou"]
    with pytest.raises(UserError, match="no such class. Did you mean building?"):
        evaluation.main(evaluation.Flags(**options, classes=("bilding",)))


@pytest.mark.full
def test_other_ways_of_evaluation_run(data: Path, trained: Path) -> None:
    options = {"checkpoint": trained, "data_dir": data}
    result = evaluation.main(evaluation.Flags(**options, flip=True, scales=(0.5, 1.0)))
    assert 0 <= result["miou"] <= 1


def test_pictures_are_segmented(data: Path, trained: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data, "val")
    records = infer.main(infer.Flags(images=pairs.images, checkpoint=trained, output_dir=tmp_path / "out"))
    evaluation.main(evaluation.Flags(checkpoint=trained, data_dir=data, label_dir=tmp_path / "ids"))
    assert len(records) == 3 and len((tmp_path / "out" / "shares.jsonl").read_text().splitlines()) == 3
    for path, record in zip(pairs.images, records, strict=True):
        stem = Path(path).stem
        label = label_values(str(tmp_path / "out" / f"{stem}_label.png"))
        np.testing.assert_array_equal(label, label_values(str(tmp_path / "ids" / f"{stem}.png")))
        colors = label_values(str(tmp_path / "out" / f"{stem}_result.png"))
        np.testing.assert_array_equal(colors, CITYSCAPES.palette[CITYSCAPES.of_id[label]])
        overlay, side = (image_size(str(tmp_path / "out" / f"{stem}_{kind}.jpg")) for kind in ("overlay", "side"))
        assert overlay == label.shape and side[1] > 2 * label.shape[1]
        assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-3)


def test_pictures_of_any_size_keep_it(trained: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((90, 301, 3), 90, np.uint8)).save(tmp_path / "a.png")
    options = {"checkpoint": trained, "output_dir": tmp_path / "out", "write": ("label",)}
    infer.main(infer.Flags(images=(str(tmp_path / "a.png"),), **options))
    assert image_size(str(tmp_path / "out" / "a_label.png")) == (90, 301)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_label.png", "shares.jsonl"]


def test_videos_and_unreadable_pictures(trained: Path, tmp_path: Path) -> None:
    video = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 64))
    for level in range(0, 250, 50):
        video.write(np.full((64, 128, 3), level, np.uint8))
    video.release()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    options = {"checkpoint": trained, "output_dir": tmp_path / "out", "frame_step": 2, "write": ("result",)}
    with pytest.raises(DataError, match="broken.png: not an image"):
        infer.main(infer.Flags(images=(str(tmp_path / "broken.png"), str(tmp_path / "film.avi")), **options))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["film_000000_result.png", "film_000002_result.png", "film_000004_result.png"]


def test_where_nothing_could_be_read_nothing_is_said_to_be_written(tmp_path: Path, capsys) -> None:
    labeller = SimpleNamespace(segmenter=SimpleNamespace(classes=CITYSCAPES))
    assert infer.segment(labeller, iter(()), ["broken.png"], infer.Flags(output_dir=tmp_path)) == []  # type: ignore[arg-type]
    assert "written to" not in capsys.readouterr().out


@pytest.mark.parametrize("size", [(64, 128), pytest.param((96, 80), marks=pytest.mark.full)])
def test_exports_take_and_give_bytes(data: Path, trained: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    """At two sizes; the exported model, its ONNX form and the checkpoint agree on a picture."""
    need_onnx()
    import onnxruntime

    folder = export.main(export.Flags(checkpoint=trained, export_dir=tmp_path / "exported", size=size, onnx=True))
    assert json.loads((folder / "signature.json").read_text())["onednn"]
    image = cv2.resize(read_pair(open_pairs(data, "val"), 0)[0], size[::-1])
    np.savez(tmp_path / "in.npz", image=image[None])
    for name, source in (("a", {"checkpoint": trained}), ("b", {"exported_model": folder})):
        infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / f"{name}.npz", outputs=("labels",), **source))
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        expected, found = a["labels"], b["labels"]
    (onnx,) = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(["labels"], {"image": image[None]})
    assert expected.dtype == found.dtype == onnx.dtype == np.uint8 and expected.shape == (1, *size)
    assert (found == expected).mean() > 0.998 and (onnx == expected).mean() > 0.998
    Image.fromarray(image).save(tmp_path / "p.png")
    infer.main(infer.Flags(images=(str(tmp_path / "p.png"),), exported_model=folder, output_dir=tmp_path / "out"))
    label = label_values(str(tmp_path / "out" / "p_label.png"))
    assert (CITYSCAPES.of_id[label] == expected[0]).mean() > 0.998


def test_raw_arrays_in_both_forms(trained: Path, tmp_path: Path) -> None:
    """Bytes, and floats prepared as in 2018."""
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3)).astype(np.uint8)
    mean = np.array([103.939, 116.779, 123.68], np.float32)
    floats = (image[..., ::-1].astype(np.float32) - mean).transpose(0, 3, 1, 2)
    for name, array in (("bytes", image), ("floats", floats)):
        np.savez(tmp_path / "in.npz", image=array)
        infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / f"{name}.npz", checkpoint=trained))
    with np.load(tmp_path / "bytes.npz") as one, np.load(tmp_path / "floats.npz") as other:
        assert set(one.files) == {"sub4", "sub24", "sub124", "logits", "labels"}
        assert one["logits"].shape == (1, 19, 64, 128) and one["labels"].dtype == np.uint8
        np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-4 * np.abs(other["logits"]).max())
    np.savez(tmp_path / "in.npz", picture=image)
    with pytest.raises(DataError, match="needs an array `image`"):
        infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=tmp_path / "c.npz", checkpoint=trained))


def test_fine_tuning_on_own_classes_makes_heads_anew(trained: Path, tmp_path: Path, capsys) -> None:
    for part, count in (("train", 2), ("val", 1)):
        for number in range(count):
            for kind, array in (("images", np.zeros((64, 64, 3), np.uint8)), ("labels", np.eye(64, dtype=np.uint8))):
                folder = tmp_path / "mine" / kind / part
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{number}.png")
    (tmp_path / "mine" / "classes.csv").write_text("0,ground,1,2,3\n1,line,200,0,0\n")
    assert train.main(flags(tmp_path / "mine", tmp_path / "none", check_data=True)).nothing_left
    assert not (tmp_path / "none").exists()
    outcome = train.main(flags(tmp_path / "mine", tmp_path / "run", pretrained_model=str(trained), balance=1.0))
    said = capsys.readouterr().out
    assert "replaced head     6" in said and "line" in said and 0 <= outcome.metrics["miou"] <= 1
    with pytest.raises(UserError, match="the weights tell apart ground, line; .* has the classes road"):
        evaluation.main(evaluation.Flags(checkpoint=tmp_path / "run"))
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(tmp_path / "mine" / "labels" / "val" / "0.png")
    with pytest.raises(DataError, match="1 fault in the label files"):
        train.main(flags(tmp_path / "mine", tmp_path / "other", check_data=True))


def test_no_two_results_have_one_name() -> None:
    """Whatever the order in which numbered and equal names come."""
    names = Names()
    assert [names.of(place) for place in ("a/x.jpg", "b/x.jpg", "c/x_2.jpg", "d/x.jpg")] == ["x", "x_2", "x_2_2", "x_3"]
    assert [names.of(place) for place in ("film.mp4#5", "camera:0#12", "a#1/y.jpg")] == [
        "film_000005",
        "camera_0_000012",
        "y",
    ]


def test_labels_of_pictures_of_one_name_are_all_written(tmp_path: Path) -> None:
    pairs = Pairs("here", ("bonn/1.jpg", "ulm/1.jpg"), ("", ""), CITYSCAPES)
    predicted = {"confusion": np.zeros((19, 19)), "labels": np.zeros((2, 4, 4), np.uint8)}
    Written(pairs, [0, 1], tmp_path, Names()).add(predicted, Batch({}, size=2, epoch=0, index=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "1_2.png"]


def test_the_network_is_that_of_the_weights(trained: Path) -> None:
    """Unless a flag says otherwise, which then does not fit."""
    parsed = configuration.parse(train.Flags, ["--pretrained_model", str(trained)])
    assert train.with_network_of_weights(parsed).width == 0.25
    named = configuration.parse(train.Flags, ["--pretrained_model", str(trained), "--width", "0.5"])
    assert train.with_network_of_weights(named).width == 0.5


def test_the_recipe_of_2018() -> None:
    parsed = configuration.parse(train.Flags, ["--recipe", "2018", "--batch_size", "4"], aliases=train.ALIASES)
    settled = train.with_recipe(parsed)
    assert (settled.batch_size, settled.lr, settled.lr_power, settled.max_steps) == (4, 0.003, 0.9, 60_000)
    assert (settled.optimizer, settled.momentum_rate, settled.l2_decay) == ("momentum", 0.9, 1e-4)
    assert (settled.crop, settled.scales, settled.flip, settled.width) == ((720, 720), (0.5, 2.0), True, 1.0)
    assert (settled.lr_strategy, settled.color_jitter, settled.save_every) == ("polynomial_decay", 0.0, 1000)
    assert train.epochs_of(settled, 743) * 743 >= 60_000
    assert configuration.named(settled) >= {"batch_size", *train.RECIPE}


# Script, flags as users of 2018 wrote them, and what they set.
FLAGS_OF_2018 = [
    (train, "--batch_size=16", "batch_size", 16),
    (train, "--checkpoint_path=./chkpnt", "output_dir", Path("chkpnt")),
    (train, "--init_model=w", "pretrained_model", "w"),
    (train, "--use_gpu=False", "device", "cpu"),
    (train, "--random_mirror=False", "flip", False),
    (train, "--random_scaling=False", "random_scaling", False),
    (evaluation, "--model_path=w", "pretrained_model", "w"),
    (evaluation, "--use_gpu=True", "device", "gpu"),
    (infer, "--model_path=w", "pretrained_model", "w"),
    (infer, "--images_list=l", "image_list", Path("l")),
    (infer, "--images_path=p", "image_dir", Path("p")),
    (infer, "--out_path=o", "output_dir", Path("o")),
    (infer, "--use_gpu=False", "device", "cpu"),
]


@pytest.mark.parametrize(("script", "word", "name", "value"), FLAGS_OF_2018, ids=lambda item: str(item)[:30])
def test_every_flag_of_2018_acts(script, word: str, name: str, value: object) -> None:
    parsed = configuration.parse(script.Flags, [word], aliases=script.ALIASES, retired=script.RETIRED)
    assert getattr(parsed, name) == value and name in configuration.named(parsed)


def test_lists_and_results_of_2018(data: Path, trained: Path, tmp_path: Path) -> None:
    """`<out>/<name>_result.png`; lists may have the label behind the image."""
    pairs = open_pairs(data, "val")
    names = [Path(path).name for path in pairs.images[::2]]
    (tmp_path / "list").write_text(f"{names[0]}\tlabel.png\n{names[1]}\n")
    folder = str(Path(pairs.images[0]).parent)
    words = ["--images_list", str(tmp_path / "list"), "--images_path", folder, "--out_path", str(tmp_path / "out")]
    infer.main(
        configuration.parse(
            infer.Flags, [*words, "--checkpoint", str(trained), "--write", "result"], aliases=infer.ALIASES
        )
    )
    written = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert written == sorted(f"{Path(name).stem}_result.png" for name in names)


def test_a_list_of_pictures_names_some(tmp_path: Path) -> None:
    (tmp_path / "street.png").touch()
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfstreet.png\r\n")
    assert infer.named_pictures(infer.Flags(image_list=tmp_path / "list")) == [str(tmp_path / "street.png")]
    (tmp_path / "list").write_text("\n")
    with pytest.raises(DataError, match="list: names no picture"):
        infer.named_pictures(infer.Flags(image_list=tmp_path / "list"))


@pytest.mark.parametrize("name", [DEFAULT, SIMPLE])
def test_what_comes_along_opens(name: str, capsys) -> None:
    opened = open_segmenter(NetworkFlags(pretrained_model=name))
    photographs = (576, 0.1) if name == DEFAULT else (None, 0.0)
    assert (opened.facts.long_side, opened.facts.own_statistics) == photographs
    assert opened.facts == Segmenter.from_facts(opened.facts.to_facts())
    assert opened.facts.classes == CITYSCAPES and capsys.readouterr().out.startswith(f"weights: {name} (")
    assert all(np.isfinite(array).all() for array in opened.state.values())


def test_own_statistics_are_for_programs_that_are_built() -> None:
    opened = SimpleNamespace(facts=Segmenter(0.25), exported=None, captured=None)
    assert infer.segmenter_of(opened, None) == Segmenter(0.25)
    assert infer.segmenter_of(opened, 0.1) == Segmenter(0.25, own_statistics=0.1)
    assert Segmenter.from_facts(infer.segmenter_of(opened, 0.1).to_facts()).own_statistics == 0.1
    opened.exported = object()
    with pytest.raises(UserError, match="--own_statistics"):
        infer.segmenter_of(opened, 0.1)
