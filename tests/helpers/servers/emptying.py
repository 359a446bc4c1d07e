"""Databases that are used again, emptied: quicker than a fresh one for each test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

import psycopg

from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql_connection import connect

#: Those of a store, in a schema; locks of keys are rows that are always there.
TABLES = """SELECT table_name FROM information_schema.tables
WHERE table_schema = {} AND table_name LIKE 'ever%' AND table_name NOT IN ('ever_meta', 'ever_key_locks')"""


def emptied(url: str) -> str:
    """Delete everything that a store has in a database, but not its schema; return the URL."""
    if url.startswith("postgresql"):
        with psycopg.connect(url, autocommit=True) as connection:
            tables = connection.execute(TABLES.format("current_schema()").encode()).fetchall()
            connection.execute(_deletions(tables).encode())
    else:
        with closing(connect(address_of(url))) as theirs:
            theirs.run(_deletions(theirs.run(TABLES.format("DATABASE()"), "listing")[0]), "emptying")
    return url


def _deletions(tables: Iterable[Sequence[str]]) -> str:
    return ";".join(f"DELETE FROM {table}" for (table,) in tables) or "SELECT 1"
