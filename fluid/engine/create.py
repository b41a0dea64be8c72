"""The choice of an engine. Each is imported only where it is chosen."""

import gc
import importlib.metadata
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fluid.engine.base import Engine
from fluid.errors import EngineError
from fluid.interface import Interface

DEVICES = ("auto", "cpu", "gpu")
ENGINES = ("auto", "paddle", "xla")
PRECISIONS = ("fp32", "tf32", "bf16")
KERNELS = ("auto", "off")

PAYS_FROM = {"batches": 20, "updates": 40}
"""Runs from which on a CPU has spent less on XLA, its 1 to 20 seconds of compilation included, than on Paddle's executor.

Measured over the tasks by benchmarks/engines.py: batches without gradients from 4 (Transformer) over 9 (the network for
Fashion-MNIST) and 14 (SSD, one image) to 34 (ICNet, one image); updates from 3 (ResNet-50) over 16 (MobileNet) and 42 (SSD) to
53 (ICNet). Networks so small that it takes hundreds of runs spend a second on either.
"""

FEW = 8
"""Runs of a recurrent Program up to which a CPU has spent less on code that is compiled in half of the time and runs more
slowly: 64 sentences take the translator 6.7 CPU seconds from an empty cache instead of 9.5, and 6.5 instead of 4.4 once
all is compiled.
"""

LOOPS_COST = "a seventh or less"
"""Of Paddle's CPU time XLA needs for a run of a recurrent Program: 1/7 (LSTMP) to 1/17 (CRNN) by the same measurements."""


@dataclass(frozen=True)
class Hosts:
    """Several processes that train together; with every field None they are found from the cluster's environment."""

    coordinator: str | None = None
    """`HOST:PORT` of process 0."""
    num_hosts: int | None = None
    """How many processes take part."""
    host_id: int | None = None
    """Number of this one, from 0."""


def create(
    engine: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
    seed: int = 0,
    *,
    kernels: str = "auto",
    hosts: Hosts | None = None,
    runs: int | None = 1,
    programs: Collection[Interface] = (),
) -> tuple[Engine, str]:
    """Choose and start an engine; returns it with the reason for the choice, one line for people.

    `auto` takes a GPU through XLA where JAX sees one. On the CPU it takes XLA for Programs that are recurrent or have a
    `statistics_batch`, and for others if so many `runs` of one are to come (None: very many) that compiling pays; else
    Paddle's executor, the reference. Paddle's own CUDA build is used only when asked for (`engine="paddle", device="gpu"`).
    With `hosts`, or in a cluster whose environment says so, this process joins the others. `kernels="off"` leaves the xla
    engine's own GPU kernels out. Raises EngineError for what is not there.
    """
    for value, allowed, flag in (
        (engine, ENGINES, "engine"),
        (device, DEVICES, "device"),
        (precision, PRECISIONS, "precision"),
        (kernels, KERNELS, "kernels"),
    ):
        if value not in allowed:
            raise EngineError(f"--{flag} {value}: choose one of {', '.join(allowed)}")
    if engine == "paddle":
        if hosts is not None and hosts != Hosts():
            raise EngineError("--engine paddle runs on one machine; training on several needs --engine xla")
        return _paddle(device, precision, seed), "asked for"
    recurrent = [program.name for program in programs if program.recurrent]
    trains = any(program.schedule is not None for program in programs)
    few = bool(recurrent) and not trains and runs is not None and runs <= FEW
    # Before JAX is asked for its devices: afterwards no process can join the others.
    joined = hosts is not None and _join(hosts)
    if engine == "xla":
        return _xla(device, precision, seed, kernels, few), "asked for"
    if device == "gpu" or (device == "auto" and jax_sees_gpu()):
        return _xla("gpu", precision, seed, kernels), "JAX sees a GPU"
    if precision != "fp32":
        return _xla("cpu", precision, seed), f"{precision} needs the xla engine, and no GPU is used"
    if joined:
        return _xla("cpu", precision, seed), "several machines need the xla engine, and no GPU is used"
    if grouped := [program for program in programs if program.statistics_batch is not None]:
        reason = (
            f"no GPU is used; '{grouped[0].name}' takes statistics of {grouped[0].statistics_batch} samples at a time"
        )
        return _xla("cpu", precision, seed), reason
    if recurrent:
        reason = (
            f"no GPU is used; '{recurrent[0]}' loops over its layers, at {LOOPS_COST} of what Paddle's executor needs"
        )
        return _xla("cpu", precision, seed, few_runs=few), reason
    if runs is None:
        return _xla("cpu", precision, seed), "no GPU is used; very many runs to come pay for compiling"
    noun = "updates" if trains else "batches"
    reason = f"no GPU is used; compiling pays from {PAYS_FROM[noun]} {noun} on, {runs} to come"
    if runs >= PAYS_FROM[noun]:
        return _xla("cpu", precision, seed), reason
    return _paddle("cpu", precision, seed), reason


def jax_sees_gpu() -> bool:
    """Whether JAX can compute on a GPU; jax is imported only where one of its device plugins is installed."""
    if not importlib.metadata.entry_points(group="jax_plugins"):
        return False
    import jax

    return any(device.platform == "gpu" for device in jax.devices())


def in_cluster() -> bool:
    """Whether the environment says that this process is one of several, of Slurm or Open MPI."""
    tasks = os.environ.get("SLURM_NTASKS") or os.environ.get("OMPI_COMM_WORLD_SIZE") or "1"
    return tasks.isdigit() and int(tasks) > 1


def _join(hosts: Hosts) -> bool:
    """Join the other processes if there are any; whether there are."""
    if hosts == Hosts() and not in_cluster():
        return False
    from fluid.engine.xla import distributed

    distributed.start(hosts.coordinator, hosts.num_hosts, hosts.host_id)
    return True


def _xla(device: str, precision: str, seed: int, kernels: str = "auto", few_runs: bool = False) -> Engine:
    from fluid.engine import xla

    return xla.create(device, precision, seed, kernels, few_runs)


def _paddle(device: str, precision: str, seed: int) -> Engine:
    with _paddle_for_good():
        from fluid.engine.paddle import PaddleEngine

    return PaddleEngine("cpu" if device == "auto" else device, precision, seed)


@contextmanager
def _paddle_for_good() -> Iterator[None]:
    """Import Paddle without looking for garbage meanwhile, nor ever among what stays: 0.4 CPU seconds less of a short process."""
    enabled, is_new = gc.isenabled(), "paddle" not in sys.modules
    gc.disable()
    try:
        yield
        if is_new:
            gc.freeze()
    finally:
        if enabled:
            gc.enable()
