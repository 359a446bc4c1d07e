"""Where the machines find stores: fresh ones, quickly."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pymysql

from everloop._core.clock import Clock
from everloop.store import memory
from everloop.store.memory import MemoryStore
from everloop.store.protocol import DbapiConnection
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance import Fault
from tests.helpers.impossible import IMPOSSIBLE
from tests.helpers.servers.emptying import emptied
from tests.machines.world import Place

_TABLE = "CREATE TABLE IF NOT EXISTS orders (n INTEGER)"
#: Whether an image holds is not asked here, so that files need no disk.
_QUICK = Path("/dev/shm")

Make = Callable[[], Place]


class _Users:
    """Transactions of the user's, by a plain connection of a driver."""

    def __init__(self, connect: Callable[[], DbapiConnection], *, keys: bool = True) -> None:
        self._connect = connect
        self.keys = keys

    def begin(self) -> DbapiConnection:
        connection = self._connect()
        connection.cursor().execute("INSERT INTO orders (n) VALUES (1)")
        return connection

    def impossible(self) -> dict[str, Any]:
        with closing(self._connect()) as connection:  # type: ignore[type-var]  # every driver's can be closed
            cursor = connection.cursor()
            found: dict[str, Any] = {}
            for what, query in IMPOSSIBLE.items():
                cursor.execute(query)
                found[what] = list(cursor.fetchall())
            return {what: rows for what, rows in found.items() if rows}

    def rows(self) -> int:
        with closing(self._connect()) as connection:  # type: ignore[type-var]  # every driver's can be closed
            cursor = connection.cursor()
            cursor.execute("SELECT count(*) FROM orders")
            ((n,),) = cursor.fetchall()
            return int(n)


@contextmanager
def in_memory() -> Iterator[Make]:
    names = count()

    def make() -> Place:
        url = f"memory://machine-{next(names)}"
        for name in [name for name in memory._named if name.startswith("machine-")]:
            del memory._named[name]
        return Place(lambda clock, _fault: MemoryStore(clock, url), strikes=False)

    yield make


@contextmanager
def in_files() -> Iterator[Make]:
    with TemporaryDirectory(dir=_QUICK if _QUICK.is_dir() else None, prefix="everloop-machines-") as name:
        folder, numbers = Path(name), count()
        empty = folder / "empty.db"

        def make() -> Place:
            path = folder / f"{next(numbers)}.db"
            shutil.copy(empty, path)
            for old in folder.glob(f"{int(path.stem) - 1}.db*"):
                old.unlink()
            users = _Users(lambda: sqlite3.connect(path))
            return Place(lambda clock, fault: SqliteStore(path, clock=clock, fault=fault), users=users)

        _make_empty(empty)
        yield make


def _make_empty(path: Path) -> None:
    import asyncio

    asyncio.run(SqliteStore(path).migrate())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(_TABLE)
        connection.commit()


@contextmanager
def on_postgresql(url: str) -> Iterator[Make]:
    def make() -> Place:
        emptied(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DELETE FROM orders")
        users = _Users(lambda: psycopg.connect(url))
        return Place(
            lambda clock, fault: PostgresStore(url, clock=clock, fault=fault), pieces=True, users=users
        )

    _prepare(lambda clock, fault: PostgresStore(url, clock=clock, fault=fault))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLE)
    yield make


@contextmanager
def on_mysql(url: str) -> Iterator[Make]:
    def connect() -> DbapiConnection:
        where = address_of(url)
        connection: DbapiConnection = pymysql.connect(
            host=where.host,
            port=where.port,
            user=where.user,
            password=where.password,
            database=where.database,
        )
        return connection

    def make() -> Place:
        emptied(url)
        _execute(connect, "DELETE FROM orders")
        # A transaction of theirs begins as REPEATABLE READ, in which no key can be judged.
        users = _Users(connect, keys=False)
        return Place(lambda clock, fault: MysqlStore(url, clock=clock, fault=fault), users=users)

    _prepare(lambda clock, fault: MysqlStore(url, clock=clock, fault=fault))
    _execute(connect, _TABLE)
    yield make


def _prepare(store: Callable[[Clock, Fault | None], MysqlStore | PostgresStore]) -> None:
    import asyncio

    from everloop._core.clock import ManualClock

    asyncio.run(store(ManualClock(), None).migrate())


def _execute(connect: Callable[[], DbapiConnection], statement: str) -> None:
    connection = connect()
    connection.cursor().execute(statement)
    connection.commit()
    connection.close()  # type: ignore[attr-defined]  # every driver's can be closed
