"""The servers, and a pool on a fresh database for each driver."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from everloop.resources.database import Database
from tests.helpers.pools import DRIVERS, Opened, opened
from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url

__all__ = ["mariadb", "mariadb_url", "postgresql", "postgresql_url"]


@pytest.fixture(params=list(DRIVERS))
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver in turn."""
    return str(request.param)


@pytest.fixture
def url(driver: str, request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database, with the driver."""
    server, scheme = DRIVERS[driver]
    given: str = request.getfixturevalue(server)
    return f"{scheme}://{given.partition('://')[2]}"


@pytest.fixture
async def pools(url: str) -> AsyncIterator[Callable[..., Database]]:
    """What opens a pool on the database with other options; closed with the test."""
    every: list[Opened] = []

    def make(**options: object) -> Database:
        every.append(opened(url, **options))
        return every[-1].db

    yield make
    for each in every:
        await each.close()


@pytest.fixture
def db(pools: Callable[..., Database]) -> Database:
    """A pool of two connections on the database."""
    return pools(pool_size=2)


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """Find what a driver has left open in the test that did it, and not in one that comes later."""
    yield
    gc.collect()
