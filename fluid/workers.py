"""Worker processes that fill batches of arrays in memory shared with the main process.

A worker is a fresh interpreter that imports this module and what the reader needs: not the main script, not paddle, not
jax. It ends with its connection, so it outlives neither a killed main process nor a forgotten pool; it ignores Ctrl-C and
SIGTERM, since the main process decides when to stop. The shared memory consists of files without names, of which nothing
is left however the processes end, and is not bounded by the size of /dev/shm.

A batch's arrays are views of the memory they were read into. The memory is used again once the last view of it is gone;
so a batch may be kept, or be still on its way to a device, as long as it takes.

Grain offers such a pool, but in version 0.2.18 its workers import jax and run the main script again (which imports
paddle), and its shared memory has names that outlive the program until a resource tracker removes them.
"""

import contextlib
import itertools
import json
import mmap
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NoReturn, Protocol

from fluid import MEMORY
from fluid.errors import DataError

import numpy as np
from numpy.typing import DTypeLike

Layout = Mapping[str, tuple[tuple[int, ...], DTypeLike]]
"""Shape and dtype of each array of a batch."""
Allocate = Callable[[Layout], dict[str, np.ndarray]]
"""Gives uninitialised arrays of a layout."""

# An array starts at a multiple of this inside a batch's memory: a cache line, and what lets JAX take it without a copy.
_ALIGNMENT = 64
_STOP_SECONDS = 5

_BOOT = (
    "import json, sys\n"
    "path, *rest = json.loads(sys.argv[1])\n"
    "sys.path[:] = path\n"
    "from fluid.workers import _worker_main\n"
    "_worker_main(*rest)\n"
)
# One process a core is the parallelism; libraries that start a thread a core on top of it only get in each other's way.
_ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"], "1"
)


class Reader(Protocol):
    """What a worker does. Picklable; large arrays inside it are shared by all workers, read-only."""

    def read(self, task: Any, allocate: Allocate, progress: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """Fill the arrays of one batch, from one call of `allocate`, and return them with anything else worth telling.

        `progress[0]` is to be the index of the sample at hand.
        """
        ...

    def where(self, index: int) -> str:
        """Name a sample in the message about a worker that died of it."""
        ...


class Pool:
    """Reads batches ahead: `submit` tasks numbered without gaps, then ask for each `result` in the same order.

    Worker k of n reads tasks k, k + n, k + 2n, ..., so that a result always comes from a known worker.
    """

    def __init__(self, reader: Reader, num_workers: int) -> None:
        self._reader = reader
        description, reader_file = _dump(reader)
        progress_file = _anonymous_file(8 * num_workers)
        self._progress = np.frombuffer(mmap.mmap(progress_file, 8 * num_workers), np.int64)
        self._progress[:] = -1
        self._workers: list[_Worker] = []
        self._stop = weakref.finalize(self, _stop, self._workers)
        try:
            for number in range(num_workers):
                self._workers.append(_Worker(number, description, reader_file, progress_file))
        finally:
            os.close(reader_file)
            os.close(progress_file)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def submit(self, number: int, task: Any) -> None:
        """Queue a task; returns at once."""
        worker = self._workers[number % len(self._workers)]
        with contextlib.suppress(OSError):  # of a worker that is gone; result() tells why
            worker.connection.send((worker.free_slot(), task))

    def result(self, number: int) -> tuple[dict[str, np.ndarray], Any]:
        """Wait for a task and return what its `Reader.read` returned.

        Raises what that raised (its traceback in the worker is the cause), or DataError if the worker died.
        """
        worker = self._workers[number % len(self._workers)]
        try:
            reply = worker.connection.recv()
            if isinstance(reply, _Filled) and reply.moved:
                worker.map_slot(reply)
        except (EOFError, OSError):
            self._raise_death(worker, number)
        if isinstance(reply, _Failure):
            raise reply.error from RuntimeError(f"in data worker {worker.number}:\n{reply.traceback}")
        return _arrays_in(worker.lease(reply.slot), reply.layout), reply.note

    def close(self) -> None:
        """End the workers, in the middle of a batch if need be."""
        self._stop()

    def _raise_death(self, worker: "_Worker", number: int) -> NoReturn:
        code = worker.process.wait()
        cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        index = int(self._progress[worker.number])
        last = f"; it was reading {self._reader.where(index)}" if index >= 0 else ""
        raise DataError(
            f"data worker {worker.number} (pid {worker.process.pid}) {cause} before batch {number}{last}. "
            "A killed worker usually means that memory ran out: lower --num_workers or --batch_size. "
            "A crash usually means that this file breaks its decoder."
        ) from None


@dataclass
class _Filled:
    """A batch is ready in a slot of the worker's memory."""

    slot: int
    layout: list[tuple[str, tuple[int, ...], str, int]]  # name, shape, dtype and offset of each array
    size: int
    moved: bool  # whether the slot is new memory, whose descriptor follows
    note: Any


@dataclass
class _Failure:
    """An exception on its way to the main process."""

    error: Exception
    traceback: str


class _Worker:
    """The main process's end of one worker, and the memory the two share, a slot a batch."""

    def __init__(self, number: int, description: bytes, reader_file: int, progress_file: int) -> None:
        self.number = number
        self.slots: dict[int, mmap.mmap] = {}
        self.free: list[int] = []
        self.unused = itertools.count()
        ours, theirs = socket.socketpair()
        with theirs:
            files = theirs.fileno(), reader_file, progress_file
            # Ctrl-C in a terminal reaches every process of the group; blocking it here keeps it from a worker that has
            # not yet got round to ignoring it.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, json.dumps([sys.path, *files, number])],
                    stdin=subprocess.DEVNULL,
                    pass_fds=files,
                    env=os.environ | _ONE_THREAD,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.connection = Connection(ours.detach())
        with contextlib.suppress(OSError):  # of a worker that is gone; result() tells why
            self.connection.send_bytes(description)

    def free_slot(self) -> int:
        return self.free.pop() if self.free else next(self.unused)

    def map_slot(self, filled: _Filled) -> None:
        try:
            descriptor = recv_handle(self.connection)
        except RuntimeError:  # of a descriptor that the system did not let in
            raise DataError(
                "no file handle is left for the batches of the data workers: raise `ulimit -n` or lower --num_workers"
            ) from None
        self.slots[filled.slot] = mmap.mmap(descriptor, filled.size)
        os.close(descriptor)

    def lease(self, slot: int) -> np.ndarray:
        """The slot's memory as bytes; the slot is free again once this array and every view of it are gone."""
        memory = np.frombuffer(self.slots[slot], np.uint8)
        weakref.finalize(memory, self.free.append, slot).atexit = False
        return memory


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()  # a worker ends when its connection does
    for worker in workers:
        try:
            worker.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def empty_arrays(layout: Layout) -> dict[str, np.ndarray]:
    """The `Allocate` of a process that reads for itself."""
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in layout.items()}


# Shared memory


def _anonymous_file(size: int) -> int:
    """A file of at least one byte without a name, in memory where the system has that. Raises DataError if that is full."""
    too_large = f"no memory for a batch of {size / 2**20:.0f} MiB, of which several are held: lower --batch_size"
    if size > MEMORY // 4:
        raise DataError(too_large)
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batch")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        # Reserve the memory now: running out of it later would be a bus error, not an exception.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, max(size, 1))
        else:
            os.truncate(descriptor, max(size, 1))
    except OSError:
        os.close(descriptor)
        raise DataError(too_large) from None
    return descriptor


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _arrays_in(memory: np.ndarray, layout: list[tuple[str, tuple[int, ...], str, int]]) -> dict[str, np.ndarray]:
    feed = {}
    for name, shape, dtype, offset in layout:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        feed[name] = memory[offset : offset + size].view(dtype).reshape(shape)
    return feed


def _dump(reader: Reader) -> tuple[bytes, int]:
    """Pickle `reader` into a file that all workers map, its large arrays apart so that they exist once; and where."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(reader, protocol=5, buffer_callback=buffers.append)
    views = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    offsets = np.cumsum([0] + [_aligned(view.nbytes) for view in views]).tolist()
    descriptor = _anonymous_file(offsets[-1])
    with mmap.mmap(descriptor, offsets[-1]) as memory:
        for view, offset in zip(views, offsets):
            memory[offset : offset + view.nbytes] = view
    return json.dumps([(offset, view.nbytes) for view, offset in zip(views, offsets)]).encode(), descriptor


def _load(description: bytes, descriptor: int) -> Reader:
    memory = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    body, *buffers = (memory[offset : offset + size] for offset, size in json.loads(description))
    return pickle.loads(body, buffers=buffers)


# What runs in a worker


def _worker_main(connection: int, reader_file: int, progress_file: int, number: int) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    link = Connection(connection)
    description = link.recv_bytes()
    tasks: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive_tasks, args=(link, tasks), daemon=True).start()
    progress = np.frombuffer(mmap.mmap(progress_file, 0), np.int64)[number : number + 1]
    slots: dict[int, mmap.mmap] = {}
    reader: Reader | None = None
    while True:
        slot, task = tasks.get()
        reply: _Filled | _Failure
        descriptor = None
        try:
            reader = reader or _load(description, reader_file)
            reply, descriptor = _fill(reader, slot, task, slots, progress)
        except Exception as error:
            reply = _failure(error)
        progress[0] = -1
        with contextlib.suppress(OSError):  # the main process is gone, and so is this one in a moment
            link.send(reply)
            if descriptor is not None:
                send_handle(link, descriptor, None)
                os.close(descriptor)


def _receive_tasks(link: Connection, tasks: queue.SimpleQueue) -> None:
    """Pass tasks on; end the process, in the middle of a sample if need be, when the main process is gone."""
    parent = os.getppid()
    with contextlib.suppress(EOFError, OSError):
        while os.getppid() == parent:
            if link.poll(1.0):
                tasks.put(link.recv())
    os._exit(0)


def _fill(
    reader: Reader, slot: int, task: Any, slots: dict[int, mmap.mmap], progress: np.ndarray
) -> tuple[_Filled, int | None]:
    """Read a batch into a slot; return the news, and the descriptor of the slot's memory if that is new."""
    layout: list[tuple[str, tuple[int, ...], str, int]] = []
    size, descriptor = 0, None

    def allocate(arrays: Layout) -> dict[str, np.ndarray]:
        nonlocal size, descriptor
        for name, (shape, kind) in arrays.items():
            dtype = np.dtype(kind)
            if dtype.hasobject:
                raise TypeError(f"{name} has dtype {dtype}; a batch holds numbers only")
            layout.append((name, shape, dtype.str, size))
            size += _aligned(int(np.prod(shape)) * dtype.itemsize)
        if slot not in slots or len(slots[slot]) < size:
            descriptor = _anonymous_file(size)
            slots[slot] = mmap.mmap(descriptor, size)
        return _arrays_in(np.frombuffer(slots[slot], np.uint8), layout)

    _, note = reader.read(task, allocate, progress)
    return _Filled(slot, layout, size, descriptor is not None, note), descriptor


def _failure(error: Exception) -> _Failure:
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        # Exceptions whose constructor asks for more than a message do not survive pickling, and any constructor may fail
        # in a way of its own; the original's text and traceback travel all the same.
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return _Failure(error, text)
