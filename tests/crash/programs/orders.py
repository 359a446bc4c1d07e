"""A shop that books orders and submits their receipts in one transaction, and may die at any moment."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing

from sqlalchemy import text

from everloop import App, TaskFunction
from everloop.store.transactions import UserTransaction
from everloop.store.url import sqlite_path
from tests.crash.programs.ledger import LEASE_S, note


async def receipt(n: int) -> int:
    note("receipt", n)
    return n


class Orders:
    """The app and its function, and how orders are booked."""

    def __init__(self, store: str | None = None) -> None:
        self.app = app = App("orders", store, lease=LEASE_S, embed=False)
        self.db = app.database()
        self.receipt: TaskFunction[[int], int] = app.task(receipt)

    async def make_table(self) -> None:
        async with self.db.transaction() as conn:
            await conn.execute(text("CREATE TABLE IF NOT EXISTS orders (n INTEGER)"))

    async def book(self, n: int) -> None:
        """Book one order; every third is rolled back."""
        try:
            async with self.db.transaction() as conn:
                if n % 2:
                    await conn.execute(text("INSERT INTO orders (n) VALUES (:n)"), {"n": n})
                await self.app.submit(self.receipt(n), connection=conn)
                if not n % 2:
                    await conn.execute(text("INSERT INTO orders (n) VALUES (:n)"), {"n": n})
                if n % 3 == 0:
                    raise KeyError(n)
        except KeyError:
            note("rolled-back", n)

    def booked(self) -> list[int]:
        """Return the orders that are committed; a shop that is started anew books the same numbers again."""
        with closing(sqlite3.connect(sqlite_path(self.app.store_url))) as connection:
            return [n for (n,) in connection.execute("SELECT n FROM orders")]


app = Orders().app


def die(*_: object, **__: object) -> None:
    """End this process as a kill would, without another word."""
    os._exit(9)


async def main(what: str) -> None:
    orders = Orders()
    async with orders.app:
        await orders.make_table()
        if what == "die-after-commit":
            UserTransaction.end = die  # type: ignore[method-assign]  # what follows the commit
            await orders.book(1)
        n = 0
        while True:
            n += 1
            await orders.book(n)
            if n % 20 == 0:
                print(f"booked {n}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
