"""The promises of fluid.data: the same batches in every way to get them, and clear ends when something breaks."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from fluid import engine as engines
from fluid import workers as pools
from fluid.data import (
    Batch,
    batches_per_epoch,
    evaluation_batches,
    shuffled_plan,
    training_batches,
    with_choices,
)
from fluid.errors import DataError
from fluid.interface import Input
from fluid.program import build
from fluid.tests import data_sources
from fluid.tests.data_sources import (
    Careless,
    Crops,
    Dice,
    Environment,
    Failing,
    Lines,
    Maps,
    Numbers,
    Placed,
    Slow,
    Stuck,
    Tape,
    TornTape,
    Unloadable,
    WholeWords,
    Words,
)
from fluid.workers import _anonymous_file

import numpy as np
import paddle
import pytest

ROOT = Path(__file__).resolve().parents[2]


def read(source, batch_size=8, **options) -> list[Batch]:
    options = {"seed": 1, "num_epochs": 3} | options
    with training_batches(source, batch_size, **options) as batches:
        return list(batches)


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert (a.index, a.epoch, a.size, a.bad) == (b.index, b.epoch, b.size, b.bad)
        assert a.feed.keys() == b.feed.keys()
        for name in a.feed:
            assert a.feed[name].dtype == b.feed[name].dtype
            np.testing.assert_array_equal(a.feed[name], b.feed[name])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_running, pids))


# The same batches


def test_any_number_of_workers_gives_the_same_batches_from_any_position():
    seed = random.randrange(2**31)
    start = random.randrange(36)
    print(f"{seed=} {start=}")
    source = Numbers(100, broken=(3, 50))
    expected = read(source, seed=seed)
    assert len(expected) == 36
    assert [batch.index for batch in expected] == list(range(36))
    assert sum(map(len, [batch.bad for batch in expected])) >= 4
    for workers in (1, 3):
        assert_same(read(source, seed=seed, num_workers=workers), expected)
    for workers in (0, 2):
        assert_same(read(source, seed=seed, num_workers=workers, start=start), expected[start:])


def test_an_epoch_holds_each_sample_once_and_the_next_another_order():
    batches = read(Numbers(24), num_epochs=2)
    order = [np.concatenate([b.feed["index"] for b in batches if b.epoch == epoch]) for epoch in (0, 1)]
    assert all(np.array_equal(np.sort(epoch), np.arange(24)) for epoch in order)
    assert not np.array_equal(order[0], order[1])
    assert not np.array_equal(order[0], np.concatenate([b.feed["index"] for b in read(Numbers(24), seed=2)[:3]]))
    assert batches_per_epoch(Numbers(27), 8) == 3 == len(read(Numbers(27), num_epochs=1))


def test_random_numbers_of_a_sample_depend_on_seed_epoch_and_sample_only():
    def noise(**options) -> dict[int, bytes]:
        first_epoch = [b for b in read(Numbers(24), **options) if b.epoch == options.get("epoch", 0)]
        return {int(i): n.tobytes() for b in first_epoch for i, n in zip(b.feed["index"], b.feed["noise"])}

    assert noise(batch_size=8) == noise(batch_size=3, num_workers=1)
    assert noise()[5] != noise(seed=2)[5]
    first, second = (b.feed["noise"][b.feed["index"] == 5].tobytes() for b in read(Numbers(8), num_epochs=2))
    assert first != second
    assert len(set(noise().values())) == 24


def test_goes_on_for_ever_by_default():
    with training_batches(Numbers(8), 8, seed=0, start=1_000_000) as batches:
        batch = next(batches)
    assert (batch.index, batch.epoch) == (1_000_000, 1_000_000)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_together_are_the_batch(workers):
    whole = read(Numbers(50, broken=(7,)))
    parts = [read(Numbers(50, broken=(7,)), shard=(i, 4), num_workers=workers) for i in range(4)]
    for batch, *shards in zip(whole, *parts, strict=True):
        for name in batch.feed:
            np.testing.assert_array_equal(np.concatenate([shard.feed[name] for shard in shards]), batch.feed[name])
        assert [message for shard in shards for message in shard.bad] == batch.bad


def test_shards_must_divide_the_batch():
    with pytest.raises(ValueError, match="cannot be divided into 3 equal shards"):
        read(Numbers(50), shard=(0, 3))
    with pytest.raises(ValueError, match="not one of 0..1"):
        read(Numbers(50), shard=(2, 2))


def length_buckets(epoch: int) -> list[np.ndarray]:
    """Batches of 4 samples of one length; the plan of an epoch starts at another sample."""
    order = (np.arange(70) + epoch) % 70
    return [part for n in range(7) for part in np.array_split(order[order % 7 == n][:8], 2)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_makes_length_buckets(workers):
    batches = read(Words(70), plan=length_buckets, num_workers=workers)
    assert len(batches) == 3 * 14
    for batch in batches:
        lengths = set((batch.feed["index"] % 7 + 1).tolist())
        assert lengths == {batch.feed["word"].shape[1]}
    assert_same(read(Words(70), plan=length_buckets, start=17), batches[17:])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_read_whole_are_those_of_single_samples(workers):
    assert_same(read(WholeWords(70), num_workers=workers), read(Words(70)))
    for whole, single in zip(evaluation_batches(WholeWords(21), 8), evaluation_batches(Words(21), 8), strict=True):
        assert_same([whole], [single])


def test_with_a_plan_a_broken_sample_is_replaced_from_its_own_batch():
    for batch in read(Words(70, broken=(15,)), plan=length_buckets):
        assert len(set((batch.feed["index"] % 7).tolist())) == 1
        assert 15 not in batch.feed["index"]


def test_a_plan_without_batches_is_refused():
    with pytest.raises(ValueError, match="no batch in epoch 0"):
        read(Numbers(8), plan=lambda epoch: [])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_collated_in_the_memory_that_processes_share(workers):
    for batch in read(Placed(16), num_workers=workers):
        assert set(batch.feed["shared"].tolist()) == {workers > 0}


@pytest.mark.parametrize("how", ["never", "twice", "copied"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_is_not_where_it_should_be_is_refused(how, workers):
    with pytest.raises(ValueError, match="Careless.collate must call `allocate` once"):
        read(Careless(16, how), num_workers=workers)


def test_processes_pad_their_shares_alike():
    lines = Lines(np.random.default_rng(0).integers(20, 400, 64))
    parts = [read(lines, num_epochs=1, shard=(number, 2)) for number in range(2)]
    assert len(parts[0]) == 8
    for batch, one, other in zip(read(lines, num_epochs=1), *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([one.feed["image"], other.feed["image"]]), batch.feed["image"])
    parts = [list(evaluation_batches(lines, 24, shard=(number, 2))) for number in range(2)]
    assert [[batch.feed["image"].shape for batch in part] for part in parts] == [[(12, 8, 400)] * 3] * 2
    assert [[batch.size for batch in part] for part in parts] == [[12, 12, 12], [12, 12, 4]]


# Choices


def sides(rng: np.random.Generator) -> int:
    return int(rng.integers(2, 30))


@pytest.mark.parametrize("method", ["load", "collate", "load_all"])
def test_a_batch_has_the_choice_made_for_it(method):
    def run(**options) -> list[Batch]:
        return read(Crops(40, method), plan=with_choices(shuffled_plan(40, 8, seed=1), sides, seed=1), **options)

    batches = run()
    plain = read(Numbers(40))
    shapes = [batch.feed["image"].shape for batch in batches]
    assert len({shape[1:] for shape in shapes}) > 5
    for batch, other in zip(batches, plain, strict=True):
        assert batch.feed["image"][:, 0, 0].tolist() == other.feed["index"].tolist()
    assert_same(run(num_workers=2, start=7), batches[7:])
    for whole, *shards in zip(batches, *(run(shard=(number, 2)) for number in range(2)), strict=True):
        np.testing.assert_array_equal(np.concatenate([s.feed["image"] for s in shards]), whole.feed["image"])
    other = with_choices(shuffled_plan(40, 8, seed=1), sides, seed=2)
    assert [batch.feed["image"].shape for batch in read(Crops(40, method), plan=other)] != shapes


def test_an_evaluation_plan_may_choose_too():
    planned = [(np.array([2, 0]), 5), (np.array([1]), 7)]
    batches = list(evaluation_batches(Crops(3, "load"), 2, plan=lambda epoch: planned))
    assert [batch.feed["image"].shape for batch in batches] == [(2, 5, 5), (2, 7, 7)]
    assert [batch.size for batch in batches] == [2, 1]


# Endless sources and streams


@pytest.mark.parametrize("workers", [0, 2])
def test_an_endless_source_has_epochs_and_random_access(workers):
    expected = read(Dice(), epoch_length=20)
    assert [(batch.index, batch.epoch) for batch in expected] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]
    assert [batch.feed["index"].tolist() for batch in expected[:2]] == [[*range(8)], [*range(8, 16)]]
    assert len({batch.feed["pips"].tobytes() for batch in expected}) == 6
    assert_same(read(Dice(), epoch_length=20, num_workers=workers, start=3), expected[3:])
    with training_batches(Dice(), 8, seed=1, epoch_length=20, start=1_000_001) as batches:
        assert next(batches).epoch == 500_000
    shards = zip(
        *(read(Dice(), epoch_length=20, num_workers=workers, shard=(part, 4)) for part in range(4)), strict=True
    )
    for whole, parts in zip(expected, shards, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.feed["pips"] for part in parts]), whole.feed["pips"])


def test_who_knows_the_length_of_an_epoch():
    with pytest.raises(ValueError, match="epoch_length must say how many samples of Dice are an epoch"):
        read(Dice())
    with pytest.raises(ValueError, match="epoch_length must say how many samples of Tape are an epoch"):
        read(Tape(100), num_epochs=2)
    with pytest.raises(ValueError, match="for a source that has no length"):
        read(Numbers(20), epoch_length=10)
    with pytest.raises(DataError, match="7 training samples cannot fill one batch of 8"):
        read(Dice(), epoch_length=7)
    with pytest.raises(ValueError, match="a stream has an order of its own"):
        read(Tape(100), plan=shuffled_plan(100, 8, seed=1))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_is_read_in_order_and_begins_anew_with_each_epoch(workers):
    def run(**options) -> list[Batch]:
        batches = read(Tape(None), epoch_length=20, **options)
        pids = {pid for batch in batches for pid in batch.feed.pop("pid").tolist()}
        assert len(pids) == 1 and (os.getpid() in pids) == (options.get("num_workers", 0) == 0)
        return batches

    expected = run()
    assert [batch.feed["index"].tolist() for batch in expected[2:4]] == [[*range(8)], [*range(8, 16)]]
    assert [set(batch.feed["epoch"].tolist()) for batch in expected] == [{0}, {0}, {1}, {1}, {2}, {2}]
    assert len({batch.feed["noise"].tobytes() for batch in expected}) == 6
    assert_same(run(num_workers=workers), expected)
    assert_same(run(num_workers=workers, start=3), expected[3:])
    for whole, *parts in zip(expected, *(run(num_workers=workers, shard=(part, 4)) for part in range(4)), strict=True):
        np.testing.assert_array_equal(np.concatenate([part.feed["noise"] for part in parts]), whole.feed["noise"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_ends_ends_the_batches_of_all_processes(workers):
    for part in range(2):
        with training_batches(Tape(30), 8, seed=0, num_workers=workers, shard=(part, 2)) as batches:
            assert [batch.feed["index"][0] for batch in batches] == [4 * part, 8 + 4 * part, 16 + 4 * part]
            assert next(batches, None) is None
    # Of an epoch of 40 there are only 30.
    assert len(read(Tape(30), epoch_length=40, num_epochs=None, num_workers=workers)) == 3
    assert read(Tape(30), num_epochs=None, num_workers=workers, start=3) == []
    with pytest.raises(DataError, match="5 training samples cannot fill one batch of 8"):
        read(Tape(5), num_epochs=None, num_workers=workers)


def test_a_stream_is_not_read_further_than_the_batches_asked_for():
    tape = Tape(None)
    with training_batches(tape, 8, seed=0) as batches:
        next(batches), next(batches)
    assert tape.read == 16


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_breaks_names_the_sample(workers):
    with pytest.raises(OSError, match="the tape is torn") as error:
        read(TornTape(None), num_epochs=None, num_workers=workers)
    assert error.value.__notes__ == ["while reading sample 5"]


# Evaluation


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 21, 64])
def test_evaluation_reads_every_sample_once_in_order(batch_size, workers):
    with evaluation_batches(Numbers(21), batch_size, num_workers=workers) as batches:
        batches = list(batches)
    assert all(len(batch.feed["index"]) == batch_size for batch in batches)
    assert np.concatenate([b.feed["index"][: b.size] for b in batches]).tolist() == list(range(21))
    assert set(batches[-1].feed["index"][batches[-1].size :].tolist()) <= {20}


@pytest.mark.parametrize("source", [Numbers(21), Words(21)])
def test_evaluation_shards_have_equal_lengths_and_no_sample_twice(source):
    shards = [list(evaluation_batches(source, 8, shard=(i, 4))) for i in range(4)]
    assert {len(shard) for shard in shards} == {3}
    assert {len(batch.feed["index"]) for shard in shards for batch in shard} == {2}
    real = [index for shard in shards for b in shard for index in b.feed["index"][: b.size].tolist()]
    assert sorted(real) == list(range(21))
    assert shards[3][-1].size == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_the_mask_marks_what_is_not_padding(workers):
    for number in range(4):
        with evaluation_batches(Words(21), 8, shard=(number, 4), num_workers=workers, mask="real") as batches:
            for batch in batches:
                assert batch.mask.dtype == bool and len(batch.mask) == len(batch.feed["index"]) == 2
                assert batch.mask.tolist() == [row < batch.size for row in range(2)]
                np.testing.assert_array_equal(batch.feed["real"], batch.mask)
    assert all(batch.mask.all() and len(batch.mask) == 8 for batch in read(Numbers(24), num_workers=workers))
    with pytest.raises(ValueError, match="'index' of their own"):
        list(evaluation_batches(Numbers(21), 8, mask="index"))


@pytest.mark.parametrize("engine", ["paddle", "xla"])
def test_padding_is_not_counted_on_the_device(engine):
    def count(label: paddle.pir.Value, real: paddle.pir.Value, training: bool) -> dict[str, paddle.pir.Value]:
        weights = paddle.broadcast_to(paddle.cast(real, "float32").reshape([-1, 1, 1]), paddle.shape(label))
        return {"counts": paddle.bincount(label.reshape([-1]), weights.reshape([-1]), minlength=3)}

    inputs = [Input("label", (None, 2, 2), "int64"), Input("real", (None,), "bool")]
    program = build(count, inputs, name="count")
    device, _ = engines.create(engine, "cpu")
    device.load({})
    with evaluation_batches(Maps(5), 4, mask="real") as batches:
        counts = sum(np.asarray(device.run(program, batch.feed)["counts"]) for batch in batches)
    assert counts.tolist() == [8, 8, 4]  # the 20 pixels of 5 maps


def test_evaluation_plan_must_hold_every_sample_once():
    def groups(*parts):
        return lambda epoch: [np.array(part) for part in parts]

    batches = list(evaluation_batches(Words(3), 2, plan=groups([2, 0], [1])))
    assert [(b.feed["index"].tolist(), b.size) for b in batches] == [([2, 0], 2), ([1, 1], 1)]
    for wrong in (groups([0, 1]), groups([0, 1], [2, 2])):
        with pytest.raises(ValueError, match="exactly once"):
            evaluation_batches(Words(3), 2, plan=wrong)
    with pytest.raises(ValueError, match="more than batch_size=2"):
        evaluation_batches(Words(3), 2, plan=groups([0, 1, 2]))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_never_skips_a_broken_sample(workers):
    with evaluation_batches(Numbers(21, broken=(13,)), 4, num_workers=workers) as batches:
        for _ in range(3):
            next(batches)
        with pytest.raises(DataError, match=r"^list\.txt:14: broken$"):
            next(batches)
        assert list(batches) == []


def test_evaluation_of_nothing_is_an_error():
    with pytest.raises(DataError, match="no sample"):
        evaluation_batches(Numbers(0), 4)


# Broken samples in training


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_samples_end_the_run(workers):
    source = Numbers(40, broken=tuple(range(6)))
    assert len(read(source, num_workers=workers, max_bad=6)) == 15
    with pytest.raises(DataError) as error:
        read(source, num_workers=workers, max_bad=5)
    message = str(error.value)
    assert message.startswith("6 unreadable training samples, more than the 5 allowed:\n  list.txt:")
    assert message.count("broken") == 5
    with pytest.raises(DataError, match="more than the 0 allowed"):
        read(source, num_workers=workers, max_bad=0)


def test_broken_samples_are_named_in_their_batch():
    for batch in read(Numbers(16, broken=(3,)), num_epochs=2):
        expected = 3 in shuffled_plan(16, 8, seed=1)(batch.epoch)[batch.index % 2]
        assert ("list.txt:4: broken" in batch.bad) == expected or batch.bad == []
        assert 3 not in batch.feed["index"]
    assert sum(len(b.bad) > 0 for b in read(Numbers(16, broken=(3,)), num_epochs=2)) >= 2


def test_nothing_readable_at_all_ends_at_once():
    with pytest.raises(DataError, match="20 samples in a row cannot be read; the last one: list.txt"):
        read(Numbers(100, broken=tuple(range(100))), max_bad=1000)


def test_fewer_samples_than_a_batch():
    with pytest.raises(DataError, match="5 training samples cannot fill one batch of 8"):
        read(Numbers(5))


def test_batches_of_nothing_are_an_error():
    for function in (read, evaluation_batches, batches_per_epoch):
        with pytest.raises(DataError, match="a batch size of 0 makes no batch: it must be at least 1"):
            function(Numbers(5), 0)


# Errors


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_keeps_its_type_and_names_the_sample(workers):
    with pytest.raises(KeyError, match="no such key") as error:
        read(Failing(16, "bug"), num_workers=workers)
    assert error.value.__notes__ == ["while reading list.txt:6"]
    if workers:
        assert 'return {"index": {}["no such key"]}' in str(error.value.__cause__)


@pytest.mark.parametrize("how", ["os error", "broken pipe", "end of file"])
def test_an_exception_is_not_mistaken_for_the_death_of_the_worker(how):
    with pytest.raises((OSError, EOFError), match=how) as error:
        read(Failing(16, how), num_workers=2)
    assert error.value.__notes__ == ["while reading list.txt:6"]


def test_an_exception_that_cannot_be_pickled_arrives_as_text():
    with pytest.raises(RuntimeError, match="Awkward: it is 7") as error:
        read(Failing(16, "awkward"), num_workers=1)
    assert "while reading list.txt:6" in str(error.value.__cause__)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "how, message",
    [
        ("shape", r"noise is uint8\[2, 2\], in the first sample of the batch uint8\[5, 3\]"),
        ("dtype", r"noise is float32\[5, 3\]"),
        ("fields", r"has fields \['index'\]"),
    ],
)
def test_samples_that_do_not_fit_together(how, message, workers):
    with pytest.raises(ValueError, match=r"list\.txt:6: " + message):
        list(evaluation_batches(Failing(16, how), 8, num_workers=workers))


def test_objects_cannot_be_shared():
    with pytest.raises(TypeError, match="noise has dtype object; a batch holds numbers only"):
        read(Failing(16, "object"), num_workers=1)


@pytest.mark.parametrize("how, cause", [("kill", "was killed by SIGKILL"), ("exit", "ended with exit code 3")])
def test_the_death_of_a_worker_is_one_error_that_names_the_sample(how, cause):
    began = time.monotonic()
    with pytest.raises(
        DataError, match=rf"data worker 0 \(pid \d+\) {cause} before batch 0; it was reading list.txt:6"
    ):
        list(evaluation_batches(Failing(16, how), 8, num_workers=2))
    assert time.monotonic() - began < 30


def test_a_worker_killed_while_idle_is_noticed():
    with training_batches(Slow(64), 4, seed=0, num_workers=2) as batches:
        batch = next(batches)
        os.kill(int(batch.feed["pid"][0]), signal.SIGKILL)
        with pytest.raises(DataError, match="was killed by SIGKILL before batch"):
            for _ in batches:
                pass


def test_a_source_that_workers_cannot_load():
    with pytest.raises(RuntimeError, match="the database is not there"):
        read(Unloadable(16), num_workers=2)


# Processes and memory


def test_workers_import_neither_paddle_nor_jax_nor_the_main_script(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        print("main script runs", flush=True)
        sys.path.insert(0, {str(ROOT)!r})
        from fluid.data import training_batches
        from fluid.tests.data_sources import Environment

        for batch in training_batches(Environment(64), 4, seed=0, num_epochs=1, num_workers=2):
            assert batch.feed["modules"].sum() == 0, batch.feed["modules"]
            assert batch.feed["table_shared"].all()
            print(*batch.feed["pid"])
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("main script runs") == 1
    assert len(set(done.stdout.split("\n", 1)[1].split())) == 2


def test_a_source_of_the_main_script_is_refused():
    source = type("Mine", (Numbers,), {"__module__": "__main__"})(8)
    with pytest.raises(ValueError, match="Mine must be defined in a module that workers can import"):
        read(source, num_workers=1)


def test_ctrl_c_and_sigterm_do_not_reach_the_workers(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        textwrap.dedent(f"""
        import signal, sys
        signal.signal(signal.SIGINT, lambda *_: print("signal", flush=True))
        signal.signal(signal.SIGTERM, lambda *_: print("signal", flush=True))
        sys.path.insert(0, {str(ROOT)!r})
        from fluid.data import training_batches
        from fluid.tests.data_sources import Slow

        print("ready", flush=True)
        with training_batches(Slow(40), 4, seed=0, num_epochs=1, num_workers=2) as batches:
            print(sum(batch.size for batch in batches), flush=True)
        """)
    )
    # The group is what a terminal signals; the first signal comes while the workers start.
    main = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert main.stdout.readline() == "ready\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        time.sleep(0.1)
        os.killpg(main.pid, number)
    out, err = main.communicate(timeout=60)
    assert (main.returncode, err) == (0, "")
    assert out.split()[-1] == "40"
    assert "signal" in out


def test_workers_end_with_a_killed_parent_and_leave_no_shared_memory(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from fluid.data import training_batches
        from fluid.tests.data_sources import Stuck

        batches = training_batches(Stuck(16), 1, seed=0, num_workers=3)
        print(*batches._pool.pids, flush=True)
        while True:
            next(batches)
        """)
    )
    shared_memory = set(os.listdir("/dev/shm"))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as main:
        pids = [int(word) for word in main.stdout.readline().split()]
        assert len(pids) == 3 and all(map(is_running, pids))
        time.sleep(1)  # until one is stuck in a sample
        main.kill()
    assert wait_until_gone(pids)
    assert {name for name in os.listdir("/dev/shm") if name.startswith(("psm", "batch"))} <= shared_memory


@pytest.mark.parametrize("how", ["close", "with", "forget", "finish", "error"])
def test_workers_end_with_their_batches(how):
    source = Numbers(40, broken=range(40) if how == "error" else ())
    batches = training_batches(source, 4, seed=0, num_epochs=3, num_workers=2)
    pids = batches._pool.pids
    assert all(map(is_running, pids))
    match how:
        case "close":
            kept = next(batches)
            before = kept.feed["noise"].copy()
            batches.close()
            assert list(batches) == []
            np.testing.assert_array_equal(kept.feed["noise"], before)
        case "with":
            with batches:
                next(batches)
        case "forget":
            del batches
        case "finish":
            assert len(list(batches)) == 30
        case "error":
            with pytest.raises(DataError):
                next(batches)
    assert wait_until_gone(pids)


def test_closing_does_not_wait_for_a_stuck_sample():
    batches = training_batches(Stuck(8), 8, seed=0, num_workers=1)
    with batches:
        batches._pool.submit(0, next(batches._tasks))
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 4


def test_memory_is_used_again_but_never_under_the_reader_of_a_batch():
    source = Numbers(4000)
    expected = read(source, num_epochs=1)
    kept = read(source, num_epochs=1, num_workers=2)
    assert_same(kept, expected)
    with training_batches(source, 8, seed=1, num_epochs=1, num_workers=2) as batches:
        view = None
        for number, batch in enumerate(batches):
            if number == 10:
                view = batch.feed["noise"][3:5, ::2]
        assert max(len(worker.slots) for worker in batches._pool._workers) <= 5
    np.testing.assert_array_equal(view, expected[10].feed["noise"][3:5, ::2])


def test_a_batch_may_outgrow_the_memory_of_an_earlier_one():
    def plan(epoch: int) -> list[np.ndarray]:
        return [np.arange(size) for size in (2, 30, 3, 500, 4)]

    expected = read(Words(500), plan=plan)
    assert_same(read(Words(500), plan=plan, num_workers=2), expected)
    with training_batches(Words(500), 1, seed=1, num_epochs=3, plan=plan, num_workers=1) as batches:
        for batch, reference in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(batch.feed["word"], reference.feed["word"])


def test_a_batch_that_memory_cannot_hold_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(pools, "MEMORY", 10**6)
    with pytest.raises(
        DataError, match="no memory for a batch of 1 MiB, of which several are held: lower --batch_size"
    ):
        _anonymous_file(2**20)


def test_arrays_start_at_cache_lines():
    batch = read(Numbers(16), num_workers=1)[0]
    assert {array.ctypes.data % 64 for name, array in batch.feed.items() if array.size} == {0}


def test_negative_numbers_are_refused():
    for option in ("num_workers", "start", "max_bad"):
        with pytest.raises(ValueError, match=f"{option}=-1"):
            read(Numbers(8), **{option: -1})


def test_reading_here_is_reading_in_this_process():
    with training_batches(Environment(8), 8, seed=0) as batches:
        assert set(next(batches).feed["pid"].tolist()) == {os.getpid()}
    assert data_sources.__name__ in sys.modules
