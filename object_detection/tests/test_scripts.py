"""The scripts on data as people have them: faults, classes that do not fit, any batch, exported models, shapes."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from fluid import config as configuration
from fluid.errors import DataError, UserError
from fluid.program import initialise
from fluid.run import events
from fluid.tests.devices import with_devices
from fluid.weights import compact
from object_detection import eval as evaluation_script
from object_detection import eval_coco_map, export, shapes, train
from object_detection.detector import TASK, VOC_CLASSES, Detector
from object_detection.network import prediction_program
from object_detection.nms import Nms
from object_detection.tests.networks import NARROW, PRIORS, SIZE
from object_detection.tests.test_reader import coco, voc, voc_xml, write

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """In an empty folder, and with few shapes where they do not have to be learnt."""
    monkeypatch.chdir(tmp_path)
    if request.node.get_closest_marker("full") is None:
        monkeypatch.setitem(shapes.COUNTS, "train", 320)
        monkeypatch.setitem(shapes.COUNTS, "val", 24)


def cats_and_dogs(folder: Path, make: Any = voc) -> Path:
    """Two pictures to train on, and the same for evaluation."""
    make(folder)
    for name in ("ImageSets/Main/train.txt", "annotations/instances_train.json"):
        path = folder / name
        if path.is_file():
            write(path.with_name(path.name.replace("train", "val")), path.read_text(encoding="utf-8"))
    if (folder / "train").is_dir():
        (folder / "val").symlink_to(folder / "train")
    return folder


def narrow(**values: Any) -> train.Flags:
    return train.Flags(
        model=NARROW, image_size=SIZE, batch_size=2, test_batch_size=2, max_steps=1, engine="paddle", **values
    )


def test_faults_are_named_and_nothing_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inverted = voc_xml([("cat", (24, 2, 4, 12), 0), ("wolf", (1, 1, 9, 9), 0), ("dog", (0, 0, 40, 20), 0)])
    data = cats_and_dogs(tmp_path / "voc")
    write(data / "Annotations" / "one.xml", inverted)
    with pytest.raises(DataError, match=r"^4 faults"):
        train.main(narrow(data_dir=data, check_data=True))
    said = capsys.readouterr().out
    assert re.search(r"one\.xml: object 1 \(cat\): box 24, 2, 4, 12 has no area", said)
    assert re.search(r"one\.xml: object 2 \(wolf\): there is no class", said)
    assert "  cat: 0 objects\n  dog: 1 object\n" in said and "of the boxes have a prior" in said
    assert not Path("output").exists()
    with pytest.raises(DataError, match=r"2 faults.*--skip_bad_objects"):
        train.main(narrow(data_dir=data))
    assert not Path("output").exists()
    assert train.main(narrow(data_dir=data, skip_bad_objects=True, check_data=True)).nothing_left
    assert train.main(narrow(data_dir=data, skip_bad_objects=True)).step == 1
    capsys.readouterr()
    train.main(configuration.parse(train.Flags, ["--checkpoint", "output", "--check_data"]))
    assert "  cat: 0 objects\n  dog: 1 object\n" in capsys.readouterr().out, "the data of the run, not the drawn shapes"


def test_pictures_without_objects_are_not_trained_on(tmp_path: Path) -> None:
    """Difficult ones do not train; label files that are named otherwise than the pictures would be the same."""
    data = cats_and_dogs(tmp_path / "voc")
    write(data / "Annotations" / "one.xml", voc_xml([("dog", (0, 0, 40, 20), 1)]))
    with pytest.raises(DataError, match=r"train.txt: has no object to train on in 2 pictures"):
        train.main(narrow(data_dir=data))
    assert not Path("output").exists()


def test_released_priors_on_the_trees(capsys: pytest.CaptureFixture[str]) -> None:
    train.main(train.Flags(data="trees", check_data=True))
    released = capsys.readouterr().out
    train.main(train.Flags(data="trees", check_data=True, priors="auto"))
    fitted = capsys.readouterr().out
    shares = [[float(found) for found in re.findall(r"([\d.]+)% of the boxes", said)] for said in (released, fitted)]
    assert max(shares[0]) < 20 and min(shares[1]) > 90
    assert released.count("try --priors auto") == 2 and "warning" not in fitted


def test_the_background_is_never_counted(tmp_path: Path) -> None:
    data = cats_and_dogs(tmp_path / "voc")
    with pytest.raises(UserError, match=r"--num_classes 3: the data name 2 classes. The background is never"):
        train.main(narrow(data_dir=data, num_classes=3))
    assert train.main(narrow(data_dir=data, num_classes=2, priors="auto")).step == 1


def test_parts_with_other_classes(tmp_path: Path) -> None:
    data = cats_and_dogs(tmp_path / "coco", coco)
    path = data / "annotations" / "instances_val.json"
    write(path, path.read_text(encoding="utf-8").replace('"dog"', '"wolf"'))
    with pytest.raises(DataError, match=r"its classes are cat, wolf; the detector's are cat, dog"):
        train.main(narrow(data_dir=data))


def test_intervals_are_of_voc_alone() -> None:
    with pytest.raises(UserError, match="--bootstrap draws for PASCAL VOC's mAP"):
        eval_coco_map.main(eval_coco_map.Flags(bootstrap=10))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data_dir .*nowhere: no such folder"):
        train.main(train.Flags(data_dir=tmp_path / "nowhere"))


def test_contradicting_starts() -> None:
    with pytest.raises(UserError, match="--from_scratch and --pretrained_model"):
        train.main(train.Flags(from_scratch=True, pretrained_model="ssd_mobilenet_v1_voc"))


def test_where_training_starts_and_what_is_frozen() -> None:
    assert train.starting_weights(train.Flags()) == "ssd_mobilenet_v1_voc"
    assert train.starting_weights(train.Flags(from_scratch=True)) is None
    assert train.starting_weights(train.Flags(model="ssd_vgg16_300")) is None
    assert train.freezing(train.Flags()) == "statistics"
    assert train.freezing(train.Flags(pretrained_model="mobilenet_v1_imagenet")) == "none"
    assert train.freezing(train.Flags(freeze="backbone")) == "backbone"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a detector of shapes that was never trained; its classes are one more than the data's, in another order."""
    detector = Detector(NARROW, ("triangle", "star", "square", "disc"), PRIORS, SIZE)
    path = tmp_path_factory.mktemp("weights") / "shapes.safetensors"
    state = initialise(prediction_program(detector, Nms()), seed=1)
    compact.write(path, state, compact.Description(TASK, {"detector": detector.to_facts()}))
    return path


def measured(**values: Any) -> dict[str, float]:
    return evaluation_script.main(evaluation_script.Flags(data="shapes", conf=0.2, max_det=20, **values))


@pytest.fixture(scope="module")
def reference(weights: Path) -> dict[str, float]:
    """What one device measures with the reference engine, in a single batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shapes.COUNTS, "val", 24)
        return measured(pretrained_model=str(weights), test_batch_size=64, engine="paddle")


def test_any_batch_engine_and_the_exported_model_measure_the_same(
    weights: Path, reference: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 < reference["map"] < 0.5 and set(reference) == {"map", "recall", "ap/disc", "ap/square", "ap/triangle"}
    exported = export.main(
        export.Flags(pretrained_model=str(weights), conf=0.2, max_det=20, export_dir=tmp_path / "model")
    )
    for other in (
        measured(pretrained_model=str(weights), test_batch_size=7, engine="xla"),
        measured(exported_model=exported, test_batch_size=30),
    ):
        assert other == pytest.approx(reference, rel=1e-6)
    said = capsys.readouterr().out
    assert "PASCAL VOC, IoU 0.5, area below the curve, difficult objects left out; 24 pictures" in said
    assert f"Test model {weights}, map {reference['map']:.4f}" in said


@pytest.mark.full
def test_two_devices_measure_the_same(weights: Path, reference: dict[str, float], tmp_path: Path) -> None:
    """The rows of a batch, and so the rounds of their suppression, are shared between them."""
    code = (
        "from fluid import config; from object_detection import eval, shapes; "
        "shapes.COUNTS['val'] = 24; eval.main(config.parse(eval.Flags))"
    )
    words = f"--data shapes --conf 0.2 --max_det 20 --engine xla --test_batch_size 10 --pretrained_model {weights}"
    root = str(Path(__file__).resolve().parents[2])
    environment = {**with_devices(2), "PYTHONPATH": root}
    command = [sys.executable, "-c", code, *words.split(), "--output_dir", str(tmp_path / "two")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and "2 x cpu" in ended.stdout, ended.stdout + ended.stderr
    two = json.loads((tmp_path / "two" / "result.json").read_text(encoding="utf-8"))
    assert {name: two[name] for name in reference} == pytest.approx(reference, rel=1e-6)


def test_other_protocols(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(weights)
    loose = measured(pretrained_model=spec, overlap=0.3, test_batch_size=64)["map"]
    eleven = measured(pretrained_model=spec, ap_version="11point", test_batch_size=64)["map"]
    strict = measured(pretrained_model=spec, overlap=0.9, test_batch_size=64)["map"]
    assert strict < eleven and strict < loose
    averages = measured(pretrained_model=spec, ap_version="cocoMAP", test_batch_size=64)
    assert 0 <= averages["AP75"] < averages["AP50"]
    assert "COCO, by pycocotools; 24 pictures, 60 objects" in capsys.readouterr().out


def test_weights_of_other_classes_are_not_measured() -> None:
    """What comes along knows the classes of PASCAL VOC, and no trees."""
    with pytest.raises(UserError, match=r"do not know the classes tree .* they know aeroplane"):
        evaluation_script.main(evaluation_script.Flags(data="trees", pretrained_model="ssd_mobilenet_v1_voc"))
    assert "person" in VOC_CLASSES


def test_it_learns(tmp_path: Path) -> None:
    """The first steps of a run without flags, from any seed: the loss falls."""
    seed = int(np.random.default_rng().integers(1000))
    print("seed", seed)
    words = [
        "--seed",
        str(seed),
        "--max_steps",
        "36",
        "--log_every",
        "6",
        "--output_dir",
        str(tmp_path / "run"),
    ]
    train.main(configuration.parse(train.Flags, words))
    losses = [row["loss"] for row in events(tmp_path / "run", "train")]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.full
def test_what_comes_along_finds_drawn_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation_script.main(evaluation_script.Flags())["map"] >= 0.95
    assert capsys.readouterr().out.startswith("weights: shapes (comes along")


@pytest.mark.full
def test_it_finds_drawn_shapes(tmp_path: Path) -> None:
    """The run without flags, minutes on a CPU: the record in the README."""
    outcome = train.main(configuration.parse(train.Flags, ["--output_dir", str(tmp_path / "run")]))
    assert outcome.metrics["map"] >= 0.9
