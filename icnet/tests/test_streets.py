"""Drawn streets: the same for a seed, as varied as real cameras, with class shares near those of real streets."""

import dataclasses
import hashlib
from pathlib import Path

from fluid.errors import DataError
from icnet.classes import CITYSCAPES, ID
from icnet.reader import open_pairs, read_pair
from icnet.streets import files, things
from icnet.streets.camera import Camera, Canvas
from icnet.streets.files import write_streets
from icnet.streets.lens import EGO
from icnet.streets.scene import draw_street
from icnet.streets.setting import Setting
from icnet.streets.things import Light

import numpy as np
import pytest

SETTINGS = [Setting.draw(np.random.default_rng((2018, seed))) for seed in range(200)]


@pytest.fixture(scope="module")
def labels() -> list[np.ndarray]:
    """Of some small streets."""
    return [draw_street(seed, 64, 128)[1] for seed in range(40)]


def test_a_seed_gives_one_street() -> None:
    one, again, other = (draw_street(seed, 64, 128) for seed in (3, 3, 4))
    assert one[0] == again[0] and (one[1] == again[1]).all()
    assert hashlib.sha256(one[0]).digest() != hashlib.sha256(other[0]).digest()


# Where the middle nine tenths of 200 streets must reach at least, on both sides.
SPREAD = {
    "horizon": (0.33, 0.50),
    "camera_height": (1.25, 2.1),
    "field_of_view": (48, 88),
    "exposure": (0.8, 1.6),
    "road_width": (7.5, 16.8),
    "contrast": (0.75, 1.1),
    "gamma": (0.95, 1.6),
    "saturation": (0.6, 1.3),
    "vignette": (0.05, 0.4),
    "jpeg_quality": (50, 90),
    "noise": (0.002, 0.018),
    "haze": (100, 750),
    "warmth": (-0.08, 0.08),
    "traffic": (0.2, 0.9),
}
SOMETIMES = {"motion_blur": 0.3, "dirt": 0.2, "bonnet": 0.3, "wet": 0.15, "sharpening": 0.6, "distortion": 0.4}
"""In which share of the streets there is any."""


@pytest.mark.parametrize("name", SPREAD)
def test_what_cameras_differ_in_is_spread(name: str) -> None:
    low, high = SPREAD[name]
    found = np.quantile([getattr(setting, name) for setting in SETTINGS], (0.05, 0.95))
    assert found[0] < low and found[1] > high


@pytest.mark.parametrize("name", SOMETIMES)
def test_what_only_some_have(name: str) -> None:
    share = np.mean([getattr(setting, name) != 0 for setting in SETTINGS])
    assert abs(share - SOMETIMES[name]) < 0.12


def test_every_kind_of_place_and_sky() -> None:
    assert {setting.place for setting in SETTINGS} == {"town", "suburb", "park"}
    assert {setting.sky for setting in SETTINGS} == {"clear", "cloudy", "overcast", "dusk"}
    sideways = np.mean([abs(setting.yaw) > 0.5 for setting in SETTINGS])
    assert 0.08 < sideways < 0.3
    assert np.mean([setting.sun > 0.3 for setting in SETTINGS]) > 0.2
    assert all(np.isfinite(value) for s in SETTINGS for value in dataclasses.astuple(s) if isinstance(value, float))


def test_shares_are_near_those_of_real_streets(labels: list[np.ndarray]) -> None:
    counts = sum(np.bincount(label.reshape(-1), minlength=256) for label in labels)
    share = counts / counts[list(CITYSCAPES.ids)].sum()
    for name, low, high in (
        ("road", 0.2, 0.45), ("building", 0.15, 0.4), ("vegetation", 0.06, 0.25), ("sky", 0.03, 0.2),
        ("car", 0.03, 0.15), ("pole", 0.004, 0.04), ("traffic sign", 0.001, 0.02), ("sidewalk", 0.02, 0.15),
    ):  # fmt: skip
        assert low < share[ID[name]] < high, name
    assert set(np.flatnonzero(counts)) <= {EGO, *CITYSCAPES.ids}


def test_no_surface_has_one_colour() -> None:
    """Neighbouring pixels inside a class differ nearly everywhere."""
    import cv2

    same = []
    for seed in range(12):
        jpeg, label = draw_street(seed, 128, 256)
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
        inside = (label[:, 1:] == label[:, :-1]) & (label[:, 1:] != ID["sky"])
        same.append((np.abs(image[:, 1:] - image[:, :-1]).sum(axis=2) == 0)[inside].mean())
    assert np.median(same) < 0.35


def test_files_in_the_layout_of_cityscapes(tmp_path) -> None:
    write_streets(tmp_path / "streets", (64, 128), {"train": 3, "val": 2}, processes=1)
    train, val = (open_pairs(tmp_path / "streets", part) for part in ("train", "val"))
    assert (len(train), len(val)) == (3, 2) and train.classes == CITYSCAPES
    image, label = read_pair(train, 1)
    assert image.shape == (64, 128, 3) and label.shape == (64, 128) and image.std() > 5
    expected = draw_street(1, 64, 128)[1]
    np.testing.assert_array_equal(label, CITYSCAPES.of_id[expected])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_streets(tmp_path / "file" / "streets", (64, 128), {"train": 1}, processes=1)


def test_examples_are_drawn_alone_and_are_those_of_the_data_set(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLUID_ZOO_CACHE", str(tmp_path))
    for name, value in {"SIZE": (64, 128), "EXAMPLES": 2, "COUNTS": {"train": 1, "val": 3}}.items():
        monkeypatch.setattr(files, name, value)
    alone = files.example_streets()
    assert len(alone) == 2 == len(list(tmp_path.rglob("*.jpg")))
    whole = files.drawn_streets("val")
    assert len(list(whole.rglob("*.jpg"))) == 3
    with pytest.raises(DataError, match="no streets of the part test"):
        files.drawn_streets("test")
    again = files.example_streets()
    assert all(path.startswith(str(whole)) for path in again)
    assert [Path(path).read_bytes() for path in again] == [Path(path).read_bytes() for path in alone]


def test_what_shows_between_twigs_is_not_the_tree() -> None:
    """Thin crowns hardly have labels, dense ones mostly; nothing but what is covered has."""
    camera = Camera(96, 96, 90.0, 2.0, 0.0, 0.0, 0.0)
    shares = []
    for seed in range(12):
        canvas = Canvas(camera, ID["sky"])
        outline, light = np.array([0.0, 3.0, 2.0, 2.0]), Light(np.array([0.0, 1.0, 0.0]), 0.8, 0.2)
        things.foliage(canvas, np.random.default_rng(seed), np.array([0.0, 0.0, 6.0]), outline, light, bare=True)
        tree = canvas.label == ID["vegetation"]
        shares.append(tree.sum() / (canvas.image.sum(axis=2) > 0).sum())
        assert not tree.any() or (canvas.image[tree].sum(axis=1) > 0).mean() > 0.4
    assert min(shares) < 0.1 and max(shares) > 0.6


def test_no_vehicle_stands_in_the_camera() -> None:
    rng = np.random.default_rng(0)
    assert things.Vehicle(rng, "bus", 0.0, 3.0, 0.0).distance() == 0
    beside = things.Vehicle(rng, "bus", 4.0, 3.0, 0.0)
    assert beside.distance() == pytest.approx(4.0 - beside.width / 2)
    ahead = things.Vehicle(rng, "car", 0.0, 9.0, np.pi)
    assert ahead.distance() == pytest.approx(9.0 - ahead.length / 2)
