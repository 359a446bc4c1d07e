"""The founding document, whole: three checkers find nothing to say."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from everloop import App, Task, Use

app = App("founding")
db = app.database("sqlite+aiosqlite:///shop.db")


@app.resource
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@app.task
async def visit(x: int, session: aiohttp.ClientSession = Use(http)) -> str:
    print("start", x)
    async with session.get("http://127.0.0.1:8080/") as resp:
        print(resp.status)
    return f"visit {x} is over"


@app.task
async def log_done(n: int, task: Task[str]) -> None:  # runs on a worker, even if this script is dead by then
    print(n, task.result())


def callback(n: int, future: asyncio.Future[Any]) -> None:  # runs here, as in asyncio
    print(n, future)


@app.task
async def select(sql: str, conn: AsyncConnection = Use(db.connection)) -> None:
    print((await conn.execute(text(sql))).fetchone())


@app.task
async def insert(sql: str, conn: AsyncConnection = Use(db.transaction)) -> None:
    await conn.execute(text(sql))


async def main() -> None:
    start = time.time()
    tasks = [asyncio.ensure_future(visit(x)) for x in (1, 2, 4)]
    tasks[0].add_done_callback(functools.partial(callback, 2))
    for task in asyncio.as_completed(tasks):
        print("got", await task)
    done, pending = await asyncio.wait([app.create_task(visit(x)) for x in (1, 2)])
    print([t.result() for t in done], len(pending))
    await app.submit(visit(3), on_done=[functools.partial(log_done, 2)])
    await asyncio.gather(
        select("select name from pages limit 1"),
        insert("insert into pages (name) values ('first')"),
    )
    print(f"{time.time() - start:.3f} s")


if __name__ == "__main__":
    app.run(main())
