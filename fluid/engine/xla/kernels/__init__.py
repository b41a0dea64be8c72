"""Kernels of our own, where XLA moves a large array through memory more often than it has to.

Each is one file with its arithmetic, the shapes that it takes and what it was measured to save; all are written in Pallas, so that
a GPU needs nothing but JAX. The rule of an operation stays what defines it: a kernel stands in only where shape, type and
device fit, `--kernels off` leaves all of them out, and on a CPU, where only tests run them, Pallas interprets them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fluid.engine.xla.devices import BATCH

import jax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

SAMPLES: Any = PartitionSpec(BATCH)
WHOLE: Any = PartitionSpec()
"""How an array lies on the devices."""

MEASURED = {"9.0"}
"""Compute capabilities of the GPUs on which they were found faster, H100 and H200; others may lack what they take."""


def run_on(device: jax.Device) -> bool:
    """Whether kernels are for a device; a CPU interprets them."""
    return device.platform == "cpu" or getattr(device, "compute_capability", None) in MEASURED


@dataclass(frozen=True)
class Kernels:
    """Where kernels run."""

    mesh: Mesh
    """The devices, which share the samples."""

    def call(self, kernel: Callable[..., None], *, warps: int, stages: int = 2, **options: Any) -> Callable[..., Any]:
        """`pallas_call` by Triton, a program of `warps` x 32 threads that reads `stages` ahead; interpreted on a CPU."""
        from jax.experimental import pallas
        from jax.experimental.pallas import triton

        if self.mesh.devices.flat[0].platform == "cpu":
            called = pallas.pallas_call(kernel, interpret=True, **options)
        else:
            parameters = triton.CompilerParams(num_warps=warps, num_stages=stages)
            called = pallas.pallas_call(kernel, compiler_params=parameters, **options)

        def call(*operands: jax.Array) -> Any:
            # The engine counts in 64 bits, a kernel's places and loops in 32.
            with jax.enable_x64(False):
                return called(*operands)

        return call

    def share(self, function: Callable[..., Any], inputs: Any, outputs: Any) -> Callable[..., Any]:
        """`function` on every device's own samples: XLA would gather all of them on each for a Pallas call.

        `inputs` and `outputs` say of each array, or of all in a tuple, whether it is cut by SAMPLES or WHOLE on each device.
        """
        if self.mesh.size == 1:
            return function
        return jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    def of_groups(self, groups: int) -> Any:
        """How statistics [groups, ...] lie on the devices: those of all samples on each, those of several groups where they are."""
        return WHOLE if groups == 1 else SAMPLES

    def add_up(self, sums: Any, groups: int) -> Any:
        """Sums over each device's samples, [groups of the device, ...], as those over the samples of each group."""
        return lax.psum(sums, BATCH) if groups == 1 and self.mesh.size > 1 else sums

    def can_share(self, rows: int) -> bool:
        """Whether so many samples are the same number for every device."""
        return rows % self.mesh.size == 0
