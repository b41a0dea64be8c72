"""Classes of unequal size in training: weights of the classes in the loss, and samples drawn from all classes alike."""

from pathlib import Path

from fluid.data import PlainPlan, Source
from fluid.errors import DataError
from fluid.media import read_named
from fluid.reading import SHUFFLE, Sample, generator
from fluid.text import decoded_lines
from image_classification.classes import canonical, labels_of, listed
from image_classification.reader import ImageList

import numpy as np

BALANCED = "balanced"


def class_weights(spec: str | None, labels: np.ndarray, class_dim: int, names: list[str]) -> np.ndarray | None:
    """What each class counts in the loss, [class_dim] float32; None: all the same.

    The mean over the training images is 1, so that a learning rate means the same as without.

    Args:
        spec: `balanced`: each class counts as much as any other, however many images it has; or a file of lines `CLASS WEIGHT`,
            the class by its name or number. Those that it leaves out weigh 1.
        labels: of the training images, [N].
        class_dim: number of classes.
        names: of the classes, if they have any.

    Raises DataError, with file and line, for a file that is not so.
    """
    if spec is None:
        return None
    counts = np.bincount(labels, minlength=class_dim)
    weights = 1 / np.maximum(counts, 1) if spec == BALANCED else read_weights(Path(spec), class_dim, names)
    mean = (weights * counts).sum() / counts.sum()
    if mean == 0:
        raise DataError(f"{spec}: gives a weight of 0 to every class that has images")
    return (weights / mean).astype(np.float32)


def read_weights(path: Path, class_dim: int, names: list[str]) -> np.ndarray:
    """The weights in a file, [class_dim]; raises as `class_weights`."""
    weights = np.ones(class_dim)
    for number, line in enumerate(decoded_lines(read_named(path).splitlines(), str(path)), 1):
        if line.strip():
            name, _, word = line.strip().rpartition(" ")
            try:
                weight = float(word)
            except ValueError:
                weight = -1.0
            if not name or not 0 <= weight < np.inf:
                raise DataError(
                    f"{path}:{number}: each line must be `CLASS WEIGHT`, a weight of 0 or more; got {line!r}"
                )
            weights[_label(canonical(name), class_dim, names, f"{path}:{number}")] = weight
    return weights


def _label(name: str, class_dim: int, names: list[str], where: str) -> int:
    label = labels_of([name], names, {})[0] if names else None
    if label is None and name.isdecimal() and int(name[:9]) < class_dim:
        label = int(name[:9])
    if label is None:
        known = listed(names) if names else f"the numbers 0 to {class_dim - 1}"
        raise DataError(f"{where}: there is no class {name}; the classes are {known}")
    return label


def balanced_plan(labels: np.ndarray, batch_size: int, seed: int) -> PlainPlan:
    """As many images an epoch as the set has, but of every class the same number; for `fluid.data`.

    A small class's images come several times, as samples N, 2N, ... later of `Repeated`; of a large class another part comes
    each epoch.
    """
    total, classes = len(labels), np.unique(labels)
    members = [np.flatnonzero(labels == label) for label in classes]

    def plan(epoch: int) -> list[np.ndarray]:
        rng = generator(seed, SHUFFLE, epoch)
        wanted = np.full(len(classes), total // len(classes))
        wanted[rng.permutation(len(classes))[: total % len(classes)]] += 1
        order = rng.permutation(np.concatenate([_drawn(rng, own, n, total) for own, n in zip(members, wanted)]))
        full = total // batch_size
        return list(order[: full * batch_size].reshape(full, batch_size))

    return plan


def _drawn(rng: np.random.Generator, members: np.ndarray, count: int, total: int) -> np.ndarray:
    """`count` of the members: all of them as often as they fit in, then a random part."""
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) + total * number for number in range(rounds)])[:count]


class Repeated:
    """A source whose samples N, 2N, ... later are the same, changed anew: random numbers follow from a sample's index."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def where(self, index: int) -> str:
        """The sample, for messages."""
        return self.source.where(index % len(self))  # type: ignore[attr-defined]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """As of the source."""
        return self.source.load(index % len(self), rng)


def told(images: ImageList) -> str:
    """How unequal the classes are, for people."""
    counts = np.unique(images.labels, return_counts=True)[1]
    return f"{counts.min()} to {counts.max()} images a class"
