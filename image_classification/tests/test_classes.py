"""Classes are matched by name wherever weights meet data."""

import json
import shutil
from pathlib import Path

from fluid.errors import DataError, UserError
from image_classification import eval as evaluation
from image_classification import infer, train
from image_classification.classes import labels_of
from image_classification.classifier import SMALL
from image_classification.duplicates import remarks
from image_classification.fitting import matched_head
from image_classification.reader import class_names, embedded_dataset, imagenet_names, open_images

import numpy as np
import pytest

NAMES = class_names(None)


def clothes(place: Path, kinds: dict[str, str], split: str = "val", each: int = 6) -> Path:
    """A folder of some kinds of the embedded images, under names of its own: kind -> name."""
    images = open_images(None, "val", 10)
    for kind, name in kinds.items():
        (place / split / name).mkdir(parents=True)
        for index in np.flatnonzero(images.labels == NAMES.index(kind))[:each]:
            shutil.copy(images.path(index), place / split / name)
    return place


def accuracy(folder: Path, **flags) -> float:
    return evaluation.main(evaluation.Flags(data_dir=folder, pretrained_model=SMALL, **flags))["acc1"]


def test_a_folder_with_some_of_the_classes_is_measured_under_their_labels(tmp_path):
    """Numbered by themselves they would be T-shirts and trousers."""
    folder = clothes(tmp_path / "a", {"sandal": "sandal", "ankle boot": "ankle boot"})
    assert accuracy(folder) > 0.7
    renamed = clothes(tmp_path / "b", {"sandal": "sandal", "ankle boot": "Stiefel"})
    with pytest.raises(
        DataError, match="no class Stiefel, .*It has T-shirt.*the data have Stiefel, sandal.*--class_map"
    ):
        accuracy(renamed)
    assert accuracy(renamed, class_map=("Stiefel=ankle boot",)) == accuracy(folder)
    for wrong, message in (("Schuh=bag", "the data have Stiefel, sandal"), ("Stiefel", "NAME_IN_THE_DATA=")):
        with pytest.raises(UserError, match=message):
            accuracy(renamed, class_map=(wrong,))


def test_infer_checks_a_list_by_the_names_of_its_classes(tmp_path):
    images = open_images(None, "val", 10)
    chosen = np.flatnonzero(images.labels == NAMES.index("bag"))[:5]
    lines = "".join(f"{Path(images.path(index)).relative_to(embedded_dataset())} 1\n" for index in chosen)
    (tmp_path / "val_list.txt").write_text(lines)
    (tmp_path / "class_names.txt").write_text("coat\nbag\n")
    for index in chosen:
        path = tmp_path / Path(images.path(index)).relative_to(embedded_dataset())
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images.path(index), path)
    flags = {"pretrained_model": SMALL, "output_dir": tmp_path / "found"}
    records = infer.main(infer.Flags(image_list=tmp_path / "val_list.txt", **flags))
    assert {record["label"] for record in records} == {NAMES.index("bag")}
    assert np.mean([record["correct"] for record in records]) >= 0.8


def test_labels_beyond_the_names_are_told_with_their_line(tmp_path):
    folder = clothes(tmp_path / "a", {"sandal": "sandal"}, each=2)
    (folder / "val_list.txt").write_text("val/sandal/0.png 0\nval/sandal/1.png 3\n")
    for place, file in enumerate(sorted((folder / "val" / "sandal").iterdir())):
        file.rename(file.with_name(f"{place}.png"))
    (folder / "class_names.txt").write_text("sandal\nbag\n")
    with pytest.raises(
        DataError, match=r"val_list.txt:2: .*1.png: label 3 has no name; class_names.txt has 2: correct"
    ):
        accuracy(folder)


def test_fine_tuning_takes_over_the_classes_that_it_knows(tmp_path):
    kinds = {"bag": "bag", "sandal": "sandal", "coat": "something else"}
    for split in ("train", "val"):
        clothes(tmp_path / "data", kinds, split)
    run = tmp_path / "run"
    flags = {"pretrained_model": SMALL, "lr": 0.0, "l2_decay": 0.0, "batch_size": 6, "max_steps": 1}
    train.main(train.Flags(data_dir=tmp_path / "data", output_dir=run, **flags))
    # Not trained at all: bags and sandals are what they were for the weights, whatever their numbers.
    folder = clothes(tmp_path / "two", {"bag": "bag", "sandal": "sandal"})
    assert evaluation.main(evaluation.Flags(data_dir=folder, checkpoint=run, newest=True))["acc1"] > 0.8


def test_names_match_whole_or_by_the_first_of_several():
    ours = ["tench, Tinca tinca", "crane", "crane, bird", "cafe\u0301"]
    assert labels_of(["tench", "crane", "café", "crow"], ours, {}) == [0, 1, 3, None]
    assert labels_of(["n01440764", "n01443537"], ["tench", "goldfish"], {}) == [0, 1]
    assert labels_of(["x"], ours, {"x": "tench"}) == [0]


def test_two_classes_of_one_name_stay_apart():
    """A bird and a machine of ImageNet are called crane, as `prepare imagenet` writes them, too."""
    names = imagenet_names()
    assert len(set(names)) == 999
    assert labels_of(names, names, {}) == [*range(1000)]
    assert labels_of(["crane", "hen"], names, {}) == [None, names.index("hen")]


def test_columns_of_a_head_follow_their_names():
    own = {"fc_offset": np.zeros(2, np.float32), "fc_weights": np.zeros((3, 2), np.float32), "c": np.zeros((3, 2))}
    stored = {"fc_weights": np.arange(9.0).reshape(3, 3), "fc_offset": np.arange(3.0), "c": np.ones((3, 2))}
    head = matched_head(stored, own, ["c", "new"], ["a", "b", "c"])
    assert head["fc_offset"].tolist() == [2, 0] and head["fc_weights"].tolist() == [[2, 0], [5, 0], [8, 0]]
    assert "c" not in head


def test_figures_of_each_class_are_printed_and_written(tmp_path, capsys):
    folder = clothes(tmp_path / "a", {"sandal": "sandal", "ankle boot": "ankle boot"})
    accuracy(folder, per_class=True, output_dir=tmp_path / "found")
    said = capsys.readouterr().out
    assert "precision" in said and "F1" in said and "ankle boot" in said and "trouser" not in said
    classes = json.loads((tmp_path / "found" / "result.json").read_text())["classes"]
    assert [(record["name"], record["images"]) for record in classes] == [("sandal", 6), ("ankle boot", 6)]
    assert all(0 <= record[figure] <= 1 for record in classes for figure in ("recall", "precision", "f1"))


def test_pictures_in_both_parts_are_told(tmp_path, capsys):
    for split in ("train", "val"):
        clothes(tmp_path / "data", {"bag": "bag", "coat": "coat"}, split, each=4)
    name = next((tmp_path / "data" / "val" / "bag").iterdir()).name
    for path in [*(tmp_path / "data" / "val").rglob("*.png")]:
        if path.name != name:
            path.write_bytes(path.read_bytes() + b"0")
    (told,) = remarks(*(open_images(tmp_path / "data", split, 2) for split in ("train", "val")))
    assert told.endswith(f"data/val/bag/{name} is {tmp_path}/data/train/bag/{name}")
    coat = next((tmp_path / "data" / "train" / "coat").iterdir())
    coat.write_bytes((tmp_path / "data" / "train" / "bag" / name).read_bytes())
    _, told = remarks(*(open_images(tmp_path / "data", split, 2) for split in ("train", "val")))
    assert (
        told.startswith("pictures that are in several classes (1): ") and str(coat) in told and told.count(" and ") == 2
    )
    train.main(train.Flags(data_dir=tmp_path / "data", output_dir=tmp_path / "run", batch_size=4, max_steps=1))
    assert "among the training images, too: 1 of 8 test images" in " ".join(capsys.readouterr().out.split())


def test_results_of_an_earlier_call_are_kept(tmp_path):
    folder = clothes(tmp_path / "a", {"bag": "bag"}, each=2)
    flags = infer.Flags(images=(str(folder),), pretrained_model=SMALL, output_dir=tmp_path / "found")
    first = infer.main(flags)
    infer.main(flags)
    infer.main(flags)
    for kept in ("before", "before.1", ""):
        lines = (tmp_path / "found" / kept / "predictions.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == first
        assert (tmp_path / "found" / kept / "sheet.png").is_file()
