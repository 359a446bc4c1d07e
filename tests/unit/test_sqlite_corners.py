"""What a store in a file meets seldom: odd files, odd errors, bells that nobody hears, closed threads."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from everloop._core.errors import ClosedError, ConfigError, StoreError, StoreUnavailable
from everloop._core.gate import write_gate
from everloop.store.sql.runners import doorbell, sqlite, sqlite_entry, sqlite_file
from everloop.store.sql.runners.doorbell import Doorbell
from everloop.store.sql.runners.sqlite import SqliteRunner, begin_patiently, explain
from everloop.store.sql.runners.sqlite_file import SqliteFile
from everloop.store.sql.runners.thread import ConnectionThread, leave
from everloop.store.sql.store import SqliteStore


@pytest.fixture
def file(tmp_path: Path) -> SqliteFile:
    return SqliteFile(tmp_path / "store.db")


@pytest.fixture
def connection(file: SqliteFile) -> Iterator[sqlite3.Connection]:
    with closing(file.connect()) as connection:
        yield connection


def failure(name: str, text: str = "the words of SQLite") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


class Raising:
    """Stands for a connection whose statements fail, or answer what a test says.

    Args:
        answers: By the beginning of the statement; anything else has no row.
    """

    in_transaction = False

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def execute(self, sql: str, parameters: Any = None) -> Any:
        self.asked.append(sql)
        answer = next((each for start, each in self._answers.items() if sql.startswith(start)), None)
        if isinstance(answer, BaseException):
            raise answer
        return SimpleNamespace(fetchone=lambda: answer)

    def close(self) -> None:
        """There is nothing to close."""


# -- the file -----------------------------------------------------------------------------------------------


def test_a_python_with_an_old_sqlite_is_refused(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.37.2")

    with pytest.raises(ConfigError) as caught:
        file.check_place()

    assert str(caught.value) == "this Python links SQLite 3.37.2; Everloop needs 3.38.0 or newer"


@pytest.mark.parametrize(("version", "said"), [((3, 51, 2), True), ((3, 51, 3), False)])
def test_a_sqlite_with_the_bug_of_checkpoints_is_told(
    file: SqliteFile,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: tuple[int, int, int],
    said: bool,
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    caplog.set_level(logging.INFO, "everloop")

    file.check_place()

    assert ("has the WAL-reset bug; one connection checkpoints" in caplog.text) is said


@pytest.mark.parametrize(
    ("closed", "written", "message"),
    [
        (
            True,
            (),
            "the folder '{folder}' of the store '{path}' is closed to this user; let it in (chmod), or",
        ),
        (False, ("folder",), "the store '{path}' is read-only for this user; Everloop has to write it"),
        (False, ("path",), "the folder '{folder}' is read-only for this user; SQLite keeps files beside"),
    ],
)
def test_what_this_user_may_not_write_is_told(  # in a process of another user: tests/engine/test_bad_stores
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch, closed: bool, written: tuple[str, ...], message: str
) -> None:
    file.path.touch()
    places = {"folder": file.path.parent, "path": file.path}
    monkeypatch.setattr(sqlite_file, "_is_closed", lambda folder: closed)
    monkeypatch.setattr(sqlite_file, "writable", lambda path: path in [places[name] for name in written])

    with pytest.raises(ConfigError) as caught:
        file.check_place()

    assert str(caught.value).startswith(message.format(**places))


def test_a_folder_that_may_not_be_looked_into_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(path)

    assert not sqlite_file._is_closed(tmp_path)
    assert not sqlite_file._is_closed(tmp_path / "none")
    monkeypatch.setattr(sqlite_file.os, "stat", refuse)
    assert sqlite_file._is_closed(tmp_path)


def test_where_the_mounts_cannot_be_read_the_file_system_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", refuse)

    assert sqlite_file.file_system(tmp_path) == ""


def test_a_file_that_cannot_be_opened_now_is_waited_for(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)

    with pytest.raises(
        StoreUnavailable, match=r"SQLite cannot open '.*store\.db': unable to open database file"
    ):
        file.connect()


@pytest.mark.parametrize(("mode", "level"), [("delete", 2), ("wal", 1)])
def test_settings_that_do_not_hold_are_refused(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch, mode: str, level: int
) -> None:
    # In this order: what is set is no question.
    odd = Raising(
        {"PRAGMA journal_mode": (mode,), "PRAGMA synchronous =": None, "PRAGMA synchronous": (level,)}
    )
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: odd)

    with pytest.raises(ConfigError) as caught:
        file.connect()

    assert str(caught.value) == (
        f"SQLite did not accept durable settings for {str(file.path)!r}: journal mode {mode!r} "
        f"(wanted 'wal'), synchronous {level} (wanted 2)"
    )


def test_a_migration_that_fails_leaves_nothing(
    file: SqliteFile, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_DONE", "INSERT INTO no_such_table VALUES (?, ?, ?)")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        file.migrate(connection)

    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert file.schema(connection) == 0


async def test_the_migrations_of_a_file_that_is_not_there_are_all_and_it_is_not_made(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")

    found, missing = await store.migrations()

    assert found == 0 and missing[0].number == 1
    assert store.script(missing)[-1].startswith("INSERT INTO ever_meta")
    assert not store.path.exists()
    await store.migrate()
    assert (await store.migrations())[1] == []
    assert store.script([]) == []


async def test_a_file_tells_its_size_and_its_settings(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(RuntimeError, match=r"the store is not open: `await store\.open\(\)` first"):
        await store.vitals()
    await store.open()
    await store.open()

    vitals = await store.vitals()
    await store.close()

    assert vitals.version == f"SQLite {sqlite3.sqlite_version}"
    assert vitals.size > 0
    assert [(each.name, each.value, each.wanted) for each in vitals.settings] == [
        ("journal_mode", "wal", "wal"),
        ("synchronous", "2", "2"),
    ]


def test_a_log_that_has_grown_large_is_cut_off(
    file: SqliteFile, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "COPY_AT", 1)
    monkeypatch.setattr(sqlite_file, "RESTART_AT", 1)
    monkeypatch.setattr(sqlite_file, "LAID_OUT", 1)
    connection.execute("CREATE TABLE a (b)")
    log = file.path.with_name("store.db-wal")
    assert log.stat().st_size > 0

    assert file.checkpoint(connection)

    assert log.stat().st_size == 0
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
    assert not file.checkpoint(connection), "there is nothing to copy"


def test_a_database_that_has_gone_is_not_this_file(file: SqliteFile, tmp_path: Path) -> None:
    assert not sqlite_entry._same([str(file.path)], tmp_path / "other.db")


# -- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("SQLITE_BUSY_SNAPSHOT", StoreUnavailable, "the SQLite file was locked for 30 s (COMMIT); another"),
        ("SQLITE_IOERR_FSYNC", StoreUnavailable, "SQLite cannot write (COMMIT): the words of SQLite"),
        ("SQLITE_CORRUPT", StoreError, "SQLite failed (COMMIT): the words of SQLite (SQLITE_CORRUPT)"),
        ("", StoreError, "SQLite failed (COMMIT): the words of SQLite"),
    ],
)
def test_an_error_says_what_failed_and_whether_it_may_pass(
    name: str, kind: type[StoreError], text: str
) -> None:
    told = explain(failure(name), "COMMIT")

    assert type(told) is kind
    assert str(told).startswith(text)


def test_only_a_file_that_is_locked_is_waited_for_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: Any = Raising({"BEGIN": failure("SQLITE_CORRUPT")})
    with pytest.raises(StoreError, match="SQLITE_CORRUPT"):
        begin_patiently(broken, "BEGIN")
    assert broken.asked == ["BEGIN"]

    clock, slept = iter([0.0, sqlite.PATIENCE - 1, sqlite.PATIENCE + 1]), list[float]()
    fake = SimpleNamespace(monotonic=lambda: next(clock), sleep=slept.append)
    monkeypatch.setattr(sqlite, "time", fake)
    locked: Any = Raising({"BEGIN": failure("SQLITE_BUSY")})
    with pytest.raises(StoreUnavailable, match="was locked for 30 s"):
        begin_patiently(locked, "BEGIN")
    assert (locked.asked, len(slept)) == (["BEGIN"] * 2, 1)


def test_a_commit_that_fails_is_explained() -> None:
    full: Any = Raising({"COMMIT": failure("SQLITE_FULL")})

    with pytest.raises(StoreUnavailable, match=r"cannot write \(COMMIT\).*is the disk full\?"):
        sqlite._commit(full)


# -- bells --------------------------------------------------------------------------------------------------


def test_bells_of_a_deep_folder_hang_where_a_path_to_them_is_short(tmp_path: Path) -> None:
    deep, other = (tmp_path / name / ("d" * 100) / "store.db" for name in "ab")

    folder = Doorbell(deep).folder

    assert len(str(folder)) <= doorbell._LONGEST
    assert Doorbell(deep).folder == folder != Doorbell(other).folder


def test_a_bell_that_is_full_of_rings_is_left_alone(tmp_path: Path) -> None:
    bell = Doorbell(tmp_path / "s")
    bell.folder.mkdir()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as stopped:
        stopped.bind(str(bell.folder / "7"))
        stopped.settimeout(0)
        for _ in range(10_000):  # far more than a socket takes
            bell.ring([7], workers=False)
        heard = 0
        with suppress(BlockingIOError):
            while True:
                stopped.recv(16)
                heard += 1
    bell.close()

    assert 0 < heard < 10_000


def test_a_bell_whose_process_has_died_is_rung_in_vain(tmp_path: Path) -> None:
    bell = Doorbell(tmp_path / "s")
    bell.folder.mkdir()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as dead:
        dead.bind(str(bell.folder / "7"))

    bell.ring([7], workers=False)

    assert bell.gone().keys() == {7}
    bell.close()


def test_a_bell_that_went_as_it_was_looked_at_is_no_dead_process(tmp_path: Path) -> None:
    bell = Doorbell(tmp_path / "s")
    bell.folder.mkdir()
    (bell.folder / "7").symlink_to(bell.folder / "gone")

    assert bell.gone() == {}


async def test_who_stops_listening_once_its_loop_is_closed_takes_its_bell_away(tmp_path: Path) -> None:
    bell = Doorbell(tmp_path / "s")
    stops: list[Callable[[], None]] = []

    async def listen() -> None:
        stops.append(bell.listen(7, lambda: None, worker=False))

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    thread.join()
    assert (bell.folder / "7").exists()

    stops[0]()

    assert not (bell.folder / "7").exists()


# -- threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connecting", [True, False])
def test_a_thread_is_waited_for_unless_it_connects(connecting: bool) -> None:
    joined: list[float] = []
    slow: Any = SimpleNamespace(join=joined.append, is_alive=lambda: len(joined) < 3)

    leave(slow, lambda: connecting)

    assert len(joined) == (1 if connecting else 3)


class Number(ConnectionThread[int]):
    """A thread whose connection is a number."""

    def __init__(self, connect: Callable[[], int]) -> None:
        self._make = connect
        self.disconnected: list[int] = []
        super().__init__("number", None)

    def run(self, begin: Any, *, write: bool = True, durable: bool = True) -> Any:
        raise NotImplementedError

    def _connect(self) -> int:
        return self._make()

    def _disconnect(self, connection: int) -> None:
        self.disconnected.append(connection)


async def test_a_closed_thread_takes_no_work(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "everloop")
    thread, done = Number(lambda: 7), list[int]()
    thread.post(done.append)
    thread.post(lambda number: number // 0)
    thread.close()
    thread.close()

    with pytest.raises(ClosedError, match="the store is closed"):
        thread.call(done.append)
    thread.post(done.append)

    assert (done, thread.disconnected) == ([7], [7])
    assert re.search("a hint could not be given: .*by zero", caplog.text)


async def test_a_connection_that_comes_when_nobody_waits_is_closed_and_the_work_fails() -> None:
    connecting, go_on = threading.Event(), threading.Event()

    def connect() -> int:
        connecting.set()
        go_on.wait(20)
        return 7

    thread = Number(connect)
    first, second = thread.call(str), thread.call(str)
    assert await asyncio.to_thread(connecting.wait, 20)
    thread.close()  # it is not waited for
    go_on.set()

    for answer in (first, second):
        with pytest.raises(ClosedError, match="the store was closed before there was a connection"):
            await answer
    assert thread.disconnected == [7]
    thread._thread.join()


def test_an_answer_to_a_loop_that_is_closed_is_dropped() -> None:
    thread, go_on, done = Number(lambda: 7), threading.Event(), list[int]()

    async def ask() -> None:
        thread.call(lambda number: (go_on.wait(20), done.append(number)))

    asyncio.run(ask())
    go_on.set()
    thread.close()

    assert done == [7]


async def test_an_answer_to_who_has_gone_is_dropped() -> None:
    thread, go_on = Number(lambda: 7), threading.Event()
    answer, after = thread.call(lambda number: go_on.wait(20)), thread.call(str)
    answer.cancel()
    go_on.set()

    assert await after == "7"
    assert answer.cancelled()
    thread.close()


async def test_a_write_that_lost_its_durable_setting_gets_it_back(file: SqliteFile) -> None:
    runner = SqliteRunner(file.connect, "test", write_gate(file.path), None)

    def verb() -> Iterator[Any]:
        raise ValueError("odd")
        yield

    with pytest.raises(ValueError, match="odd"):
        await runner.run(lambda: (None, verb()), durable=False)  # type: ignore[arg-type,return-value]  # a bad verb
    levels = await runner.call(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
    runner.close()

    assert levels == (2,)
