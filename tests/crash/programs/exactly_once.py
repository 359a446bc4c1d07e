"""An app whose bodies write into the store's own database: effect and outcome are one transaction."""

from __future__ import annotations

import asyncio
import sqlite3

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

import everloop
from everloop import App, TaskFunction, Use
from everloop.store.url import sqlite_path
from tests.crash.programs.ledger import LEASE_S


class Effects:
    """The app, its function, and a look at what it has done."""

    def __init__(self, store: str | None = None) -> None:
        self.app = app = App("effects", store, lease=LEASE_S, embed=False)
        db = app.database()

        @app.task(retries=everloop.Retry(1, delay=0))
        async def effect(n: int, conn: AsyncConnection = Use(db.transaction)) -> int:
            await conn.execute(text("INSERT INTO effects (n) VALUES (:n)"), {"n": n})
            await asyncio.sleep(0.002)
            if n % 5 == 0 and everloop.current().attempt == 1:
                raise ValueError("its row is rolled back")
            return n

        self.effect: TaskFunction[[int], int] = effect

    def create_table(self) -> None:
        """Make the table of effects; it allows doubles, so that they are seen."""
        with sqlite3.connect(sqlite_path(self.app.store_url)) as connection:
            connection.execute("CREATE TABLE effects (n INTEGER)")
        connection.close()

    def look(self) -> tuple[list[int], list[int]]:
        """Read, in one transaction, the effects and the values of the calls that have succeeded."""
        connection = sqlite3.connect(sqlite_path(self.app.store_url))
        try:
            rows = connection.execute(
                "SELECT 'effect', n FROM effects UNION ALL "
                "SELECT 'succeeded', substr(value, 3) FROM ever_calls JOIN ever_outcomes USING (seq) "
                "WHERE state = 'succeeded'"
            ).fetchall()
        finally:
            connection.close()
        effects = sorted(int(n) for kind, n in rows if kind == "effect")
        return effects, sorted(int(n) for kind, n in rows if kind == "succeeded")


app = Effects().app
