"""Random changes of images: against Pillow's, within their ranges, the same for the same random numbers."""

from image_classification import augment
from image_classification.augment import CHANGES, Augment, erased, finished, rotated, sharpness

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

RNG = np.random.default_rng(5)
# Smooth, so that two ways of interpolating agree; of uneven range, so that there is something to stretch.
IMAGE = np.asarray(
    Image.fromarray(RNG.integers(30, 190, (9, 12, 3), np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
)


def pillow(operation) -> np.ndarray:
    return np.asarray(operation(Image.fromarray(IMAGE)))


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (augment.autocontrast(IMAGE), ImageOps.autocontrast),
        (augment.equalize(IMAGE), ImageOps.equalize),
        (augment.solarize(IMAGE, 128), ImageOps.solarize),
        (augment.posterize(IMAGE, 5), lambda image: ImageOps.posterize(image, 5)),
        (augment.brightness(IMAGE, 1.4), lambda image: ImageEnhance.Brightness(image).enhance(1.4)),
        (augment.contrast(IMAGE, 0.4), lambda image: ImageEnhance.Contrast(image).enhance(0.4)),
        (augment.saturation(IMAGE, 1.7), lambda image: ImageEnhance.Color(image).enhance(1.7)),
        (sharpness(IMAGE, 0.0), lambda image: image.filter(ImageFilter.SMOOTH)),
        (sharpness(IMAGE, 1.8), lambda image: ImageEnhance.Sharpness(image).enhance(1.8)),
        (rotated(IMAGE, 12), lambda image: image.rotate(12, Image.Resampling.BILINEAR)),
        (
            augment.moved(IMAGE, [[1, 0, 0], [0, 1, 7]]),
            lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, 7)),
        ),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray) else None,
)
def test_changes_are_those_of_pillow(ours, theirs):
    difference = np.abs(ours.astype(int) - pillow(theirs).astype(int))
    # At the edge of what is uncovered the two libraries interpolate differently.
    assert np.quantile(difference, 0.95) <= 2
    assert not np.array_equal(ours, IMAGE)


def test_every_change_keeps_size_and_does_nothing_without_strength():
    for number, change in enumerate(CHANGES):
        for level in (-1.0, 1.0):
            assert change(IMAGE, level).shape == IMAGE.shape and change(IMAGE, level).dtype == np.uint8
        if number not in (1, 2):  # stretching has no strength
            assert np.abs(change(IMAGE, 0.0).astype(int) - IMAGE).max() <= 1, number
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert all(change(flat, 0.0).min() >= 76 for change in CHANGES)


def test_erasing_fills_a_rectangle_of_the_share_asked_for():
    shares = []
    for seed in range(60):
        image = erased(np.zeros((60, 80, 3), np.uint8), np.random.default_rng(seed))
        rows, columns = np.flatnonzero(image.any(axis=(1, 2))), np.flatnonzero(image.any(axis=(0, 2)))
        filled = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shares.append(filled.shape[0] * filled.shape[1] / (60 * 80))
        assert filled.any(axis=2).mean() > 0.99
    assert 0.01 < min(shares) < 0.08 and 0.25 < max(shares) < 0.36


def test_what_is_random_follows_from_the_generator():
    every = Augment(randaugment=2, randaugment_magnitude=20, color_jitter=True, random_erasing=0.5)
    one, other, third = (finished(IMAGE.copy(), every, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
    erased_ones = [
        not np.array_equal(
            finished(IMAGE.copy(), Augment(flip=False, random_erasing=0.25), np.random.default_rng(seed)), IMAGE
        )
        for seed in range(80)
    ]
    assert 8 < sum(erased_ones) < 34
