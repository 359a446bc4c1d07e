"""What this machine allows, measured beside what Everloop reaches.

Each limit is the cheapest program that gives the same durable effect: the same rows through a plain SQLite
connection in one thread, the same number of asyncio tasks, the same two writes in two processes.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, Plan, Rounds
from bench.loops import loop_rate
from bench.place import PAGE, fsync_ms

_SCHEMA = """
CREATE TABLE calls (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state INTEGER NOT NULL DEFAULT 0,
                    session INTEGER, args TEXT NOT NULL, value TEXT);
CREATE INDEX ready ON calls (seq) WHERE state = 0;
"""


@dataclass(frozen=True)
class Rates:
    """Rows per second, in transactions of one size."""

    insert: float
    claim: float
    finish: float

    @property
    def through(self) -> float:
        """Calls per second when each is inserted, claimed and finished, one writer at a time."""
        return 1 / (1 / self.insert + 1 / self.claim + 1 / self.finish)


def sqlite_rates(folder: Path, batch: int, rows: int = 4_000) -> Rates:
    """Measure raw transactions of `batch` rows, WAL and FULL: the best of three of each kind."""
    found = [_sqlite_rates(folder, batch, rows) for _ in range(3)]
    return Rates(max(f.insert for f in found), max(f.claim for f in found), max(f.finish for f in found))


def _sqlite_rates(folder: Path, batch: int, rows: int) -> Rates:
    path = folder / "limits.db"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        ids = [f"0198c0de-0000-7000-8000-{n:012d}" for n in range(rows)]
        steps = range(0, rows, batch)
        insert = rate(rows, steps, lambda at: _insert(connection, ids[at : at + batch]))
        claim = rate(rows, steps, lambda _: _claim(connection, batch))
        finish = rate(rows, steps, lambda at: _finish(connection, at + 1, batch))
    finally:
        connection.close()
        for name in (path, *folder.glob("limits.db-*")):
            name.unlink(missing_ok=True)
    return Rates(insert, claim, finish)


def rate(rows: int, steps: Iterable[int], do: Callable[[int], None]) -> float:
    """Do each step; return the rows per second."""
    started = time.perf_counter()
    for at in steps:
        do(at)
    return rows / (time.perf_counter() - started)


def _insert(connection: sqlite3.Connection, ids: list[str]) -> None:
    rows = json.dumps([[id_, "j1[[1],{}]"] for id_ in ids])
    connection.execute("INSERT INTO calls (id, args) SELECT value->>0, value->>1 FROM json_each(?)", (rows,))


def _claim(connection: sqlite3.Connection, batch: int) -> None:
    connection.execute(
        "UPDATE calls SET state = 1, session = 1 WHERE seq IN "
        "(SELECT seq FROM calls WHERE state = 0 ORDER BY seq LIMIT ?) RETURNING seq, id, args",
        (batch,),
    ).fetchall()


def _finish(connection: sqlite3.Connection, first: int, batch: int) -> None:
    rows = json.dumps([[seq, "j11"] for seq in range(first, first + batch)])
    connection.execute(
        "UPDATE calls SET state = 2, session = NULL, value = b.value->>1 FROM json_each(?) AS b "
        "WHERE calls.seq = b.value->>0",
        (rows,),
    )


# -- one at a time -------------------------------------------------------------------------------------------

_ECHO = """
import os, socket, sys
fd = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
bell.bind(sys.argv[1])
print(flush=True)
while bell.recv(16) != b"end":
    os.write(fd, bytes(4096))
    os.fsync(fd)
    bell.sendto(b"", sys.argv[2])
"""


@contextmanager
def relay(folder: Path) -> Iterator[Relay]:
    """Another process that writes a page, waits for the disk, and rings back."""
    with tempfile.TemporaryDirectory(prefix="ever") as place:  # a socket's path must be short
        there, here = f"{place}/there", f"{place}/here"
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bell.bind(here)
        bell.settimeout(10)
        process = subprocess.Popen(
            [sys.executable, "-c", _ECHO, there, here, str(folder / "there")], stdout=subprocess.PIPE
        )
        descriptor = os.open(folder / "here", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            assert process.stdout is not None  # it is a pipe
            process.stdout.readline()
            yield Relay(bell, there, descriptor)
            bell.sendto(b"end", there)
            process.wait(10)
        finally:
            process.kill()
            process.communicate()
            os.close(descriptor)
            bell.close()
            for name in ("here", "there"):
                (folder / name).unlink(missing_ok=True)


class Relay:
    """A durable round trip with nothing in it: two pages on the disk, two datagrams, two processes."""

    def __init__(self, bell: socket.socket, there: str, descriptor: int) -> None:
        self._bell, self._there, self._descriptor = bell, there, descriptor

    def milliseconds(self, count: int, pause: float) -> float:
        """Return the median of `count` round trips, each after a rest."""
        samples: list[float] = []
        for _ in range(count):
            time.sleep(pause)
            started = time.perf_counter()
            os.write(self._descriptor, bytes(PAGE))
            os.fsync(self._descriptor)
            self._bell.sendto(b"", self._there)
            self._bell.recv(16)
            samples.append((time.perf_counter() - started) * 1e3)
        return statistics.median(samples)


# -- as a measure of its own ---------------------------------------------------------------------------------


def measure(plan: Plan) -> list[Figure]:
    """The limits by themselves."""
    rounds = Rounds()
    with relay(plan.folder) as bare:
        for _ in range(plan.rounds):
            rounds.note(
                loop=loop_rate(20_000),
                fsync=fsync_ms(plan.folder),
                idle_fsync=fsync_ms(plan.folder, count=10, pause=0.1),
                relay=bare.milliseconds(10, 0.1),
            )
            for batch in (200, 1_000):
                rates = sqlite_rates(plan.folder, batch)
                rounds.note(
                    **{
                        f"insert_{batch}": rates.insert,
                        f"claim_{batch}": rates.claim,
                        f"finish_{batch}": rates.finish,
                    }
                )
    figures = [
        Figure("limit.loop", "create_task + gather of no-ops", rounds["loop"], "/s"),
        Figure("limit.fsync", "fsync of 4 KiB", rounds["fsync"], "ms"),
        Figure("limit.fsync_idle", "fsync of 4 KiB after 100 ms of rest", rounds["idle_fsync"], "ms"),
        Figure(
            "limit.relay", "two fsyncs and two datagrams, two processes, after rest", rounds["relay"], "ms"
        ),
    ]
    for batch in (200, 1_000):
        for verb in ("insert", "claim", "finish"):
            what = f"SQLite rows, {batch:,} per transaction: {verb}"
            figures.append(Figure(f"limit.{verb}_{batch}", what, rounds[f"{verb}_{batch}"], "/s"))
    return figures
