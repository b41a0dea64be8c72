"""The devices of an engine, and how arrays lie on them: whole on each, or spread along their axis of samples."""

import logging
from collections.abc import Sequence
from typing import Any

from fluid.engine.xla import distributed
from fluid.errors import EngineError

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Otherwise JAX reports every kind of device that it looked for and did not find.
logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)

BATCH = "batch"
"""Name of the mesh axis over which batches are spread."""


class Devices:
    """Devices of one kind, over all processes."""

    def __init__(self, devices: Sequence[jax.Device]):
        self.count = len(devices)
        self.local = sum(device.process_index == jax.process_index() for device in devices)
        self.mesh = Mesh(np.array(devices), (BATCH,))
        self.whole = NamedSharding(self.mesh, PartitionSpec())
        self.platform = devices[0].platform
        kind = "cpu" if self.platform == "cpu" else devices[0].device_kind
        self.description = kind if self.count == 1 else f"{self.count} x {kind}"

    def spread(self, axis: int | None) -> NamedSharding:
        """Along an axis; None: whole on each."""
        return self.whole if axis is None else NamedSharding(self.mesh, PartitionSpec(*[None] * axis, BATCH))

    def put(self, value: Any, axis: int | None) -> jax.Array:
        """An array on the devices: spread along its axis of samples if they can share it evenly, else a copy on each.

        With several processes a spread array is put together from each one's own samples.
        """
        if isinstance(value, jax.Array):
            return value
        shared = axis is not None and value.shape[axis] % self.local == 0
        return distributed.place(np.asarray(value), self.spread(axis) if shared else self.whole)


def sees_gpu() -> bool:
    """Whether JAX can use a GPU here."""
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


def find_devices(kind: str) -> list[jax.Device]:
    """All visible devices of a kind: `gpu`, `cpu`, or `auto` for GPUs if there are any. Raises EngineError for none."""
    if kind == "gpu" and not sees_gpu():
        raise EngineError(
            "--device gpu: JAX sees no GPU. Install its CUDA build (pip install 'jax[cuda13]'), check the driver with "
            "nvidia-smi, or use --device cpu"
        )
    return jax.devices(("gpu" if sees_gpu() else "cpu") if kind == "auto" else kind)
