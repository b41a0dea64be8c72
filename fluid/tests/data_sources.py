"""Sources for test_data.py, in a module of their own because workers import it."""

import itertools
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator

from fluid.buckets import Buckets
from fluid.errors import DataError
from fluid.reading import Feed, Sample
from fluid.workers import Allocate

import numpy as np


class Numbers:
    """Sample i holds i, random numbers, and an array without elements; those in `broken` cannot be read."""

    def __init__(self, length: int, broken: tuple[int, ...] = ()) -> None:
        self.length = length
        self.broken = broken
        self.table = np.arange(50_000)

    def __len__(self) -> int:
        return self.length

    def where(self, index: int) -> str:
        return f"list.txt:{index + 1}"

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if index in self.broken:
            raise DataError(f"{self.where(index)}: broken")
        noise = rng.integers(0, 256, (5, 3), dtype=np.uint8)
        return {"index": np.int64(index), "noise": noise, "nothing": np.zeros((0, 4), np.float32)}


class Words(Numbers):
    """Sample i is a sequence of i % 7 + 1 numbers, padded to the longest of its batch."""

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        super().load(index, rng)
        return {"index": np.int64(index), "word": np.full(index % 7 + 1, index)}

    def collate(self, samples: list[Sample], whole: np.ndarray, allocate: Allocate) -> Feed:
        shape = len(samples), (whole % 7 + 1).max()
        feed = allocate({"index": (shape[:1], "int64"), "word": (shape, "int64")})
        feed["word"][:] = 0
        for row, sample in enumerate(samples):
            feed["index"][row] = sample["index"]
            feed["word"][row, : len(sample["word"])] = sample["word"]
        return feed


class WholeWords(Words):
    """The same samples, read a batch at a time."""

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        raise AssertionError("load_all takes its place")

    def load_all(self, indices: np.ndarray, whole: np.ndarray, allocate: Allocate) -> Feed:
        longest = (whole % 7 + 1).max()
        feed = allocate({"index": (indices.shape, "int64"), "word": ((len(indices), longest), "int64")})
        feed["index"][:] = indices
        feed["word"][:] = np.where(np.arange(longest) < indices[:, None] % 7 + 1, indices[:, None], 0)
        return feed


class Lines(Numbers):
    """Sample i is a line of text as an image [8, width] of value i, padded to the edge of its bucket."""

    def __init__(self, widths: np.ndarray) -> None:
        super().__init__(len(widths))
        self.buckets = Buckets(widths, (64, 128, 256, 400), 8, by="rows")

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        return {"image": np.full((8, self.buckets.lengths[index]), index, np.uint8)}

    def collate(self, samples: list[Sample], whole: np.ndarray, allocate: Allocate) -> Feed:
        feed = allocate({"image": ((len(samples), 8, self.buckets.edge(whole)), np.uint8)})
        feed["image"][:] = 0
        for row, sample in zip(feed["image"], samples, strict=True):
            row[:, : sample["image"].shape[1]] = sample["image"]
        return feed


class Crops(Numbers):
    """Sample i is a square of the side that its batch chose, of value i; `method` makes the arrays."""

    def __init__(self, length: int, method: str) -> None:
        super().__init__(length)
        if method != "load":
            setattr(self, method, getattr(self, f"_{method}"))

    def load(self, index: int, rng: np.random.Generator, side: int) -> Sample:
        return {"image": np.full((side, side), index)}

    def _collate(self, samples: list[Sample], whole: np.ndarray, allocate: Allocate, side: int) -> Feed:
        feed = allocate({"image": ((len(samples), side, side), "int64")})
        feed["image"][:] = [sample["image"] for sample in samples]
        return feed

    def _load_all(self, indices: np.ndarray, whole: np.ndarray, allocate: Allocate, side: int) -> Feed:
        feed = allocate({"image": ((len(indices), side, side), "int64")})
        feed["image"][:] = indices[:, None, None]
        return feed


class Placed(Numbers):
    """Tells whether the arrays that it fills lie in memory shared between processes."""

    def collate(self, samples: list[Sample], whole: np.ndarray, allocate: Allocate) -> Feed:
        feed = allocate({"shared": ((len(samples),), "bool")})
        owner = feed["shared"]
        while isinstance(owner, np.ndarray):
            owner = owner.base
        feed["shared"][:] = isinstance(owner, memoryview) and isinstance(owner.obj, mmap.mmap)
        return feed


class Careless(Numbers):
    """Does not keep to the rules of `allocate`."""

    def __init__(self, length: int, how: str) -> None:
        super().__init__(length)
        self.how = how

    def collate(self, samples: list[Sample], whole: np.ndarray, allocate: Allocate) -> Feed:
        layout = {"index": ((len(samples),), "int64")}
        match self.how:
            case "never":
                return {"index": np.zeros(len(samples), np.int64)}
            case "twice":
                allocate(layout)
                return allocate(layout)
            case _:
                return dict(allocate(layout))


class Dice:
    """Endless: what the random numbers of a sample make."""

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        return {"index": np.int64(index), "pips": rng.integers(1, 7, 5)}


class Tape:
    """A stream of `length` samples that cannot be read out of order; counts what was read of it."""

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.read = 0

    def stream(self, epoch: int, rng: np.random.Generator) -> Iterator[Sample]:
        for index in itertools.count() if self.length is None else range(self.length):
            self.read += 1
            yield {
                "index": np.int64(index),
                "epoch": np.int64(epoch),
                "noise": rng.random(3),
                "pid": np.int64(os.getpid()),
            }


class TornTape(Tape):
    """Breaks at sample 5."""

    def stream(self, epoch: int, rng: np.random.Generator) -> Iterator[Sample]:
        yield from itertools.islice(super().stream(epoch, rng), 5)
        raise OSError("the tape is torn")


class Maps(Numbers):
    """Sample i is a map of 2 x 2 pixels of class i % 3."""

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"label": np.full((2, 2), index % 3)}


class Environment(Numbers):
    """Tells what the process that reads looks like."""

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {
            "pid": np.int64(os.getpid()),
            "modules": np.array([name in sys.modules for name in ("paddle", "jax")]),
            "table_shared": np.bool_(not self.table.flags.writeable and not self.table.flags.owndata),
        }


class Slow(Numbers):
    """Takes 20 ms a sample."""

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        time.sleep(0.02)
        return super().load(index, rng) | {"pid": np.int64(os.getpid())}


class Stuck(Numbers):
    """Never returns from sample 5."""

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if index == 5:
            time.sleep(3600)
        return super().load(index, rng) | {"pid": np.int64(os.getpid())}


class Awkward(Exception):
    """An exception that pickle cannot rebuild."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} {code}")


class Failing(Numbers):
    """Goes wrong at sample 5 in the way asked for."""

    def __init__(self, length: int, how: str) -> None:
        super().__init__(length)
        self.how = how

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        sample = super().load(index, rng)
        if index == 5:
            match self.how:
                case "bug":
                    return {"index": {}["no such key"]}
                case "awkward":
                    raise Awkward(7, "it is")
                case "os error":
                    raise OSError(5, "os error")
                case "broken pipe":
                    raise BrokenPipeError("broken pipe")
                case "end of file":
                    raise EOFError("end of file")
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exit":
                    os._exit(3)
                case "shape":
                    return sample | {"noise": np.zeros((2, 2), np.uint8)}
                case "dtype":
                    return sample | {"noise": np.zeros((5, 3), np.float32)}
                case "fields":
                    return {"index": sample["index"]}
        if self.how == "object":
            return sample | {"noise": np.array([object()])}
        return sample


class Unloadable(Numbers):
    """Can be pickled but not unpickled."""

    def __setstate__(self, state: dict) -> None:
        raise RuntimeError("the database is not there")
