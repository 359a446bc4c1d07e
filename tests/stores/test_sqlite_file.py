"""An SQLite file: its write-ahead log, who copies that back, and numbers that outgrow smaller ones."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from everloop._core.calls import Event
from everloop._core.records import Lane, NewCall, Outcome, Parent, SessionInfo, Turn
from everloop.store.sql.runners import sqlite_file
from everloop.store.sql.runners.sqlite_file import LAID_OUT, SqliteFile
from everloop.store.sql.store import SqliteStore

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
MINUTE = 60_000_000


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


def test_who_is_refused_as_others_make_the_log_tries_again(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = list[str]()

    class Refused(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "journal_mode" in sql and len(refused) < 2:
                refused.append(sql)
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorname = "SQLITE_BUSY"
                raise error
            return super().execute(sql, *parameters)

    connect = partial(sqlite3.connect, factory=Refused)
    monkeypatch.setattr(sqlite_file, "sqlite3", SimpleNamespace(**vars(sqlite3) | {"connect": connect}))
    with closing(file.connect()) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(refused) == 2


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


def test_one_process_at_a_time_copies_the_log_back(
    file: SqliteFile, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    connection.set_trace_callback(lambda sql: copied.append(sql) if "checkpoint" in sql else None)
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    copied.clear()

    assert not file.checkpoint(connection), "it is short yet"
    monkeypatch.setattr(sqlite_file, "COPY_AT", 1)
    with Path(f"{file.path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not file.checkpoint(connection)
    assert copied == []
    assert file.checkpoint(connection)
    assert copied == ["PRAGMA wal_checkpoint(PASSIVE)"]


@pytest.mark.parametrize("limit", [2**31, 2**53], ids=["31 bits", "53 bits"])
async def test_numbers_may_outgrow_smaller_ones(file: SqliteFile, limit: int) -> None:
    store = SqliteStore(file.path)
    await store.open()
    with closing(sqlite3.connect(file.path, isolation_level=None)) as side:
        side.execute("UPDATE ever_meta SET value = ? WHERE name = 'seq'", (limit - 5,))
        calls = [NewCall(id=f"{n:08x}-0000-7000-8000-000000000000", lane=LANE, args=b"j") for n in range(10)]
        session = await store.open_session(WORKER, MINUTE)
        await store.turn(session, Turn(adds=calls))
        side.execute("UPDATE ever_calls SET fence = ?", (limit - 3,))

    for fence in (limit - 2, limit, limit + 2):  # it grows with each release, too
        leased = (await store.turn(session, Turn(lanes=(LANE,), room=20))).leased
        assert [(each.id, each.fence) for each in leased] == [(call.id, fence) for call in calls]
        if fence <= limit:
            again = [Outcome(call.id, fence, Event.RELEASE) for call in calls]
            assert all((await store.turn(session, Turn(outcomes=again))).settled)
    child = NewCall(
        id="000000ff-0000-7000-8000-000000000000",
        lane=LANE,
        args=b"j",
        parent=Parent(calls[-1].id, limit + 2),
        owned=True,
        child_key="k.1",
    )
    late = [Outcome(call.id, limit + 1, Event.SUCCEED, b"j1") for call in calls]
    ends = [Outcome(call.id, limit + 2, Event.SUCCEED, b"j1") for call in calls]
    answer = await store.turn(session, Turn(adds=[child], outcomes=[*late, *ends]))
    assert [added.status for added in answer.added] == ["added"]
    assert answer.settled == [False] * 10 + [True] * 10
    assert {end.id for end in answer.ended} == {call.id for call in calls}
    await store.close()
