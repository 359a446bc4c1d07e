"""The ways in which users hold a transaction open on an SQLite file, each ended by a commit or a rollback."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from everloop import Database

#: Holds a transaction open in a block, which ends it by a commit or by a rollback.
Way = Callable[[Database, Path, bool], AbstractAsyncContextManager[Any]]


class _Undo(Exception):
    """Ends a block of ours without a commit."""


@asynccontextmanager
async def _scope(scope: AbstractAsyncContextManager[Any], commit: bool) -> AsyncGenerator[Any]:
    try:
        async with scope as given:
            yield given
            if not commit:
                raise _Undo
    except _Undo:
        return


def transaction(db: Database, _: Path, commit: bool) -> AbstractAsyncContextManager[Any]:
    return _scope(db.transaction(), commit)


def session(db: Database, _: Path, commit: bool) -> AbstractAsyncContextManager[Any]:
    return _scope(db.session(), commit)


@asynccontextmanager
async def connection(db: Database, _: Path, commit: bool) -> AsyncGenerator[Any]:
    async with db.connection() as conn:
        yield conn
        await (conn.commit() if commit else conn.rollback())


@asynccontextmanager
async def engine(db: Database, _: Path, commit: bool) -> AsyncGenerator[Any]:
    async with db.engine.connect() as conn:
        yield conn
        await (conn.commit() if commit else conn.rollback())


@asynccontextmanager
async def async_connection(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    theirs = create_async_engine(f"sqlite+aiosqlite:///{file}")
    try:
        async with theirs.connect() as conn:
            yield conn
            await (conn.commit() if commit else conn.rollback())
    finally:
        await theirs.dispose()


@asynccontextmanager
async def async_session(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    theirs = create_async_engine(f"sqlite+aiosqlite:///{file}")
    try:
        async with AsyncSession(theirs) as opened:
            yield opened
            await (opened.commit() if commit else opened.rollback())
    finally:
        await theirs.dispose()


@asynccontextmanager
async def sync_side_of_async_session(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    async with async_session(_, file, commit) as opened:
        yield opened.sync_session


@asynccontextmanager
async def scoped_async_session(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    theirs = create_async_engine(f"sqlite+aiosqlite:///{file}")
    registry = async_scoped_session(async_sessionmaker(theirs), scopefunc=lambda: 1)
    try:
        yield registry
        await (registry.commit() if commit else registry.rollback())
    finally:
        await registry.remove()
        await theirs.dispose()


@asynccontextmanager
async def sync_connection(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    theirs = create_engine(f"sqlite:///{file}")
    try:
        with theirs.connect() as conn:
            yield conn
            (conn.commit if commit else conn.rollback)()
    finally:
        theirs.dispose()


@asynccontextmanager
async def sync_session(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    theirs = create_engine(f"sqlite:///{file}")
    try:
        with Session(theirs) as opened:
            yield opened
            (opened.commit if commit else opened.rollback)()
    finally:
        theirs.dispose()


@asynccontextmanager
async def scoped_sync_session(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    theirs = create_engine(f"sqlite:///{file}")
    registry = scoped_session(sessionmaker(theirs))
    try:
        yield registry
        (registry.commit if commit else registry.rollback)()
    finally:
        registry.remove()
        theirs.dispose()


@asynccontextmanager
async def pooled_driver(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    theirs = create_engine(f"sqlite:///{file}")
    try:
        raw = theirs.raw_connection()
        yield raw
        (raw.commit if commit else raw.rollback)()
        raw.close()
    finally:
        theirs.dispose()


@asynccontextmanager
async def sqlite3_connection(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    with closing(sqlite3.connect(file)) as conn:
        yield conn
        (conn.commit if commit else conn.rollback)()


@asynccontextmanager
async def begun_by_hand(_: Database, file: Path, commit: bool) -> AsyncGenerator[Any]:
    """Hold it as Django does: the driver commits by itself, and BEGIN is a statement."""
    with closing(sqlite3.connect(file, isolation_level=None)) as conn:
        conn.execute("begin")
        yield conn
        conn.execute("commit" if commit else "rollback")


TELLING: list[Way] = [
    transaction,
    session,
    connection,
    engine,
    async_connection,
    async_session,
    sync_side_of_async_session,
    scoped_async_session,
    sync_connection,
    sync_session,
    scoped_sync_session,
]
SILENT: list[Way] = [pooled_driver, sqlite3_connection, begun_by_hand]
