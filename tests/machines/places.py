"""Where the machines find stores: fresh ones, quickly."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pymysql

from everloop._core.clock import Clock, ManualClock
from everloop.store import memory
from everloop.store.memory import MemoryStore
from everloop.store.protocol import DbapiConnection
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance import Fault
from tests.helpers.impossible import wrong
from tests.helpers.servers.emptying import TABLES
from tests.machines.world import Place

_TABLE = "CREATE TABLE IF NOT EXISTS orders (n INTEGER)"
#: Whether an image holds is not asked here, so that files need no disk.
_QUICK = Path("/dev/shm")

Make = Callable[[], Place]


class _Users:
    """Transactions of the user's, by a plain connection of a driver, made when it is first needed."""

    def __init__(self, connect: Callable[[], DbapiConnection], *, keys: bool = True) -> None:
        self._connect = connect
        self._connection: DbapiConnection | None = None
        self.keys = keys

    def begin(self) -> DbapiConnection:
        connection = self._connected()
        connection.cursor().execute("INSERT INTO orders (n) VALUES (1)")
        return connection

    def impossible(self) -> dict[str, Any]:
        with self._reading() as cursor:
            return wrong(cursor)

    def rows(self) -> int:
        with self._reading() as cursor:
            cursor.execute("SELECT count(*) FROM orders")
            ((n,),) = cursor.fetchall()
            return int(n)

    def execute(self, statements: Sequence[str]) -> None:
        """Execute statements in a transaction of their own."""
        connection = self._connected()
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        connection.commit()

    def answer(self, query: str) -> list[str]:
        """Return the first column of what a query finds."""
        with self._reading() as cursor:
            cursor.execute(query)
            return [first for first, *_ in cursor.fetchall()]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()  # type: ignore[attr-defined]  # every driver's can be closed
            self._connection = None

    def _connected(self) -> DbapiConnection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        connection = self._connected()
        try:
            yield connection.cursor()
        finally:
            connection.rollback()


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
            return Place(
                lambda clock, fault: SqliteStore(path, clock=clock, fault=fault),
                users=users,
                leave=users.close,
            )

        _make_empty(empty)
        yield make


def _make_empty(path: Path) -> None:
    asyncio.run(SqliteStore(path).migrate())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(_TABLE)
        connection.commit()


@contextmanager
def on_postgresql(url: str) -> Iterator[Make]:
    def store(clock: Clock, fault: Fault | None) -> PostgresStore:
        return PostgresStore(url, clock=clock, fault=fault)

    asyncio.run(store(ManualClock(), None).migrate())
    with closing(_Users(lambda: psycopg.connect(url))) as users:
        yield _kept(users, "current_schema()", lambda: Place(store, pieces=True, users=users))


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
            ssl_disabled=True,  # reading the authorities of this system takes longer than many steps
        )
        return connection

    def store(clock: Clock, fault: Fault | None) -> MysqlStore:
        return MysqlStore(url, clock=clock, fault=fault)

    asyncio.run(store(ManualClock(), None).migrate())
    # A transaction of theirs begins as REPEATABLE READ, in which no key can be judged.
    with closing(_Users(connect, keys=False)) as users:
        yield _kept(users, "DATABASE()", lambda: Place(store, users=users))


def _kept(users: _Users, schema: str, place: Make) -> Make:
    """Return what empties the one database, and makes a place of it again."""
    users.execute([_TABLE])
    emptying = [f"DELETE FROM {table}" for table in [*users.answer(TABLES.format(schema)), "orders"]]

    def make() -> Place:
        users.execute(emptying)
        return place()

    return make
