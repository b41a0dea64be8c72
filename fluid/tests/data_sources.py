"""Sources for test_data.py, in a module of their own because workers import it."""

import os
import signal
import sys
import time

from fluid.errors import DataError

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

    def collate(self, samples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        longest = max(len(sample["word"]) for sample in samples)
        return {
            "index": np.array([sample["index"] for sample in samples]),
            "word": np.array([np.pad(sample["word"], (0, longest - len(sample["word"]))) for sample in samples]),
        }


class WholeWords(Words):
    """The same samples, read a batch at a time."""

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        raise AssertionError("load_all takes its place")

    def load_all(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        sizes = indices % 7 + 1
        return {"index": indices, "word": np.where(np.arange(sizes.max()) < sizes[:, None], indices[:, None], 0)}


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
