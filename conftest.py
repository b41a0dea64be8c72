"""How tests compile and compute, which of them share a worker, and at the end of a run the seconds of each folder and task."""

import os
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from importlib import metadata

import pytest

DEAREST = 15
"""Lines of a table, at most."""
COMPILED = pytest.StashKey[str]()
spent = 0.0
"""Seconds of the processor when the latest report was made."""


def pytest_configure(config: pytest.Config) -> None:
    """Compile quickly here and in child processes, so that both compute the same bits; --full compiles as users do.

    What one process of a run has compiled, the others find. Each computes in one thread: the cores are shared by processes,
    and threads that wait for each other cost a fifth of the seconds.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if config.option.markexpr == "not full":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        # Code in one piece, which one thread compiles, takes a sixth less time than in many.
        flags = [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_parallel_codegen_split_count=1"]
        if metadata.version("jaxlib").startswith("0.10."):
            # The emitters of fusions that XLA had before compile a training step in half the time. jaxlib 0.11.1 has them no
            # longer, and XLA ends a process that names their flag.
            flags.append("--xla_cpu_use_fusion_emitters=false")
        os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    if not hasattr(config, "workerinput"):
        config.stash[COMPILED] = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled_")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was compiled."""
    if COMPILED in config.stash:
        shutil.rmtree(config.stash[COMPILED], ignore_errors=True)


@pytest.fixture
def heeded() -> Iterator[None]:
    """Where the tests run under nohup, SIGHUP is ignored, by child processes as well."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def task_of(item: pytest.Item) -> str | None:
    """The task that a shared test is about."""
    task = getattr(item, "callspec", None) and item.callspec.params.get("task")
    return task and getattr(task, "name", task)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module's tests share its fixtures and so a worker; the shared tests of one task do, whatever their module."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(task_of(item) or str(item.path)))


def pytest_collection_finish() -> None:
    """From here on it is the tests that cost."""
    processor_seconds()


def processor_seconds() -> float:
    """What this process and its children have spent since this was last asked, however many others share the cores."""
    global spent
    before, spent = spent, sum(os.times()[:4])
    return spent - before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report what a test has spent, and on which task."""
    report = yield
    report.user_properties += [("processor", processor_seconds()), ("task", task_of(item))]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds by the clock and of the processor: of each folder, of each task in tests/, of the dearest tests."""
    folders: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    tasks: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    tests: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                said = dict(report.user_properties)
                where = [folders[report.nodeid.partition("/")[0]], tests[report.nodeid]]
                where += [tasks[said["task"]]] if said.get("task") else []
                for seconds in where:
                    seconds[0] += report.duration
                    seconds[1] += said.get("processor", 0.0)
    for title, table in (("folder", folders), ("task of the shared tests", tasks), ("test, the dearest", tests)):
        if table:
            terminalreporter.section(f"seconds a {title}: by the clock, of the processor")
        for name, (clock, processor) in sorted(table.items(), key=lambda item: -item[1][1])[:DEAREST]:
            terminalreporter.line(f"{clock:7.1f} {processor:7.1f}  {name}")
