"""A pool on an SQLite file of a test, closed with the test."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import text

from everloop.resources.database import Database
from everloop.resources.resource import ResourcePool

TABLE = text("create table if not exists pages (name text)")
INSERT = text("insert into pages values (:name)")
COUNT = text("select count(*) from pages")
#: Runs until it is interrupted.
FOR_EVER = text(
    "with recursive number(n) as (select 1 union all select n + 1 from number) select count(*) from number"
)


@asynccontextmanager
async def database(file: Path, *, own: bool = False, **options: Any) -> AsyncGenerator[Database]:
    """Open a database with an empty table of pages; `own` makes it the store's."""
    pool = ResourcePool()
    store = file if own else file.with_name("store.db")
    db = Database(pool, f"sqlite:///{file}", store_url=lambda: f"sqlite:///{store}", **options)
    async with db.transaction() as conn:
        await conn.execute(TABLE)
    try:
        yield db
    finally:
        await pool.aclose()


def names(file: Path) -> list[str]:
    """Read what is committed, past the pool."""
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("select name from pages order by rowid")]
