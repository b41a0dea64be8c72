"""How tests compile, which of them share a worker, and at the end of a run the seconds of each folder."""

import os
from collections import defaultdict

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile quickly here and in child processes, so that both compute the same bits; --full compiles as users do."""
    if config.option.markexpr == "not full":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module's tests share its fixtures and so a worker; those of one task among the shared tests do."""
    for item in items:
        task = getattr(item, "callspec", None) and item.callspec.params.get("task")
        item.add_marker(pytest.mark.xdist_group(f"{item.path}-{task}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds of each folder, the slowest first."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("/")[0]] += report.duration
    terminalreporter.section("seconds a folder")
    for folder, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        terminalreporter.line(f"{spent:7.1f}  {folder}")
