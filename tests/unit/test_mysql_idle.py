"""A transaction that stands still is ended by the server: by MariaDB at once, by MySQL with what is idle."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from everloop.store.sql.runners.mysql_connection import MysqlConnection, Rows


class Told(MysqlConnection):
    """A connection that notes what it is told."""

    def __init__(self, version: str, logs: Rows = []) -> None:  # noqa: B006 - only read
        self.told: list[str] = []
        self._says = version
        self._logs = logs

    def run(self, sql: str, doing: str | Sequence[str], results: list[Rows] | None = None) -> list[Rows]:
        self.told.append(sql)
        return [((self._says, 7, 1_000, "shop"),), self._logs, (("Ssl_cipher", ""),)]


@pytest.mark.parametrize(
    ("version", "idle"), [("8.0.36", ["SET wait_timeout = 30"]), ("10.11.6-MariaDB-0+deb12u1", [])]
)
def test_only_mysql_is_told_to_end_what_says_nothing(version: str, idle: list[str]) -> None:
    connection = Told(version)
    connection.prepare(encrypted=False)
    assert connection.told[1:] == idle
    # To MySQL this is a comment.
    assert "/*M!, idle_transaction_timeout = 5 */" in connection.told[0]


@pytest.mark.parametrize(
    ("version", "logs", "early"),
    [
        ("10.11.6-MariaDB", [], True),
        ("10.11.6-MariaDB", [("log_bin", "ON")], False),
        ("10.11.6-MariaDB", [("wsrep_on", "ON")], False),
        ("8.0.36", [], False),
    ],
)
def test_a_commit_is_seen_early_where_no_other_log_comes_between(
    version: str, logs: Rows, early: bool
) -> None:
    connection = Told(version, logs)
    connection.prepare(encrypted=False)
    assert connection.shows_early is early
