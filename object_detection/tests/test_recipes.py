"""What users of 2018 write: each flag acts or says in one line why not, and the recipe is that of then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluid import config as configuration
from fluid.schedule import Cosine, Piecewise
from fluid.session import Length
from object_detection import eval as evaluation_script
from object_detection import eval_coco_map, infer, recipes, train

import pytest

NOTE = "has no effect any more"
BOTH = {
    "resize_h": ("300", NOTE),
    "resize_w": ("300", NOTE),
    "mean_value_B": ("127.5", NOTE),
    "mean_value_G": ("127.5", NOTE),
    "mean_value_R": ("127.5", NOTE),
    "nms_threshold": ("0.4", {"iou": 0.4}),
    "dataset": ("pascalvoc", NOTE),
    "use_gpu": ("False", {"device": "cpu"}),
    "image_shape": ("3,300,300", NOTE),
    "mean_BGR": ("127.5,127.5,127.5", NOTE),
}
MEASURING = {
    **BOTH,
    "batch_size": ("16", {"test_batch_size": 16}),
    "ap_version": ("11point", {"ap_version": "11point"}),
    "data_dir": ("data/pascalvoc", {"data_dir": Path("data/pascalvoc")}),
    "test_list": ("test.txt", {"split": "test.txt"}),
    "model_dir": ("model/best", {"pretrained_model": "model/best"}),
    "use_multiprocess": ("True", NOTE),
}
TABLE: dict[Any, dict[str, tuple[str, Any]]] = {
    train: {
        **BOTH,
        "learning_rate": ("0.002", {"lr": 0.002}),
        "num_passes": ("7", {"num_epochs": 7}),
        "epoc_num": ("7", {"num_epochs": 7}),
        "parallel": ("True", NOTE),
        "apply_distort": ("False", {"apply_distort": False}),
        "apply_expand": ("False", {"apply_expand": False}),
        "is_toy": ("5", {"max_images": 5}),
        "for_model_ce": ("False", NOTE),
        "enable_ce": ("False", NOTE),
        "skip_batch_num": ("5", NOTE),
        "iterations": ("90", {"max_steps": 90}),
        "batch_size": ("64", {"batch_size": 64}),
        "ap_version": ("11point", {"ap_version": "11point"}),
        "data_dir": ("data/pascalvoc", {"data_dir": Path("data/pascalvoc")}),
        "model_save_dir": ("model", {"output_dir": Path("model")}),
        "pretrained_model": (
            "pretrained/ssd_mobilenet_v1_coco/",
            {"pretrained_model": "pretrained/ssd_mobilenet_v1_coco/"},
        ),
        "use_multiprocess": ("True", NOTE),
    },
    evaluation_script: MEASURING,
    eval_coco_map: {**MEASURING, "ap_version": ("cocoMAP", {"ap_version": "cocoMAP"})},
    infer: {
        **BOTH,
        "image_path": ("dog.jpg", {"image_path": "dog.jpg"}),
        "model_dir": ("model/best", {"pretrained_model": "model/best"}),
        "confs_threshold": ("0.4", {"conf": 0.4}),
    },
}
"""Script -> flag of 2018 -> (a value, what it does to the flags of today or NOTE)."""


def parsed(script: Any, words: Sequence[str]) -> Any:
    return configuration.parse(script.Flags, words, aliases=script.ALIASES, retired=script.RETIRED)


@pytest.mark.parametrize(
    ("script", "flag"),
    [pytest.param(script, flag, id=f"{script.__name__} {flag}") for script, flags in TABLE.items() for flag in flags],
)
def test_a_flag_of_2018(script: Any, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    value, effect = TABLE[script][flag]
    flags, usual = parsed(script, [f"--{flag}", value]), parsed(script, [])
    notes = capsys.readouterr().err.splitlines()
    if effect == NOTE:
        assert len(notes) == 1 and f"--{flag} {NOTE}: " in notes[0]
        assert flags == usual
    else:
        assert notes == []
        assert {name: getattr(flags, name) for name in effect} == effect


def test_every_script_of_2018_is_there() -> None:
    folder = Path(train.__file__).parent
    assert all((folder / f"{name}.py").is_file() for name in ("train", "eval", "eval_coco_map", "infer", "reader"))
    assert (eval_coco_map.Flags().iou, eval_coco_map.Flags().ap_version) == (0.5, "cocoMAP")


def test_the_recipe_sets_what_no_flag_names() -> None:
    flags = recipes.applied(parsed(train, ["--recipe", "2018", "--batch_size", "32"]))
    assert (flags.optimizer, flags.momentum_rate, flags.l2_decay, flags.lr) == ("rmsprop", 0.0, 5e-5, 0.001)
    assert (flags.num_epochs, flags.batch_size, flags.ap_version, flags.conv_lr) == (120, 32, "11point", 0.1)
    assert {"recipe", "batch_size", "lr"} <= configuration.named(flags)
    assert recipes.applied(parsed(train, ["--data", "trees"])) == parsed(train, ["--data", "trees"])
    shapes = recipes.applied(parsed(train, ["--lr", "0.5"]))
    assert (shapes.model, shapes.image_size, shapes.lr) == ("ssd_mobilenet_v1_x0_25", 96, 0.5)
    going_on = parsed(train, ["--checkpoint", "output"])
    assert recipes.applied(going_on) is going_on
    augment = train.augmentation(flags)
    assert (augment.distort, augment.expand, augment.expand_ratio, augment.flip) == (0.5, 0.5, 4.0, 0.5)


def test_its_learning_rate() -> None:
    flags = recipes.applied(parsed(train, ["--recipe", "2018"]))
    voc, coco = (recipes.learning_rate(flags, 300, coco=coco) for coco in (False, True))
    assert isinstance(voc, Piecewise) and isinstance(coco, Piecewise)
    assert [voc(epoch * 300) for epoch in (0, 40, 60, 80, 100)] == pytest.approx([1e-3, 5e-4, 2.5e-4, 1e-4, 1e-5])
    assert voc(40 * 300 - 1) == 1e-3
    assert [coco(epoch * 300) for epoch in (0, 12, 19)] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    other = recipes.applied(parsed(train, ["--recipe", "2018", "--lr_strategy", "constant"]))
    assert recipes.learning_rate(other, 300, coco=False)(10**6) == 1e-3
    usual = recipes.applied(parsed(train, ["--recipe", "2018", "--lr_strategy", "cosine_decay"]))
    for named in (usual, configuration.from_dict(train.Flags, configuration.to_dict(usual))):
        assert isinstance(recipes.learning_rate(named, 300, coco=False), Cosine)
    early = recipes.applied(parsed(train, ["--recipe", "2018", "--step_epochs", "30", "60", "90"]))
    assert recipes.learning_rate(early, 300, coco=False)(30 * 300) == pytest.approx(1e-4)


def test_its_lines() -> None:
    said: list[str] = []
    listen = recipes.lines_of_2018(said.append, Length(10, 100, 10, 1, batch_size=32))
    listen("train", 1, {"loss": 9.5, "samples_per_second": 64.0})
    listen("train", 20, {"loss": 4.25, "samples_per_second": 128.0})
    listen("eval", 20, {"map": 0.5, "ap/tree": 0.5})
    listen("eval", 30, {"AP": 0.25})
    listen("save", 30, {})
    assert said == [
        "Pass 0, batch 0, loss 9.500000, time 0.50000",
        "Pass 1, batch 9, loss 4.250000, time 0.25000",
        "Pass 1, test map 0.500000",
        "Pass 2, test map 0.250000",
    ]
