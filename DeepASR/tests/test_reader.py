"""The reader: pieces of few lengths, labels at their frames, augmentation that keeps them there."""

from pathlib import Path
from types import SimpleNamespace

from DeepASR.augmentation import AugmentationFlags, another_pace, another_voice, for_one, masked
from DeepASR.corpus import Part
from DeepASR.reader import LONGER_BY, LONGEST_UNCUT, SHORTEST_PIECE, Utterances, cut, edges_of
from DeepASR.recogniser import Normalisation
from DeepASR.transforms import DELAY, NOT_COUNTED
from fluid.data import training_batches
from fluid.errors import DataError, UserError

import numpy as np
import pytest

DIM = 8
PLAIN = Normalisation((0.0,) * 3 * DIM, (1.0,) * 3 * DIM)


def part(lengths: dict[str, int], *, labelled: bool = True) -> Part:
    """Utterances whose first feature and label are the number of the frame."""
    features = {
        name: np.tile(np.arange(frames, dtype=np.float32)[:, None], (1, DIM)) for name, frames in lengths.items()
    }
    labels = {name: np.arange(frames) for name, frames in lengths.items()} if labelled else {}
    return Part(
        Path("made"), features, lengths, dict.fromkeys(lengths, "one"), {name: name[0] for name in lengths}, labels
    )


def test_long_utterances_are_cut_and_none_of_their_frames_is_lost() -> None:
    rng = np.random.default_rng()
    assert cut(LONGEST_UNCUT, LONGEST_UNCUT, rng) == [(0, LONGEST_UNCUT)]
    pieces = cut(3000, LONGEST_UNCUT, rng)
    assert [end for _, end in pieces] == [start for start, _ in pieces[1:]] + [3000]
    assert all(SHORTEST_PIECE <= end - start < SHORTEST_PIECE + LONGER_BY for start, end in pieces[:-1])


def test_lengths_to_pad_to_are_few() -> None:
    lengths = np.random.default_rng().integers(3, 2000, 500)
    edges = edges_of(lengths)
    assert len(edges) <= 4 and edges[-1] >= lengths.max() and all(edge % 16 == 0 for edge in edges)
    assert edges_of(np.array([7])) == (16,)
    given = Utterances(part({"a": 20, "b": 33}), PLAIN, batch_size=1, lengths=(64, 30))
    assert given.buckets.edges == (30, 64)
    with pytest.raises(UserError, match="--lengths: 38 frames are needed"):
        Utterances(part({"a": 20, "b": 33}), PLAIN, batch_size=1, lengths=(32,))


def test_a_batch_shows_frames_among_their_neighbours_and_labels_late() -> None:
    source = Utterances(part({"a1": 20, "a2": 30}), PLAIN, batch_size=2)
    samples = [source.load(index, np.random.default_rng(0)) for index in (0, 1)]
    allocate = lambda fields: {name: np.full(shape, 7, dtype) for name, (shape, dtype) in fields.items()}  # noqa: E731
    feed = source.collate(samples, np.array([0, 1]), allocate)
    assert feed["length"].tolist() == [20 + DELAY, 30 + DELAY] and feed["feature"].shape == (2, 48, 3, 11, DIM)
    assert (feed["label"][0, :DELAY] == NOT_COUNTED).all() and (feed["label"][0, 25:] == NOT_COUNTED).all()
    np.testing.assert_array_equal(feed["label"][0, DELAY:25], np.arange(20))
    # Of frame 9: what was heard from frame 4 to 14, and that features rise by one.
    np.testing.assert_array_equal(feed["feature"][0, 9, 0, :, 0], np.arange(4, 15))
    np.testing.assert_allclose(feed["feature"][0, 9, 1, :, 0], 1, atol=1e-6)
    assert not feed["feature"][0, 25:].any()


def test_pieces_of_an_utterance_are_parts_of_the_whole() -> None:
    utterances = part({"a": 1500})
    whole = Utterances(utterances, PLAIN, batch_size=1, uncut=None)
    pieces = Utterances(utterances, PLAIN, batch_size=1, seed=int(np.random.default_rng().integers(100)))
    everything = whole.load(0, np.random.default_rng(0))
    assert len(pieces) > 3
    for number, (_, start, end) in enumerate(pieces.pieces):
        piece = pieces.load(number, np.random.default_rng(0))
        np.testing.assert_array_equal(piece["x"], everything["x"][start : end + 10])
        np.testing.assert_array_equal(piece["label"], everything["label"][start:end])


def test_what_has_no_labels_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match=r"made/ali.gz: lacks a1"):
        Utterances(part({"a1": 20}, labelled=False), PLAIN, batch_size=1)


def test_speakers_are_left_out() -> None:
    everybody = part({"a1": 20, "b1": 20, "a2": 20})
    assert list(everybody.without(["a"])) == ["b1"] and list(everybody.of(["a"])) == ["a1", "a2"]
    with pytest.raises(DataError, match="has no speaker z"):
        everybody.without(["z"])


def test_another_pace_keeps_labels_at_their_frames() -> None:
    rng = np.random.default_rng()
    flags = AugmentationFlags(speed=0.2)
    features, labels = np.tile(np.arange(100.0)[:, None], (1, DIM)), np.arange(100)
    lengths = set()
    for _ in range(30):
        slower, moved = another_pace(features, labels, flags, rng)
        np.testing.assert_allclose(slower[:, 0], moved, atol=0.5001)
        lengths.add(len(moved))
    assert min(lengths) >= 83 and max(lengths) <= 125 and len(lengths) > 5


def test_some_utterances_are_not_stretched() -> None:
    rng = np.random.default_rng()
    flags = AugmentationFlags(speed=0.2, warp=0.1, volume=6, time_masks=1)
    drawn = [for_one(flags, rng) for _ in range(400)]
    kept = [one for one in drawn if one != flags]
    assert 90 < len(kept) < 230
    assert {(one.speed, one.warp, one.volume, one.time_masks) for one in kept} == {(0, 0, 6, 1)}


def test_each_change_changes_what_it_says() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, DIM)).astype(np.float32)
    louder = another_voice(features, AugmentationFlags(volume=10), rng)
    assert np.ptp(louder - features) < 1e-5 and not np.array_equal(louder, features)
    swelling = another_voice(features, AugmentationFlags(swell=5), rng) - features
    assert np.ptp(swelling, axis=1).max() < 1e-5 and np.ptp(swelling[:, 0]) > 0.5
    assert np.abs(np.diff(swelling[:, 0])).max() < 0.6, "it changes little from frame to frame"
    microphone = another_voice(features, AugmentationFlags(microphone=6), rng) - features
    assert np.ptp(microphone, axis=0).max() < 1e-5 and np.abs(microphone[0]).max() > 0.3
    noisy = another_voice(features, AugmentationFlags(noise=1), rng)
    assert (noisy >= features).all() and (noisy > features).any()
    peak = np.zeros((1, DIM))
    peak[0, 4] = 1
    assert {int(another_voice(peak, AugmentationFlags(warp=0.3), rng).argmax()) for _ in range(40)} >= {3, 4, 5}
    hidden = masked(np.ones((60, 3 * DIM)), AugmentationFlags(time_masks=1, frequency_masks=1), rng)
    assert 0 < (hidden == 0).mean() < 0.7
    np.testing.assert_array_equal(another_voice(features, AugmentationFlags(), rng), features)


def test_augmented_batches_fit_their_lengths_and_come_again() -> None:
    flags = AugmentationFlags(speed=0.2, warp=0.1, volume=6, microphone=6, noise=0.5, time_masks=1, frequency_masks=1)
    lengths = {f"a{number}": int(frames) for number, frames in enumerate(np.random.default_rng().integers(9, 90, 40))}
    source = Utterances(part(lengths), PLAIN, batch_size=4, augmentation=flags)
    plan = source.buckets.training_plan(seed=1)

    def read(start: int) -> SimpleNamespace:
        with training_batches(source, 4, seed=1, start=start, num_epochs=2, plan=plan) as batches:
            return SimpleNamespace(feeds=[batch.feed for batch in batches])

    feeds = read(0).feeds
    assert {feed["feature"].shape[1] for feed in feeds} <= set(source.buckets.edges)
    for one, other in zip(feeds[-3:], read(len(feeds) - 3).feeds, strict=True):
        np.testing.assert_array_equal(one["feature"], other["feature"])
