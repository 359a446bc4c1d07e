"""A store on MariaDB, and what tests of it share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pymysql
import pytest

from everloop._core.records import Lane, NewCall, SessionInfo
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql_connection import MysqlConnection, connect

__all__ = ["mysql_store", "side"]

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
CLIENT = SessionInfo(app="a", kind="client", host="here", pid=1)
MINUTE = 60_000_000


def call(number: int, lane: Lane = LANE, args: bytes = b"j", **rest: Any) -> NewCall:
    return NewCall(id=f"{number:08x}-0000-7000-8000-000000000000", lane=lane, args=args, **rest)


@pytest.fixture
async def mysql_store(mariadb_url: str) -> AsyncIterator[MysqlStore]:
    """An open store on a database of its own."""
    store = MysqlStore(mariadb_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def side(mariadb_url: str) -> Iterator[MysqlConnection]:
    """A connection of somebody else's to the same database."""
    with closing(connect(address_of(mariadb_url))) as connection:
        yield connection


@contextmanager
def transaction(side: MysqlConnection, *statements: str) -> Iterator[None]:
    """Hold a transaction of somebody else's open, in which these statements have run."""
    side.run(";\n".join(["START TRANSACTION", *statements]), "holding")
    yield
    side.run("ROLLBACK", "letting go")


def users_connection(url: str) -> pymysql.Connection:
    """Return a connection that the driver has opened, as a user's is."""
    address = address_of(url)
    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=address.database,
        ssl_disabled=True,
    )
