"""A store on PostgreSQL with a session that listens, and what its server does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from everloop._core.records import Lane, NewCall, SessionInfo, Turn, TurnAnswer
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.runners.postgresql_direct import Direct
from tests.helpers.waiting import until

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
CLIENT = SessionInfo(app="a", kind="client", host="here", pid=2)
MINUTE = 60_000_000
LIMIT_S = 20.0
LISTENING = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE '% that listens%' AND datname = current_database()
"""
WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


def call(number: int, args: bytes = b"j", **rest: Any) -> NewCall:
    return NewCall(id=f"{number:08x}-0000-7000-8000-000000000000", lane=LANE, args=args, **rest)


class Listening:
    """A store with a session that listens."""

    def __init__(self, url: str) -> None:
        self.store = PostgresStore(url)
        self.rung = asyncio.Event()
        self.session = 0

    async def open(self, info: SessionInfo) -> Listening:
        await self.store.open()
        self.session = await self.store.open_session(info, MINUTE)
        await self.store.turn(self.session, Turn(lanes=(LANE,)))  # numbers the lane
        self.stop = self.store.listen(self.session, self.rung.set)
        await self.connected()
        return self

    async def connected(self) -> Direct:
        async with asyncio.timeout(LIMIT_S):
            while (direct := self.store._listeners[self.session].direct) is None:
                await asyncio.sleep(0.01)
        return direct

    @property
    def trips(self) -> tuple[int, int]:
        """Round trips on the connection that listens, and in the thread."""
        direct = self.store._listeners[self.session].direct
        return direct.trips if direct is not None else 0, self.store._runner().trips

    async def turn(self, turn: Turn) -> tuple[Any, tuple[int, int]]:
        """Take a turn; return its answer and the round trips that it took."""
        direct, thread = self.trips
        answer = await self.store.turn(self.session, turn)
        return answer, (self.trips[0] - direct, self.trips[1] - thread)

    async def is_rung(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self.rung.wait()
        self.rung.clear()


@asynccontextmanager
async def under_way(client: Listening, url: str) -> AsyncIterator[asyncio.Task[TurnAnswer]]:
    """Add the first call; until the block ends the server is at it."""
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE ever_payloads IN ACCESS EXCLUSIVE MODE")
        caller = asyncio.create_task(client.store.turn(client.session, Turn(adds=[call(1)])))
        await until_somebody_waits(url)
        yield caller
        blocker.rollback()


def asked(url: str, sql: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(sql.encode()).fetchall()


def listening(url: str) -> list[int]:
    """Return the connections that listen."""
    return [number for (number,) in asked(url, LISTENING)]


async def until_somebody_waits(url: str) -> None:
    await until(lambda: asked(url, WAITING)[0][0] > 0)
