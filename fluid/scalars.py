"""A run's numbers for TensorBoard, written by the thread that trains.

The writer that tensorboardX offers has a thread and a queue of ten: where that thread dies, of a full disk say, the queue
fills and training waits for it for ever. A clock that is set back makes it wait as long.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluid.text import as_text

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

FLUSH_SECONDS = 30


class Scalars:
    """A file of events in `folder`, which is made.

    Args:
        folder: where TensorBoard looks.
        first_step: of a run that goes on: TensorBoard forgets what earlier files say of this step and those beyond it.

    Everything raises OSError where the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        # Names of files have seconds; a run that goes on within one would write over its earlier file.
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._flushed = time.monotonic()
        if first_step is not None:
            self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))
        self._file.flush()

    def add(self, name: str, value: float, step: int) -> None:
        """Write one number."""
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)])))
        if time.monotonic() > self._flushed + FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def add_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Write what the run was started with, for TensorBoard's table of runs: numbers, words and switches."""
        known = {name: as_text(value) if isinstance(value, str) else value for name, value in values.items()}
        shown = {name: value for name, value in known.items() if isinstance(value, (bool, int, float, str))}
        for summary in hparams(shown, {}):
            self._write(Event(step=0, summary=summary))
        self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write_event(event)
