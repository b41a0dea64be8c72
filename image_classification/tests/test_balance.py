"""Unequal classes: what each counts, how often each is drawn; and mixtures of images."""

from fluid.config import parse
from fluid.data import Batch, training_batches
from fluid.errors import DataError
from image_classification import train
from image_classification.balance import Repeated, balanced_plan, class_weights
from image_classification.mixing import SHARE, MixingFlags, mixed, own_share

import numpy as np
import pytest

LABELS = np.repeat([0, 1, 3], [30, 6, 4])


def test_balanced_weights_make_classes_count_alike():
    weights = class_weights("balanced", LABELS, 4, [])
    counts = np.bincount(LABELS, minlength=4)
    np.testing.assert_allclose((weights * counts)[[0, 1, 3]], 40 / 3, rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1) and weights.dtype == np.float32
    assert class_weights(None, LABELS, 4, []) is None


def test_weights_from_a_file_by_name_or_number(tmp_path):
    path = tmp_path / "w.txt"
    path.write_text("\ufeffold cats 3\n\n1 0.5\n", encoding="utf-8")
    names = ["dogs", "mice", "old cats, felines", "owls"]
    weights = class_weights(str(path), LABELS, 4, names)
    np.testing.assert_allclose(weights / weights[0], [1, 0.5, 3, 1])
    assert weights[LABELS].mean() == pytest.approx(1)
    for text, message in (
        ("dogs\n", r"w\.txt:1: each line must be"),
        ("dogs 1\nmice -2", r"w\.txt:2: each line must be"),
        ("dogs nan", r"w\.txt:1: each line must be"),
        ("birds 2", r"w\.txt:1: there is no class birds; the classes are dogs, mice"),
        ("7 2", r"there is no class 7"),
        ("0 0\n1 0\nowls 0", "weight of 0 to every class"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            class_weights(str(path), LABELS, 4, names)
    with pytest.raises(DataError, match="no such file"):
        class_weights(str(tmp_path / "none"), LABELS, 4, names)


def test_a_run_remembers_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse(train.Flags, ["--class_weights", "w.txt"]).class_weights == str(tmp_path / "w.txt")
    assert parse(train.Flags, ["--class_weights", "balanced"]).class_weights == "balanced"


class Numbers:
    """Samples that tell their index and one of their random numbers."""

    def __len__(self) -> int:
        return len(LABELS)

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"index": np.int64(index), "random": rng.random()}


def test_balanced_batches_hold_every_class_alike_and_change_repeated_samples_anew():
    plan = balanced_plan(LABELS, 10, 7)
    epochs = [np.concatenate(plan(epoch)) for epoch in (0, 1)]
    assert all(len(epoch) == 40 for epoch in epochs) and not np.array_equal(*epochs)
    np.testing.assert_array_equal(np.concatenate(plan(0)), epochs[0])
    counts = np.bincount(LABELS[epochs[0] % 40])
    assert counts[[0, 1, 3]].tolist() in ([14, 13, 13], [13, 14, 13], [13, 13, 14])
    every = np.bincount(epochs[0] % 40, minlength=40)
    assert every[30:36].min() >= 2 and every[36:].min() >= 3 and every[:30].max() == 1
    with training_batches(Repeated(Numbers()), 10, seed=7, plan=plan) as batches:
        drawn = [next(batches).feed for _ in range(4)]
    indices = np.concatenate([feed["index"] for feed in drawn])
    assert set(indices) == set(epochs[0] % 40)
    assert len({float(value) for feed in drawn for value in feed["random"]}) == 40


def test_shares_of_mixtures():
    rng = np.random.default_rng(1)
    flat = own_share(MixingFlags(use_mixup=True), rng, 20, 30)
    assert flat.shape == (1, 1) and 0 <= flat.min() <= 1
    shares = [own_share(MixingFlags(use_cutmix=True), rng, 20, 30) for _ in range(400)]
    assert all(share.shape == (20, 30) and set(np.unique(share)) <= {0.0, 1.0} for share in shares)
    # A part of the rectangle lies outside on average, so more than half is the image's own.
    assert 0.55 < np.mean(shares) < 0.75
    for share in shares:
        rows, columns = np.flatnonzero((share == 0).any(1)), np.flatnonzero((share == 0).any(0))
        if len(rows):
            assert (share[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all()
    both = [own_share(MixingFlags(use_mixup=True, use_cutmix=True), rng, 20, 30) for _ in range(200)]
    assert 60 < sum(len(np.unique(share)) == 1 and 0 < share[0, 0] < 1 for share in both) < 140


def test_mixtures_follow_from_the_position():
    batches = [Batch({"image": np.zeros(2)}, 2, 0, index) for index in range(3)]
    flags = MixingFlags(use_cutmix=True)
    one, other = ([batch.feed[SHARE] for batch in mixed(iter(batches), flags, 5, 8, 8)] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one[0], one[1])
    assert SHARE not in next(mixed(iter(batches), MixingFlags(), 5, 8, 8)).feed
