"""The variables of an engine, on its devices, by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from fluid.engine.xla import distributed
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
import numpy as np


class Reader(Protocol):
    """Who keeps something that is right only until the state changes."""

    def forget(self) -> None:
        """Let go of it."""


class _Pack(NamedTuple):
    """Variables of one number each as one array, [variables]."""

    array: jax.Array
    shapes: dict[str, tuple[int, ...]]


@dataclass
class State:
    """Each variable is an array of its own, or a place in a pack until somebody asks for it by itself.

    Several threads may ask: steps of several shapes are compiled at once.
    """

    arrays: dict[str, jax.Array] = field(default_factory=dict)
    readers: "WeakSet[Any]" = field(default_factory=WeakSet)
    _packs: dict[tuple[str, ...], _Pack] = field(default_factory=dict)
    _lock: Any = field(default_factory=RLock)

    def names(self) -> list[str]:
        """Of all variables, sorted."""
        with self._lock:
            return sorted([*self.arrays, *(name for pack in self._packs for name in pack)])

    def values(self) -> list[jax.Array]:
        """All arrays that there are."""
        with self._lock:
            return [*self.arrays.values(), *(pack.array for pack in self._packs.values())]

    def update(self, arrays: Mapping[str, jax.Array]) -> None:
        """Add or replace variables."""
        with self._lock:
            self._unpack(arrays)
            self.arrays.update(arrays)
            self._forget()

    def find(self, names: Sequence[str], program: str) -> list[jax.Array]:
        """The named variables; raises EngineError for those that were not loaded."""
        with self._lock:
            self._unpack(names)
            missing = [name for name in names if name not in self.arrays]
            if missing:
                raise EngineError(f"the Program '{program}' needs variables that were not loaded: {', '.join(missing)}")
            return [self.arrays[name] for name in names]

    def pack(self, names: tuple[str, ...], program: str) -> jax.Array:
        """The named variables of one number each as one array, which they stay from now on; raises EngineError as `find`."""
        with self._lock:
            if names not in self._packs:
                arrays = self.find(names, program)
                joined = jax.jit(_join, out_shardings=arrays[0].sharding)(arrays)
                self._packs[names] = _Pack(joined, {name: self.arrays.pop(name).shape for name in names})
            return self._packs[names].array

    def update_pack(self, names: tuple[str, ...], array: jax.Array) -> None:
        """Replace the variables that `pack` put together."""
        with self._lock:
            self._packs[names] = self._packs[names]._replace(array=array)
            self._forget()

    def on_host(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Copies of the named variables."""
        with self._lock:
            for name in names:
                if name in self.arrays:
                    self.arrays[name].copy_to_host_async()
            small: dict[str, np.ndarray] = {}
            for pack in self._packs.values():
                numbers = np.array(distributed.on_host(pack.array))
                small.update(
                    {name: numbers[place].reshape(shape) for place, (name, shape) in enumerate(pack.shapes.items())}
                )
            return {
                name: small[name] if name in small else np.array(distributed.on_host(self.arrays[name]))
                for name in names
            }

    def _unpack(self, names: Iterable[str]) -> None:
        """Make arrays of their own of what is packed with any of these."""
        for key in [key for key, pack in self._packs.items() if not pack.shapes.keys().isdisjoint(names)]:
            array, shapes = self._packs.pop(key)
            split = jax.jit(partial(_split, shapes=tuple(shapes.values())), out_shardings=array.sharding)
            self.arrays.update(zip(key, split(array)))

    def _forget(self) -> None:
        for reader in self.readers:
            reader.forget()
        self.readers.clear()


def _join(arrays: list[jax.Array]) -> jax.Array:
    return jnp.concatenate([array.reshape(1) for array in arrays])


def _split(pack: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    return [pack[place : place + 1].reshape(shape) for place, shape in enumerate(shapes)]
