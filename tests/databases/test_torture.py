"""Thousands of queries, cancelled at any moment: no crossed reply, no lost connection, no hang.

Each asks the server for a number of its own, after a random while. `EVERLOOP_SEED=...` asks others.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from everloop import aiomysql
from everloop.resources.database import Database
from everloop.resources.statistics import PoolStatistics
from tests.helpers.pools import becomes, connected, opened, sleeping
from tests.helpers.seeds import seed

#: Cancelled queries of each way and size: about 2,000 for each driver.
CANCELLED = int(os.environ.get("EVERLOOP_TEST_CANCELLED", "200"))

#: Gives back the number, or what the server has answered instead.
Query = Callable[[int, float], Awaitable[int]]


class Torture:
    """Queries at once, most of them cancelled."""

    def __init__(self, query: Query, at_once: int) -> None:
        self._random = random.Random(seed())
        self._query = query
        self._at_once = at_once
        self._numbers = iter(range(1, 1_000_000))
        self.cancelled = 0
        self.answered = 0
        self.crossed: list[tuple[int, int]] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._user())

    async def _user(self) -> None:
        while self.cancelled < CANCELLED:
            await self._ask(next(self._numbers))

    async def _ask(self, number: int) -> None:
        task = asyncio.ensure_future(self._query(number, self._random.random() * 0.002))
        moment = self._random.random() * self._random.choice([0.0005, 0.002, 0.005, 0.03])
        if self._random.random() < 0.85:
            asyncio.get_running_loop().call_later(moment, task.cancel)
        try:
            answer = await task
        except asyncio.CancelledError:
            self.cancelled += 1
        else:
            self.answered += 1
            if answer != number:
                self.crossed.append((number, answer))


def through(db: Database, way: str, url: str) -> Query:
    statement = text(sleeping(url))

    async def query(number: int, seconds: float) -> int:
        scope: Any = db.engine.connect if way == "engine" else getattr(db, way)
        async with scope() as conn:
            row = (await conn.execute(statement, {"n": number, "seconds": seconds})).one()
        return int(row[0])

    return query


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("way", ["engine", "connection", "transaction", "session"])
async def test_cancelled_queries_cross_nothing_and_lose_no_connection(
    url: str, way: str, size: int, pools: Callable[..., Database]
) -> None:
    db = pools(pool_size=size)
    torture = Torture(through(db, way, url), at_once=3 * size)

    await torture.run()

    assert torture.crossed == []
    assert torture.answered
    assert db.statistics().in_use == 0
    await every_connection_works(db, size)
    assert db.statistics() == PoolStatistics(size=size)


@pytest.mark.both_loops
async def test_cancelled_queries_on_both_loops(url: str, pools: Callable[..., Database]) -> None:
    db = pools(pool_size=2)
    torture = Torture(through(db, "transaction", url), at_once=6)

    await torture.run()

    assert torture.crossed == []
    await every_connection_works(db, 2)


async def test_after_the_pool_is_closed_the_server_has_no_connection_of_it(url: str) -> None:
    before = await connected(url)
    pool = opened(url, pool_size=3)
    torture = Torture(through(pool.db, "connection", url), at_once=9)

    await torture.run()
    await pool.close()

    await becomes(before, lambda: connected(url))


@pytest.mark.parametrize("size", [1, 4])
async def test_cancelled_queries_through_everloop_aiomysql(mariadb_url: str, size: int) -> None:
    async with facade(mariadb_url, size) as pool:

        async def query(number: int, seconds: float) -> int:
            async with pool.acquire() as conn, conn.cursor() as cur:
                await cur.execute("select %s, sleep(%s)", (number, seconds))
                (answer, _) = await cur.fetchone()
            return int(answer)

        torture = Torture(query, at_once=3 * size)

        await torture.run()

        assert torture.crossed == []
        assert torture.answered
        async with asyncio.timeout(5):
            held = [await pool.acquire() for _ in range(size)]
        assert (pool.size, pool.freesize) == (size, 0)
        for conn in held:
            pool.release(conn)


async def every_connection_works(db: Database, size: int) -> None:
    async def one(number: int, all_are_taken: asyncio.Barrier) -> int:
        async with db.connection() as conn:
            answer = (await conn.execute(text("select 1"))).scalar_one()
            await all_are_taken.wait()
            return number * int(answer)

    together = asyncio.Barrier(size)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*[one(n, together) for n in range(size)]) == list(range(size))


@asynccontextmanager
async def facade(url: str, size: int) -> AsyncIterator[aiomysql.Pool]:
    parts = urlsplit(url)
    async with aiomysql.create_pool(
        host=parts.hostname,
        port=parts.port,
        user=parts.username,
        password=parts.password,
        db=parts.path[1:],
        minsize=1,
        maxsize=size,
    ) as pool:
        yield pool
