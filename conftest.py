"""At the end of a test run: how long the tests of each folder took."""

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds of each folder, the slowest first."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("/")[0]] += report.duration
    terminalreporter.section("seconds a folder")
    for folder, spent in seconds.most_common():
        terminalreporter.line(f"{spent:7.1f}  {folder}")
