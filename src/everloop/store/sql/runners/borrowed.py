"""What a user may give as `connection=`: told apart, or refused with what to give instead."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from everloop._core.errors import OptionError, UsageError
from everloop.store.sql.runners.dbapi import SqliteHand
from everloop.store.sql.runners.hand import Hand
from everloop.store.sql.runners.server_hands import HANDS

T = TypeVar("T")

_WANTED = (
    "`connection` is a SQLAlchemy connection or session (of asyncio or not), or one of Python's sqlite3, of "
    "psycopg or of PyMySQL"
)
#: Drivers whose connections wait by themselves: only SQLAlchemy brings their statements into one hand.
_ASYNC_DRIVERS = ("asyncpg", "aiosqlite", "aiomysql", "asyncmy")


@dataclass(frozen=True)
class Borrowed:
    """A user's connection, of whichever kind.

    Attributes:
        dialect: SQLAlchemy's name of the database.
        run: Does work with the connection in hand.
    """

    dialect: str
    run: Callable[[Callable[[Hand], Any]], Awaitable[Any]]


def borrow(connection: object) -> Borrowed:
    """Tell what kind of connection this is.

    Raises:
        OptionError: It is none that has a transaction of ours to be in.
        UsageError: It is closed.
    """
    if isinstance(connection, Borrowed):
        return connection
    if isinstance(connection, sqlite3.Connection):
        _check_open(connection)
        return Borrowed("sqlite", partial(_run_on_sqlite3, connection))
    if any(cls.__module__.partition(".")[0] == "sqlalchemy" for cls in type(connection).__mro__):
        return _borrow_of_sqlalchemy(connection)
    kind = type(connection)
    made = HANDS.get(kind.__module__.partition(".")[0])
    if made is not None and "Connection" in kind.__name__ and not kind.__name__.startswith("Async"):
        hand = made(connection)
        if hand.closed:
            raise UsageError(f"the connection {connection!r:.100} is closed: submit before you close it")
        return Borrowed(hand.dialect, partial(_run_by, hand))
    raise OptionError(f"{_WANTED}, not {connection!r:.100}{_instead(connection)}")


async def _run_by(hand: Hand, work: Callable[[Hand], T]) -> T:
    return work(hand)


def _check_open(connection: sqlite3.Connection) -> None:
    try:
        _ = connection.total_changes
    except sqlite3.ProgrammingError as error:
        raise UsageError(
            f"the connection {connection!r:.100} is closed: submit before you close it"
        ) from error


async def _run_on_sqlite3(connection: sqlite3.Connection, work: Callable[[Hand], T]) -> T:
    return work(SqliteHand(connection))


def _instead(given: object) -> str:
    """Say what to give instead of what was given."""
    kind = type(given)
    package = kind.__module__.partition(".")[0]
    if package in _ASYNC_DRIVERS or (package == "psycopg" and kind.__name__.startswith("Async")):
        return (
            f": statements of ours reach {package} through SQLAlchemy only. Take the connection from "
            "app.database(...), or from an AsyncEngine of yours"
        )
    if package == "django":
        return ": give the driver's own, `connection.connection`, inside `transaction.atomic()`"
    if package == "everloop":
        return ": take a connection, `async with db.transaction() as conn:`, and give that"
    return ""


def _borrow_of_sqlalchemy(given: object) -> Borrowed:
    from sqlalchemy import AdaptedConnection, PoolProxiedConnection
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
    from sqlalchemy.ext.asyncio.exc import AsyncContextNotStarted
    from sqlalchemy.orm import Session, scoped_session

    from everloop.store.sql.runners.sqlalchemy import run_on

    if isinstance(given, scoped_session | async_scoped_session):
        given = given()
    if isinstance(given, AsyncSession | Session):
        return Borrowed(given.get_bind().dialect.name, partial(run_on, given))
    if isinstance(given, AsyncConnection | Connection):
        try:
            closed = given.closed
        except AsyncContextNotStarted:
            raise UsageError(
                "the connection has not been opened: `async with engine.connect() as conn:`, or "
                "`conn = await engine.connect()`"
            ) from None
        if closed:
            raise UsageError("the connection is closed: submit inside its `with` block")
        return Borrowed(given.dialect.name, partial(run_on, given))
    if isinstance(given, PoolProxiedConnection):
        raw: object = given.dbapi_connection
        if isinstance(raw, sqlite3.Connection):
            return borrow(raw)
    if isinstance(given, Engine | AsyncEngine):
        instead = ": an engine has no transaction. Take a connection, `with engine.begin() as conn:`"
    elif isinstance(given, PoolProxiedConnection | AdaptedConnection):
        instead = ": give the SQLAlchemy connection that it belongs to"
    else:
        instead = ""
    raise OptionError(f"{_WANTED}, not {given!r:.100}{instead}")
