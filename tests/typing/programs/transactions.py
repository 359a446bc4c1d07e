"""Each kind of connection in whose transaction a call can be submitted."""

from __future__ import annotations

import sqlite3
from typing import assert_type

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from everloop import App, RolledBack, Task

app = App("transactions", "sqlite:///shop.db")
db = app.database()


@app.task
async def send(to: str) -> int:
    return len(to)


async def scopes() -> None:
    async with db.transaction() as conn:
        assert_type(await app.submit(send("a"), connection=conn, priority=1), Task[int])
        assert_type(await app.submit_many([send("a")], connection=conn, tags=["a"]), list[Task[int]])
    async with db.session() as session:
        task = await app.submit(send("a"), connection=session)
    try:
        print(await task)
    except RolledBack as error:
        print(error)


async def theirs(
    asyncio_connection: AsyncConnection,
    asyncio_session: AsyncSession,
    asyncio_registry: async_scoped_session[AsyncSession],
    connection: Connection,
    session: Session,
    registry: scoped_session[Session],
    plain: sqlite3.Connection,
) -> None:
    await app.submit(send("a"), connection=asyncio_connection)
    await app.submit(send("a"), connection=asyncio_session)
    await app.submit(send("a"), connection=asyncio_registry)
    await app.submit(send("a"), connection=connection)
    await app.submit(send("a"), connection=session)
    await app.submit(send("a"), connection=registry)
    await app.submit(send("a"), connection=plain)
    await app.submit(send("a"), connection=None)
