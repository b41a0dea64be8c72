"""Picture files read ahead by worker processes, for an infer.py: whatever cannot be read is told, and the next one follows."""

import itertools
from collections.abc import Callable, Iterable, Iterator

from fluid.data import evaluation_batches
from fluid.errors import DataError
from fluid.media import is_moving, pictures, read_image

import numpy as np

Prepare = Callable[[np.ndarray], np.ndarray]
"""From a picture [H, W, 3] uint8 RGB to an array; what worker processes are to run must be picklable."""


def prepared(
    names: Iterable[str],
    prepare: Prepare,
    *,
    step: int = 1,
    batch_size: int = 1,
    num_workers: int = 0,
    unreadable: Callable[[DataError], None],
) -> Iterator[tuple[int, str, np.ndarray]]:
    """(number of the name, place, what `prepare` makes of the picture) of what `fluid.media.find` found, in order.

    Places are those of `fluid.media.pictures`.

    Args:
        names: image files, videos and cameras.
        prepare: makes arrays of one shape.
        step: of a video or camera, every so many frames; these are read in this process.
        batch_size: files that are read before the first of them is handed on.
        num_workers: processes that read and prepare; 0 does it here.
        unreadable: told of each file that cannot be read.
    """
    for moving, group in itertools.groupby(enumerate(names), lambda one: is_moving(one[1])):
        if moving:
            for number, name in group:
                for place, picture in pictures([name], step=step, unreadable=unreadable):
                    yield number, place, prepare(picture)
        else:
            yield from _still(list(group), prepare, batch_size, num_workers, unreadable)


def _still(
    numbered: list[tuple[int, str]],
    prepare: Prepare,
    batch_size: int,
    num_workers: int,
    unreadable: Callable[[DataError], None],
) -> Iterator[tuple[int, str, np.ndarray]]:
    source = _Files([name for _, name in numbered], prepare)
    with evaluation_batches(source, batch_size, num_workers=num_workers) as batches:
        for batch in batches:
            assert batch.indices is not None
            for row in np.flatnonzero(batch.mask):
                number, name = numbered[batch.indices[row]]
                if batch.feed["readable"][row]:
                    yield number, name, batch.feed["array"][row]
                    continue
                try:
                    # It says what is wrong, unless it was mended meanwhile.
                    yield number, name, prepare(read_image(name))
                except DataError as error:
                    unreadable(error)


class _Files:
    """A source of what is prepared, or of nothing where a file cannot be read."""

    def __init__(self, names: list[str], prepare: Prepare) -> None:
        self.names, self.prepare = names, prepare
        self.nothing = np.zeros_like(prepare(np.zeros((64, 64, 3), np.uint8)))

    def __len__(self) -> int:
        return len(self.names)

    def where(self, index: int) -> str:
        """The file, for messages."""
        return self.names[index]

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What is prepared of a file."""
        try:
            return {"array": self.prepare(read_image(self.names[index])), "readable": np.array(True)}
        except DataError:
            return {"array": self.nothing, "readable": np.array(False)}
