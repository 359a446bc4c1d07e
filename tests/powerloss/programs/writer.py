"""Walk at random through the verbs of a store in a file, and write down what was acknowledged.

The ledger is a file of its own. Before a step it gets nothing; after it, one line: the step's number, and a
digest of all calls as the oracle knows them. A line is one write.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import sys
from pathlib import Path
from random import Random

import msgspec

from everloop._core.clock import ManualClock
from everloop._core.records import Snapshot
from everloop.store.sql.runners import sqlite_file
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance.side_by_side import SideBySide
from everloop.testing.conformance.walk import Walker

STORE, LEDGER = "store.db", "ledger"


def digest(calls: list[Snapshot]) -> str:
    """Return a digest of calls, oldest first."""
    return hashlib.sha256(msgspec.json.encode(calls)).hexdigest()


async def main(folder: Path, seed: int, steps: int, synchronous: str) -> None:
    # Small files are checkpointed, too, in both ways.
    sqlite_file.COPY_AT, sqlite_file.RESTART_AT = 64 << 10, 256 << 10
    if synchronous != "FULL":
        _sync_less(synchronous)
    ledger = os.open(folder / LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    clock = ManualClock()
    store = SqliteStore(folder / STORE, clock=clock)
    await store.open()
    both = SideBySide(store, clock)
    walker = Walker(both, Random(seed))
    for number in range(steps):
        await walker.step()
        os.write(ledger, f"{number} {digest(list(both.calls.values()))}\n".encode())
        if number % 5 == 4:
            await store.tend()
        if number % 40 == 39:
            await store.close()
            store = both.store = SqliteStore(folder / STORE, clock=clock)
            await store.open()
    await store.close()


def _sync_less(synchronous: str) -> None:
    """Let every connection sync as seldom as that: what the images must then find out."""
    connect = sqlite_file.SqliteFile.connect

    def weakened(self: sqlite_file.SqliteFile) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    sqlite_file.SqliteFile.connect = weakened  # type: ignore[method-assign]  # the sabotage


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
