"""The write-ahead log of an SQLite file is laid out before it is needed, and nothing of that is seen."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from everloop.store.sql.runners.sqlite_file import LAID_OUT, SqliteFile


@pytest.fixture
def file(tmp_path: Path) -> SqliteFile:
    return SqliteFile(tmp_path / "store.db")


@pytest.fixture
def connection(file: SqliteFile) -> Iterator[sqlite3.Connection]:
    with closing(file.connect()) as connection:
        file.migrate(connection)
        yield connection


def log_of(file: SqliteFile) -> Path:
    return file.path.with_name("store.db-wal")


def test_commits_write_over_what_was_laid_out(file: SqliteFile, connection: sqlite3.Connection) -> None:
    before = sorted(connection.execute("SELECT type, name, sql FROM sqlite_master"))
    (cache,) = connection.execute("PRAGMA cache_size").fetchone()

    file.lay_out(connection)

    size = log_of(file).stat().st_size
    assert size >= LAID_OUT
    assert sorted(connection.execute("SELECT type, name, sql FROM sqlite_master")) == before
    assert connection.execute("PRAGMA cache_size").fetchone() == (cache,)
    for value in range(50):
        connection.execute("INSERT OR REPLACE INTO ever_meta VALUES ('test', ?)", (value,))
    assert log_of(file).stat().st_size == size
    with closing(sqlite3.connect(file.path)) as other:
        assert other.execute("SELECT value FROM ever_meta WHERE name = 'test'").fetchone() == (49,)
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_log_that_is_long_enough_is_left_alone(file: SqliteFile, connection: sqlite3.Connection) -> None:
    file.lay_out(connection)
    changes, written = connection.total_changes, log_of(file).stat().st_mtime_ns

    file.lay_out(connection)

    assert (connection.total_changes, log_of(file).stat().st_mtime_ns) == (changes, written)


def test_a_full_disk_is_said_and_leaves_nothing_open(
    file: SqliteFile, connection: sqlite3.Connection
) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 10}")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        file.lay_out(connection)

    assert not connection.in_transaction
    connection.execute("INSERT OR REPLACE INTO ever_meta VALUES ('test', 1)")
    assert connection.execute("PRAGMA cache_size").fetchone() == (-65536,)
