"""Pools on real servers: one on a database of a test, and what the server itself says of its connections."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from everloop.resources.database import Database
from everloop.resources.resource import ResourcePool

#: Each driver: the fixture of its server, and the scheme of its URL.
DRIVERS = {
    "aiomysql": ("mariadb_url", "mysql+aiomysql"),
    "asyncmy": ("mariadb_url", "mysql+asyncmy"),
    "asyncpg": ("postgresql_url", "postgresql+asyncpg"),
    "psycopg": ("postgresql_url", "postgresql+psycopg"),
}
#: How long the server may take to notice what it has been told.
SOON_S = 5.0

#: Counts the statements like `:what` that run; by whether it is MySQL.
RUNNING = {
    True: "select count(*) from information_schema.processlist where info like :what "
    "and id <> connection_id()",
    False: "select count(*) from pg_stat_activity where query like :what and state = 'active' "
    "and pid <> pg_backend_pid()",
}
_CONNECTED = {
    True: "select count(*) from information_schema.processlist where id <> connection_id()",
    False: "select count(*) from pg_stat_activity where datname = current_database() "
    "and pid <> pg_backend_pid()",
}


@dataclass
class Opened:
    """A database, and what closes it."""

    db: Database
    _pool: ResourcePool

    async def close(self) -> None:
        await self._pool.aclose()


def opened(url: str, **options: Any) -> Opened:
    """Declare a database; it is opened with its first use."""
    pool = ResourcePool()
    return Opened(Database(pool, url, store_url=lambda: "memory://", **options), pool)


def is_mysql(url: str) -> bool:
    return url.startswith("mysql")


def sleeping(url: str, seconds: str = ":seconds") -> str:
    """Return a statement that gives the number `:n` after a while."""
    if is_mysql(url):
        return f"select :n, sleep({seconds})"
    return f"select cast(:n as bigint), pg_sleep({seconds})"


async def ask(url: str, statement: str, **parameters: object) -> Any:
    """Ask the server over a connection that no pool knows."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as conn:
            return (await conn.execute(text(statement), parameters)).scalar()
    finally:
        await engine.dispose()


async def running(url: str, what: str) -> int:
    """Count the statements like `what` that run on the server."""
    return int(await ask(url, RUNNING[is_mysql(url)], what=what))


async def connected(url: str) -> int:
    """Count the connections of this user or database."""
    return int(await ask(url, _CONNECTED[is_mysql(url)]))


async def becomes(expected: int, count: Any) -> None:
    """Wait until `await count()` is this number; the server is asked anew each time."""
    deadline = time.monotonic() + SOON_S
    while (found := await count()) != expected:
        assert time.monotonic() < deadline, f"{found}, not {expected}, after {SOON_S:g} s"
        await asyncio.sleep(0.01)
