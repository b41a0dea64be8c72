"""Each task in turn, and a run of it that the shared tests share."""

from pathlib import Path

from fluid.tests.tasks import FOLDERS, Task, open_task, train

import pytest


@pytest.fixture(scope="session", params=FOLDERS, ids=lambda folder: folder.name)
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Each task in turn."""
    return open_task(request.param, tmp_path_factory.mktemp(request.param.name))


@pytest.fixture(scope="session")
def run(task: Task) -> Path:
    """A run of three steps, with its diagrams."""
    return train(task, task.place / "run", "--engine", "paddle", draw=True)
