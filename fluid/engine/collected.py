"""The outputs of many runs of a Program, kept until they are read together: nothing waits for the device before that."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Copied(Protocol):
    """An array on a device whose copy to the host can be begun before it is needed."""

    def copy_to_host_async(self) -> None:
        """Begin the copy."""


class Outputs:
    """Outputs as they come, in their order."""

    def __init__(self) -> None:
        self._runs: list[Mapping[str, Any]] = []
        self._on_host = 0

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Keep the outputs of one more run."""
        self._runs.append(outputs)

    def read(self) -> list[Mapping[str, Any]]:
        """Those of each run, on the host: all copies are under way before the first is waited for, and none is made twice."""
        latest = self._runs[self._on_host :]
        for value in (value for outputs in latest for value in outputs.values()):
            if isinstance(value, Copied):
                value.copy_to_host_async()
        self._runs[self._on_host :] = [{name: np.asarray(value) for name, value in item.items()} for item in latest]
        self._on_host = len(self._runs)
        return self._runs

    def clear(self) -> None:
        """Forget them."""
        self._runs, self._on_host = [], 0
