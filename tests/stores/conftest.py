"""The stores under test: each by name, with a factory of fresh, unopened ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from everloop._core.clock import Clock, ManualClock
from everloop.store.memory import MemoryStore
from everloop.store.protocol import Store
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.store import SqliteStore
from everloop.store.sql.verbs import alone
from everloop.testing.conformance import Factory, Fault, FaultyFactory
from tests.helpers.mysql import mysql_store, side
from tests.helpers.servers.emptying import emptied
from tests.helpers.servers.fixtures import (
    mariadb,
    mariadb_kept,
    mariadb_url,
    postgresql,
    postgresql_kept,
    postgresql_url,
)

__all__ = [
    "mariadb",
    "mariadb_kept",
    "mariadb_url",
    "mysql_store",
    "postgresql",
    "postgresql_kept",
    "postgresql_url",
    "side",
]


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.server),
        pytest.param("mariadb", marks=pytest.mark.server),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(autouse=True)
def no_look_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment sends no turn of a test another way."""
    monkeypatch.setattr(alone, "LONG", 3_600_000_000)


Maker = Callable[[Clock, Fault | None], Store]


def _memory(_request: pytest.FixtureRequest) -> Maker:
    return lambda clock, _fault: MemoryStore(clock)


def _sqlite(request: pytest.FixtureRequest) -> Maker:
    folder: Path = request.getfixturevalue("tmp_path")
    numbers = count()
    return lambda clock, fault: SqliteStore(folder / f"{next(numbers)}.db", clock=clock, fault=fault)


def _postgresql(request: pytest.FixtureRequest) -> Maker:
    url: str = request.getfixturevalue("postgresql_kept")
    return lambda clock, fault: PostgresStore(emptied(url), clock=clock, fault=fault)


def _mysql(request: pytest.FixtureRequest) -> Maker:
    url: str = request.getfixturevalue("mariadb_kept")
    return lambda clock, fault: MysqlStore(emptied(url), clock=clock, fault=fault)


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
