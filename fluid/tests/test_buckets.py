"""Buckets of lengths: every sample once, few shapes, the same for all processes."""

import random

from fluid.buckets import Buckets
from fluid.errors import DataError

import numpy as np
import pytest

EDGES = (8, 16, 32, 64)


def buckets_of(lengths: list[int] | np.ndarray, **options) -> Buckets:
    return Buckets(np.asarray(lengths), EDGES, **{"batch_size": 256, **options})


@pytest.mark.parametrize(
    "by, batch_size, multiple", [("size", 256, 1), ("size", 1000, 3), ("rows", 8, 1), ("rows", 9, 4)]
)
@pytest.mark.parametrize("pool_size", [0, 50, 500])
def test_an_epoch_holds_every_sample_in_the_shapes_of_the_blanks(by, batch_size, multiple, pool_size):
    seed = random.randrange(2**31)
    print(f"{seed=}")
    lengths = np.random.default_rng(seed).integers(1, 65, 500)
    buckets = buckets_of(lengths, batch_size=batch_size, multiple=multiple, by=by)
    shapes = buckets.blanks(lambda rows, edge: (rows, edge))
    plan = buckets.training_plan(seed=seed, pool_size=pool_size)
    batches = plan(3)
    seen = np.bincount(np.concatenate(batches), minlength=500)
    # Only the very last batch is filled up, with samples drawn once more.
    assert seen.min() == 1 and seen.sum() - 500 < buckets.rows(EDGES[-1])
    for batch in batches:
        edge = buckets.edge(batch)
        assert lengths[batch].max() <= edge and (len(batch), edge) in shapes
        assert len(batch) % multiple == 0
        assert len(batch) == multiple or len(batch) * (edge if by == "size" else 1) <= batch_size
    assert all(np.array_equal(one, other) for one, other in zip(batches, plan(3), strict=True))
    assert not all(np.array_equal(one, other) for one, other in zip(batches, plan(4), strict=True))


def test_padding_is_less_than_without_buckets():
    lengths = np.random.default_rng(1).integers(1, 65, 2000)
    buckets = buckets_of(lengths, batch_size=1024)
    padded = sum(len(batch) * buckets.edge(batch) for batch in buckets.training_plan(seed=1)(0))
    assert lengths.sum() < padded < 1.4 * lengths.sum() < 2000 * 64


def test_rows_are_multiples_of_eight_where_that_costs_little():
    buckets = buckets_of([1], batch_size=4 * 64 * 8 + 63)
    assert [buckets.rows(edge) for edge in EDGES] == [256, 128, 64, 32]
    assert buckets_of([1], batch_size=500).rows(8) == 62
    assert buckets_of([1], batch_size=5).rows(64) == 1
    assert buckets_of([1], batch_size=600, multiple=6).rows(8) == 72


def test_the_edge_of_a_training_batch_is_the_one_that_it_was_filled_for():
    lengths = [5] * 40 + [30]
    buckets = buckets_of(lengths)
    assert buckets.edge(np.arange(32)) == 8
    assert buckets.edge(np.arange(16)) == 16  # 16 short samples were left over for the next bucket
    assert buckets.edge(np.arange(5)) == 8
    assert buckets.edge(np.array([0, 40])) == 32
    by_rows = buckets_of(lengths, batch_size=16, by="rows")
    assert [by_rows.edge(np.arange(rows)) for rows in (16, 5)] == [8, 8]


def test_an_evaluation_holds_every_sample_once_with_others_of_its_length():
    lengths = np.random.default_rng(1).integers(1, 65, 101)
    batches = buckets_of(lengths).evaluation_plan(16)(0)
    assert [len(batch) for batch in batches] == [16] * 6 + [5]
    assert (np.diff(lengths[np.concatenate(batches)]) >= 0).all()
    assert set(np.concatenate(batches).tolist()) == set(range(101))


def test_blanks_are_one_process_share_of_the_training_shapes():
    buckets = buckets_of([1], multiple=2)
    assert buckets.blanks(lambda rows, edge: (rows, edge), shards=2) == [(16, 8), (8, 16), (4, 32), (2, 64)]


def test_buckets_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="a sample of length 65 is longer than the last edge, 64"):
        buckets_of([3, 65])
    for wrong in ({"edges": (16, 8)}, {"edges": ()}, {"multiple": 0}):
        with pytest.raises(ValueError, match="edges must ascend"):
            Buckets(**{"lengths": np.array([1]), "edges": EDGES, "batch_size": 8, **wrong})
    with pytest.raises(DataError, match="a batch size of 0 makes no batch"):
        buckets_of([3], batch_size=0)
    with pytest.raises(DataError, match="a pool of -1 samples"):
        buckets_of([3]).training_plan(seed=0, pool_size=-1)
