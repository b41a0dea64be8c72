"""Several processes, on one host or many, as one engine, through `jax.distributed`."""

import json
import logging
import math

from fluid.errors import EngineError

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

# Bytes in which a process tells the others of its rows' shape and type.
_HEADER = 512


def start(coordinator: str | None = None, num_hosts: int | None = None, host_id: int | None = None) -> None:
    """Join the other processes. Call it before anything else uses JAX.

    Args:
        coordinator: `HOST:PORT` of process 0, the same for all.
        num_hosts: how many processes take part.
        host_id: number of this one, from 0.

    With no argument the three are found from the cluster's environment (Slurm, Open MPI); see
    `jax.distributed.initialize`. Raises EngineError if the processes cannot find each other.
    """
    given = [value is not None for value in (coordinator, num_hosts, host_id)]
    if any(given) and not all(given):
        raise EngineError("--coordinator, --num_hosts and --host_id belong together: give all three, or none")
    # Paddle's logging configuration would show where JAX listens and connects.
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # JAX would swallow every SIGTERM until `stop_on_signals` watches them.
        jax.config.update("jax_enable_preemption_service", False)
        # Where the flags say everything, a cluster around us must not hand out the GPUs once more.
        detection = "deactivate" if all(given) else None
        jax.distributed.initialize(coordinator, num_hosts, host_id, cluster_detection_method=detection)
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"cannot join the other hosts at {coordinator or 'the cluster'}: {error}") from None


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


def rows_of_hosts(array: np.ndarray) -> np.ndarray:
    """The rows of all processes in the order of the processes, any number each. Every process must call it.

    Raises EngineError, in every process, if their rows are of different shapes or types, or objects.
    """
    if jax.process_count() == 1:
        return array
    # They travel as bytes: JAX would turn 64 bits into 32, and knows no text.
    header = json.dumps([array.dtype.str, array.shape]).encode().ljust(_HEADER)
    layouts = [json.loads(bytes(text)) for text in multihost_utils.process_allgather(np.frombuffer(header, np.uint8))]
    filled = [(kind, tuple(shape)) for kind, shape in layouts if shape[0]]
    if len({(kind, shape[1:]) for kind, shape in filled}) > 1 or any("O" in kind for kind, _ in filled):
        listed = ", ".join(f"{kind} {list(shape)}" for kind, shape in filled)
        raise EngineError(f"the rows of the processes do not make one array: they are {listed}")
    if not filled:
        return array
    kind, item = np.dtype(filled[0][0]), filled[0][1][1:]
    sizes = [shape[0] * kind.itemsize * math.prod(item) for _, shape in layouts]
    padded = np.zeros(max(*sizes, 1), np.uint8)
    padded[: sizes[jax.process_index()]] = np.frombuffer(array.tobytes(), np.uint8)
    gathered = multihost_utils.process_allgather(padded)
    data = b"".join(row[:size].tobytes() for row, size in zip(gathered, sizes, strict=True))
    return np.frombuffer(bytearray(data), kind).reshape(sum(shape[0] for _, shape in layouts), *item)


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
    sharding = array.sharding
    assert isinstance(sharding, NamedSharding)
    spec = sharding.spec
    axis = next(axis for axis, name in enumerate(spec) if name is not None)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[axis].start or 0)
    local = jax.sharding.Mesh(np.array([shard.device for shard in shards]), sharding.mesh.axis_names)
    shape = list(array.shape)
    shape[axis] = sum(shard.data.shape[axis] for shard in shards)
    pieces = [shard.data for shard in shards]
    return jax.make_array_from_single_device_arrays(tuple(shape), NamedSharding(local, spec), pieces)
