"""What a suite that kills imports into its conftest: its kills are shown, and stand in its report.

`make test` adds up the numbers in the reports of all suites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.helpers import kills

__all__ = ["kills_are_counted", "pytest_terminal_summary"]


@pytest.fixture(scope="session", autouse=True)
def kills_are_counted(record_testsuite_property: Callable[[str, object], None]) -> Iterator[None]:
    yield
    for kind, times in kills.counted().items():
        record_testsuite_property(kills.REPORTED + kind, times)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if kills.counted():
        terminalreporter.section("real kills")
        terminalreporter.line(kills.told())
        kills.forget()  # where two suites run as one, each has this hook
