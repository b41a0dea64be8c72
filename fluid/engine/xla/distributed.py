"""Several processes, on one host or many, as one engine, through `jax.distributed`."""

import logging
import os

from fluid.errors import EngineError

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def start(coordinator: str | None = None, num_hosts: int | None = None, host_id: int | None = None) -> None:
    """Join the other processes. Call it before anything else uses JAX.

    Args:
        coordinator: `HOST:PORT` of process 0, the same for all.
        num_hosts: how many processes take part.
        host_id: number of this one, from 0.

    With no argument the three are found from the cluster's environment (Slurm, Open MPI, Kubernetes); see
    `jax.distributed.initialize`. Raises EngineError if the processes cannot find each other.
    """
    given = [value is not None for value in (coordinator, num_hosts, host_id)]
    if any(given) and not all(given):
        raise EngineError("--coordinator, --num_hosts and --host_id belong together: give all three, or none")
    # Paddle's logging configuration would show where JAX listens and connects.
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # Where the flags say everything, a cluster around us must not hand out the GPUs once more.
        detection = "deactivate" if all(given) else None
        jax.distributed.initialize(coordinator, num_hosts, host_id, cluster_detection_method=detection)
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"cannot join the other hosts at {coordinator or 'the cluster'}: {error}") from None


def in_cluster() -> bool:
    """Whether the environment says that this process is one of several."""
    tasks = os.environ.get("SLURM_NTASKS") or os.environ.get("OMPI_COMM_WORLD_SIZE") or "1"
    return tasks.isdigit() and int(tasks) > 1


def host_id() -> int:
    """Number of this process; process 0 writes logs and checkpoints."""
    return jax.process_index()


def num_hosts() -> int:
    """Number of processes."""
    return jax.process_count()


def agree(flag: bool) -> bool:
    """Whether `flag` is true on any process: how they agree to stop at the same step. Every process must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def total_over_hosts(values: np.ndarray) -> np.ndarray:
    """The sum of an array over all processes. Every process must call it."""
    values = np.asarray(values)
    if jax.process_count() == 1:
        return values
    # Without 64 bits JAX would round counts and sums to 32.
    with jax.enable_x64(True):
        return multihost_utils.process_allgather(values).sum(0)


def wait_for_hosts(name: str) -> None:
    """Return when every process has called this with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host array on the devices; with several processes, this one's rows of a spread array, or its copy of a whole."""
    if jax.process_count() == 1:
        return jax.device_put(array, sharding)
    return jax.make_array_from_process_local_data(sharding, array)


def on_host(array: jax.Array) -> np.ndarray:
    """An array that every process holds whole."""
    return np.asarray(array if array.is_fully_addressable else array.addressable_data(0))


def own_rows(array: jax.Array) -> jax.Array:
    """Of an array spread over processes, the part that this one fed; other arrays as they are. Does not wait."""
    if array.is_fully_addressable:
        return array
    if array.is_fully_replicated:
        return array.addressable_data(0)
    spec = array.sharding.spec
    axis = next(axis for axis, name in enumerate(spec) if name is not None)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[axis].start or 0)
    local = jax.sharding.Mesh(np.array([shard.device for shard in shards]), array.sharding.mesh.axis_names)
    shape = list(array.shape)
    shape[axis] = sum(shard.data.shape[axis] for shard in shards)
    pieces = [shard.data for shard in shards]
    return jax.make_array_from_single_device_arrays(tuple(shape), NamedSharding(local, spec), pieces)
