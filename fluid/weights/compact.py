"""Weights in one file that says what they are, in full, half, 8-bit or 6-bit precision.

A `.safetensors` file whose metadata have an entry `fluid_zoo`, an object in JSON of

    version     of this form, 2
    storage     fp32, fp16, int8 or int6
    task        the task they were trained for, or null
    facts       what that task must know to use them (network, vocabulary, class names), as in a checkpoint
    origin      where they come from, for people: run, step, metrics, and what the storage cost
    deflated    type and shape by the name of the array, as ["int8", [64, 3]], of those that are stored as what `deflate.py`
                makes of them: with int8 and int6 all that become smaller by it

and whose arrays are, by the name of the variable NAME

    NAME        as it is: integers, floating point of less than two axes (offsets, statistics), everything with fp32
    NAME        float16, of two axes or more, with fp16; float32 where a number is beyond float16
    NAME        int8 in -127..127, or -31..31 with int6, of two axes or more, with int8 and int6; and
    NAME@scale  float32 or float16: the variable is NAME * NAME@scale, each scale for as many neighbours along an axis as
                NAME is longer there

Scales lie along the first or the last axis, whichever leaves both nearer to what they were: the output channels of a
convolution, the units of a fully connected layer, the words of an embedding. Arrays that a network is sensitive to may be
stored as they are or in half precision beside others in less, or with a scale for each block of so many input channels of
an output channel. With int6 deflate makes some .65 bytes of a number, with int8 .92. Version 1 had neither int6 nor
`deflated`. Files without that entry are plain arrays.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fluid import checkpoint
from fluid.errors import WeightsError
from fluid.formats import safetensors_file
from fluid.weights.deflate import DTYPES, deflate, inflate
from fluid.weights.fit import check_finite

import numpy as np

VERSION = 2
READABLE = (1, 2)
METADATA_KEY = "fluid_zoo"
SCALE_SUFFIX = "@scale"
FILE = "weights.safetensors"
"""What export.py calls it."""
LEVELS = {"int8": 127, "int6": 31}
"""The largest integer."""
WORTH_IT = 128
"""Bytes that deflate must save in an array: its entry in the metadata takes some."""

Storage = Literal["fp32", "fp16", "int8", "int6"]
STORAGES: tuple[Storage, ...] = get_args(Storage)


@dataclass(frozen=True)
class Description:
    """What a file says about its weights."""

    task: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    storage: Storage = "fp32"


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], Description | None]:
    """The weights of a `.safetensors` file, in float32 where they were stored in less; None if it is of plain arrays.

    Raises WeightsError if the file is damaged, or of a later version of this form.
    """
    description, deflated = _metadata(path)
    arrays = safetensors_file.read(path)
    for name, (dtype, shape) in deflated.items():
        try:
            arrays[name] = inflate(arrays[name], dtype, shape)
        except (ValueError, KeyError) as error:
            raise WeightsError(f"{path}: {name} is damaged ({error}).") from error
    return (arrays if description is None else _expanded(arrays, path)), description


def describe(path: str | os.PathLike) -> Description | None:
    """What a `.safetensors` file says about its weights; None if it is of plain arrays. Raises as `read`."""
    return _metadata(path)[0]


def _metadata(path: str | os.PathLike) -> tuple[Description | None, dict[str, tuple[str, list[int]]]]:
    """What a file says, and its arrays that are deflated: type and shape by name."""
    metadata = safetensors_file.read_metadata(path)
    if METADATA_KEY not in metadata:
        return None, {}
    try:
        said = json.loads(metadata[METADATA_KEY])
        if said["version"] not in READABLE:
            raise WeightsError(f"{path}: written in version {said['version']} of its form; {VERSION} is known here.")
        description = Description(said["task"], said["facts"], said["origin"], said["storage"])
        deflated = {name: (str(dtype), list(shape)) for name, (dtype, shape) in said.get("deflated", {}).items()}
    except (AttributeError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata are damaged ({type(error).__name__}: {error}).") from error
    if description.storage not in STORAGES or not all(
        isinstance(item, dict) for item in (description.facts, description.origin)
    ):
        raise WeightsError(f"{path}: its metadata are damaged (storage {description.storage}).")
    return description, deflated


@dataclass(frozen=True)
class Finer:
    """Arrays of two axes or more that are stored with less loss than the others, or with more, by name."""

    full: Collection[str] = ()
    """As they are."""
    half: Collection[str] = ()
    """In float16."""
    blocks: Mapping[str, int] = field(default_factory=dict)
    """With int8 and int6: so many neighbours along the second axis, input channels of a convolution, share a scale."""
    coarse: Collection[str] = ()
    """With int8 and int6: in half as many levels. Deflate makes a bit a number of that."""


def write(
    path: str | os.PathLike, weights: Mapping[str, np.ndarray], description: Description, finer: Finer = Finer()
) -> None:
    """Write weights as `description.storage` and `finer` say. Nothing is overwritten.

    Raises WeightsError if the place is taken or not writable, or a number is not finite.
    """
    if os.path.lexists(path):
        raise WeightsError(f"{path}: exists already. Choose another name, or remove it first.")
    store(path, pack(weights, description.storage, finer), description)


def store(path: str | os.PathLike, packed: Mapping[str, np.ndarray], description: Description) -> None:
    """Write arrays that `pack` gave, whether or not something is there. Raises WeightsError if the place is not writable."""
    arrays, deflated = dict(packed), {}
    if description.storage in LEVELS:
        for name, array in sorted(packed.items()):
            if array.dtype.name in DTYPES and array.size and (less := deflate(array)).size + WORTH_IT < array.nbytes:
                arrays[name], deflated[name] = less, (array.dtype.name, array.shape)
    said = {"version": VERSION, **asdict(description), "deflated": deflated}
    # One entry, because safetensors writes several in an order of its own.
    safetensors_file.write(path, arrays, {METADATA_KEY: json.dumps(said, ensure_ascii=False)})


def describe_source(path: str | os.PathLike, storage: Storage) -> Description:
    """What is known about weights that are to be stored anew: what a checkpoint or compact file says of itself."""
    path = Path(path)
    if checkpoint.is_checkpoint(path):
        meta = checkpoint.read_meta(checkpoint.find_best(path))
        return Description(meta.task, meta.extra, {"step": meta.step, "metrics": meta.metrics}, storage)
    known = describe(path) if path.is_file() and path.suffix == ".safetensors" else None
    return replace(known or Description(), storage=storage)


def rounded(weights: Mapping[str, np.ndarray], storage: Storage, finer: Finer = Finer()) -> dict[str, np.ndarray]:
    """`weights` as they are read back after being stored so."""
    return _expanded(pack(weights, storage, finer), "weights")


def pack(weights: Mapping[str, np.ndarray], storage: Storage, finer: Finer = Finer()) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises ValueError for blocks that do not divide an axis, WeightsError for NaN and infinity, or a name that a scale would take.
    """
    check_finite(weights, "the weights")
    stored: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        if name.endswith(SCALE_SUFFIX):
            raise WeightsError(f"{name}: a variable whose name ends in {SCALE_SUFFIX} cannot be stored.")
        if array.dtype.kind != "f" or array.ndim < 2 or storage == "fp32" or name in finer.full:
            stored[name] = array
        elif storage == "fp16" or name in finer.half:
            fits = np.abs(array).max(initial=0) <= np.finfo(np.float16).max
            stored[name] = array.astype(np.float16 if fits else np.float32)
        elif name in finer.blocks:
            stored[name], stored[name + SCALE_SUFFIX] = _quantised_in_blocks(
                array.astype(np.float32), finer.blocks[name], LEVELS[storage]
            )
        else:
            levels = LEVELS[storage] // (2 if name in finer.coarse else 1)
            stored[name], stored[name + SCALE_SUFFIX] = _quantised(array.astype(np.float32), levels)
    return stored


@dataclass(frozen=True)
class Trial:
    """Weights about to be exported in less precision, and what that costs."""

    weights: Mapping[str, np.ndarray]
    storage: Storage | None
    state: dict[str, np.ndarray]
    """As they will be read back."""
    cost: Mapping[str, Mapping[str, float]]
    """The task's metrics `before` and `after`, where they were measured."""

    def write(self, folder: Path, *, task: str, facts: Mapping[str, Any], source: str) -> None:
        """Put them into an exported model's folder, unless `storage` is None. Raises WeightsError."""
        if self.storage is not None:
            # These weights may be given away: where they lay on this machine is nobody's concern.
            named = Path(source).name if Path(source).is_absolute() else source
            description = Description(task, facts, {"weights": named, **self.cost}, self.storage)
            write(folder / FILE, self.weights, description)


def try_out(
    weights: Mapping[str, np.ndarray],
    storage: Storage | None,
    measure: Callable[[dict[str, np.ndarray]], Mapping[str, float]],
    say: Callable[[str], None],
) -> Trial:
    """Round weights as `storage` does and say what it does to the metrics that `measure` gives for a set of weights.

    Full precision and None cost nothing, and nothing is measured.
    """
    if storage in (None, "fp32"):
        return Trial(weights, storage, dict(weights), {})
    state = rounded(weights, storage)
    before, after = dict(measure(dict(weights))), dict(measure(state))
    for name, value in before.items():
        say(f"{name} {value:.5g} -> {after[name]:.5g} ({after[name] - value:+.2g}) in {storage}")
    return Trial(weights, storage, state, {"before": before, "after": after})


def _quantised(array: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 and scales of an array along its first or its last axis, whichever loses less."""
    candidates = []
    for axis in (0, array.ndim - 1):
        scale = np.abs(array).max(axis=_others(array, axis), keepdims=True, initial=0) / levels
        integers = np.rint(np.divide(array, scale, out=np.zeros_like(array), where=scale > 0)).astype(np.int8)
        candidates.append((_loss(array, integers * scale), scale.size, integers, scale))
    _, _, integers, scale = min(candidates, key=lambda item: item[:2])
    return integers, scale


def _quantised_in_blocks(array: np.ndarray, block: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 and scales, of each slice along the first axis one for every `block` neighbours along the second."""
    count, rest = divmod(array.shape[1], block)
    if rest:
        raise ValueError(f"{array.shape[1]} along the second axis are not a multiple of {block}")
    blocks = array.reshape(len(array), count, -1)
    scale = np.abs(blocks).max(axis=2, keepdims=True) / levels
    half = np.finfo(np.float16)
    if scale.max(initial=0) <= half.max:
        # Enough for scales, as the integers are rounded for what it makes of them, unless that is nothing.
        scale = np.where(scale > 0, np.maximum(scale.astype(np.float16), half.smallest_subnormal), np.float16(0))
    wide = scale.astype(np.float32)
    integers = np.rint(np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide > 0))
    integers = np.clip(integers, -levels, levels).astype(np.int8).reshape(array.shape)
    return integers, scale.reshape(len(array), count, *[1] * (array.ndim - 2))


def _loss(array: np.ndarray, restored: np.ndarray) -> float:
    """Energy of the error in each slice along the first and the last axis, as a share of the slice's own; the mean.

    The slices' own, because a channel of small numbers counts as much in a network as one of large numbers.
    """
    shares = []
    for axis in (0, array.ndim - 1):
        error, energy = (
            np.square(item, dtype=np.float64).sum(axis=_others(array, axis)) for item in (array - restored, array)
        )
        shares.append(np.mean(error / np.where(energy > 0, energy, 1)))
    return float(np.mean(shares))


def _others(array: np.ndarray, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(array.ndim) if other != axis)


def _expanded(arrays: Mapping[str, np.ndarray], where: str | os.PathLike) -> dict[str, np.ndarray]:
    weights = {}
    for name, array in arrays.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = arrays.get(name + SCALE_SUFFIX)
        if scale is not None:
            if array.dtype != np.int8 or not _spans(scale, array):
                raise WeightsError(f"{where}: the scales of {name} do not belong to it.")
            # Infinity, where a damaged scale gives that, is refused by whoever uses the weights.
            with np.errstate(over="ignore", invalid="ignore"):
                weights[name] = array * _spread(scale.astype(np.float32), array.shape)
        else:
            weights[name] = array.astype(np.float32) if array.dtype == np.float16 else array
    return weights


def _spans(scale: np.ndarray, array: np.ndarray) -> bool:
    return scale.ndim == array.ndim and all(
        own and full % own == 0 for own, full in zip(scale.shape, array.shape, strict=True)
    )


def _spread(scale: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`scale` with every number repeated along each axis that has neither its length nor one."""
    for axis, (own, full) in enumerate(zip(scale.shape, shape, strict=True)):
        if own not in (1, full):
            scale = scale.repeat(full // own, axis)
    return scale
