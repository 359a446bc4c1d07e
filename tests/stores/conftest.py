"""The stores under test: each by name, with a factory of fresh, unopened ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

import psycopg
import pytest

from everloop._core.clock import Clock, ManualClock
from everloop.store.memory import MemoryStore
from everloop.store.protocol import Store
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.runners.mysql_connection import connect
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance import Factory, Fault, FaultyFactory
from tests.helpers.mysql import mysql_store, side
from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.postgresql import PostgresServer

__all__ = ["mariadb", "mariadb_url", "mysql_store", "postgresql", "postgresql_url", "side"]


Maker = Callable[[Clock, Fault | None], Store]


def _memory(_request: pytest.FixtureRequest) -> Maker:
    return lambda clock, _fault: MemoryStore(clock)


def _sqlite(request: pytest.FixtureRequest) -> Maker:
    folder: Path = request.getfixturevalue("tmp_path")
    numbers = count()
    return lambda clock, fault: SqliteStore(folder / f"{next(numbers)}.db", clock=clock, fault=fault)


def _postgresql(request: pytest.FixtureRequest) -> Maker:
    url: str = request.getfixturevalue("postgresql_schema")

    def make(clock: Clock, fault: Fault | None) -> Store:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(empty(connection.execute(TABLES).fetchall()).encode())
        return PostgresStore(url, clock=clock, fault=fault)

    return make


def _mysql(request: pytest.FixtureRequest) -> Maker:
    url: str = request.getfixturevalue("mysql_database")
    address = address_of(url)

    def make(clock: Clock, fault: Fault | None) -> Store:
        with closing(connect(address)) as connection:
            connection.run(empty(connection.run(MYSQL_TABLES, "listing")[0]), "emptying")
        return MysqlStore(url, clock=clock, fault=fault)

    return make


#: Of a database; its locks of keys are rows that are always there.
MYSQL_TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name NOT IN ('ever_meta', 'ever_key_locks')
"""
TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_name LIKE 'ever%' AND table_name <> 'ever_meta'
"""


def empty(tables: Iterable[Sequence[str]]) -> str:
    """Return what deletes everything: on small tables quicker than making them anew."""
    return ";".join(f"DELETE FROM {table}" for (table,) in tables) or "SELECT 1"


@pytest.fixture(scope="session")
def postgresql_schema(postgresql: PostgresServer) -> Iterator[str]:
    """A database of the session with the schema in it."""
    url = postgresql.database()
    yield url
    postgresql.drop(url)


@pytest.fixture(scope="session")
def mysql_database(mariadb: MariaServer) -> Iterator[str]:
    """A database of the session."""
    url = mariadb.database()
    yield url
    mariadb.drop(url)


#: Every store that Everloop has, by the scheme of its URL.
STORES: dict[str, Callable[[pytest.FixtureRequest], Maker]] = {
    "memory": _memory,
    "mysql": _mysql,
    "postgresql": _postgresql,
    "sqlite": _sqlite,
}


#: Those that need a server.
SERVERS = {"mysql", "postgresql"}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.server if name in SERVERS else ()) for name in sorted(STORES)
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def faulty_factory(kind: str, request: pytest.FixtureRequest) -> FaultyFactory:
    return STORES[kind](request)


@pytest.fixture
def factory(kind: str, request: pytest.FixtureRequest) -> Factory:
    make = STORES[kind](request)
    return lambda clock: make(clock, None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(factory: Factory, clock: ManualClock) -> AsyncIterator[Store]:
    """An open store, whose clock stands still until the test moves it."""
    store = factory(clock)
    await store.open()
    yield store
    await store.close()
