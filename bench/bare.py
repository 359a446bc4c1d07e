"""What a database server allows: the same rows and the same round trip through its bare driver.

One connection, 500 rows a statement and a statement a transaction: what is inserted, claimed and finished is
as durable as it is with Everloop, and nothing else is done.
"""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pymysql

from bench.limits import Rates, rate
from bench.processes import ProcessError
from tests.helpers.servers.server import address

#: Rows per statement.
BATCH = 500
ROWS = 4_000
#: Seconds after which a bell has not been heard.
SILENCE = 10.0
THERE, HERE = "bench_there", "bench_here"


class Bare(ABC):
    """A bare connection to a database, with a table of calls in it."""

    def rates(self) -> Rates:
        """Measure inserts, claims and finishes: the best of three of each."""
        found = [self._rates() for _ in range(3)]
        return Rates(max(f.insert for f in found), max(f.claim for f in found), max(f.finish for f in found))

    def _rates(self) -> Rates:
        self._empty()
        steps = range(0, ROWS, BATCH)
        rows = [(seq, f"0198c0de-0000-7000-8000-{seq:012d}", "j1[[1],{}]") for seq in range(ROWS)]
        insert = rate(ROWS, steps, lambda at: self._insert(rows[at : at + BATCH]))
        claim = rate(ROWS, steps, lambda _: self._claim())
        finish = rate(ROWS, steps, lambda at: self._finish([(seq, "j11") for seq in range(at, at + BATCH)]))
        return Rates(insert, claim, finish)

    @contextmanager
    def relay(self) -> Generator[Relay]:
        """Another thread with a connection of its own that commits a row and rings back, when it is rung."""
        here, there = self._ends()
        thread = threading.Thread(target=_answer, args=(there,), name="bench-relay", daemon=True)
        thread.start()
        try:
            yield Relay(here)
        finally:
            here.end()
            thread.join()
            here.close()

    @contextmanager
    def stays_open(self) -> Generator[None]:
        """A transaction that has written, and that still sees what there was when it began."""
        self._begin()
        yield
        self._roll_back()

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @abstractmethod
    def check(self) -> None:
        """See that a commit waits for the disk, as it does by default.

        Raises:
            ProcessError: It does not.
        """

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _roll_back(self) -> None: ...

    @abstractmethod
    def _empty(self) -> None: ...

    @abstractmethod
    def _insert(self, rows: list[tuple[int, str, str]]) -> None: ...

    @abstractmethod
    def _claim(self) -> None: ...

    @abstractmethod
    def _finish(self, rows: list[tuple[int, str]]) -> None: ...

    @abstractmethod
    def _ends(self) -> tuple[End, End]:
        """Connect the two ends of a relay."""


class End(ABC):
    """One end of a relay."""

    @abstractmethod
    def ring(self) -> None:
        """Commit a row, and ring at the other end."""

    @abstractmethod
    def heard(self, seconds: float | None) -> bool:
        """Wait until the other end rings; False when it has ended, or does not in so many seconds."""

    @abstractmethod
    def end(self) -> None:
        """Tell the other end that there is no more."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class Relay:
    """A durable round trip with nothing in it: two commits and two bells."""

    def __init__(self, here: End) -> None:
        self._here = here

    def milliseconds(self, count: int, pause: float) -> float:
        """Return the median of `count` round trips, each after a rest."""
        samples: list[float] = []
        for _ in range(count):
            time.sleep(pause)
            started = time.perf_counter()
            self._here.ring()
            if not self._here.heard(SILENCE):
                raise ProcessError(f"the other end of the relay rang no bell for {SILENCE:.0f} s")
            samples.append((time.perf_counter() - started) * 1e3)
        return statistics.median(samples)


def _answer(there: End) -> None:
    with closing(there):
        while there.heard(None):
            there.ring()


# -- PostgreSQL ---------------------------------------------------------------------------------------------

_POSTGRESQL = """
CREATE TABLE calls (seq bigint PRIMARY KEY, id text NOT NULL UNIQUE, state smallint NOT NULL DEFAULT 0,
                    session bigint, args text NOT NULL, value text);
CREATE INDEX ready ON calls (seq) WHERE state = 0;
CREATE TABLE told (n bigint)
"""


class BarePostgres(Bare):
    """psycopg, with arrays through `unnest`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(_POSTGRESQL)

    def close(self) -> None:
        self._connection.close()

    def check(self) -> None:
        for name in ("fsync", "synchronous_commit"):
            row = self._connection.execute(f"SHOW {name}".encode()).fetchone()
            if row != ("on",):
                raise ProcessError(f"this server has {name} = {row}: a commit would not wait for the disk")

    def _begin(self) -> None:
        self._connection.execute("BEGIN")
        self._connection.execute("INSERT INTO told VALUES (1)")

    def _roll_back(self) -> None:
        self._connection.execute("ROLLBACK")

    def _empty(self) -> None:
        self._connection.execute("TRUNCATE calls")

    def _insert(self, rows: list[tuple[int, str, str]]) -> None:
        self._connection.execute(
            "INSERT INTO calls (seq, id, args) SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[])",
            _columns(rows),
            prepare=True,
        )

    def _claim(self) -> None:
        self._connection.execute(
            "UPDATE calls SET state = 1, session = 1 WHERE seq = ANY (ARRAY(SELECT seq FROM calls "
            "WHERE state = 0 ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING seq, id, args",
            (BATCH,),
            prepare=True,
        ).fetchall()

    def _finish(self, rows: list[tuple[int, str]]) -> None:
        self._connection.execute(
            "UPDATE calls SET state = 2, session = NULL, value = b.value "
            "FROM unnest(%s::bigint[], %s::text[]) AS b(seq, value) WHERE calls.seq = b.seq",
            _columns(rows),
            prepare=True,
        )

    def _ends(self) -> tuple[End, End]:
        return _PostgresEnd(self._url, THERE, HERE), _PostgresEnd(self._url, HERE, THERE)


class _PostgresEnd(End):
    """Rings with NOTIFY."""

    def __init__(self, url: str, rings: str, hears: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(f"LISTEN {hears}".encode())
        self._rings = rings

    def ring(self) -> None:
        # Two statements in one request are one transaction.
        self._connection.execute(f"INSERT INTO told VALUES (1); NOTIFY {self._rings}".encode())

    def heard(self, seconds: float | None) -> bool:
        bells = list(self._connection.notifies(timeout=seconds, stop_after=1))
        return bool(bells) and bells[0].payload != "end"

    def end(self) -> None:
        self._connection.execute(f"NOTIFY {self._rings}, 'end'".encode())

    def close(self) -> None:
        self._connection.close()


def _columns(rows: list[Any]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


# -- MariaDB ------------------------------------------------------------------------------------------------

_MARIADB = (
    """CREATE TABLE calls (seq BIGINT PRIMARY KEY, id VARBINARY(64) NOT NULL UNIQUE,
                        state SMALLINT NOT NULL DEFAULT 0, session BIGINT, args LONGTEXT NOT NULL,
                        value LONGTEXT, KEY ready (state, seq))""",
    "CREATE TABLE told (n BIGINT AUTO_INCREMENT PRIMARY KEY)",
)
_SEQS = "JSON_TABLE(%s, '$[*]' COLUMNS (seq BIGINT PATH '$'))"


class BareMaria(Bare):
    """PyMySQL, with rows through JSON_TABLE."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = _connected(url)
        for statement in _MARIADB:
            self._run(statement)

    def close(self) -> None:
        self._connection.close()

    def check(self) -> None:
        for name, wanted in ("innodb_flush_log_at_trx_commit", 1), ("innodb_flush_method", "fsync"):
            ((found,),) = self._run(f"SELECT @@{name}")
            if found != wanted and not str(found).startswith("O_DIRECT"):
                raise ProcessError(f"this server has {name} = {found}: a commit would not wait for the disk")

    def _run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    def _begin(self) -> None:
        self._run("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        self._run("INSERT INTO told VALUES ()")

    def _roll_back(self) -> None:
        self._connection.rollback()

    def _empty(self) -> None:
        self._run("TRUNCATE calls")

    def _insert(self, rows: list[tuple[int, str, str]]) -> None:
        self._run(
            "INSERT INTO calls (seq, id, args) SELECT * FROM JSON_TABLE(%s, '$[*]' COLUMNS ("
            "seq BIGINT PATH '$[0]', id LONGTEXT PATH '$[1]', args LONGTEXT PATH '$[2]')) AS b",
            json.dumps(rows),
        )

    def _claim(self) -> None:
        self._connection.begin()
        found = self._run(
            "SELECT seq, id, args FROM calls WHERE state = 0 ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED",
            BATCH,
        )
        self._run(
            f"UPDATE {_SEQS} AS b STRAIGHT_JOIN calls ON calls.seq = b.seq SET state = 1, session = 1",
            json.dumps([seq for seq, _, _ in found]),
        )
        self._connection.commit()

    def _finish(self, rows: list[tuple[int, str]]) -> None:
        self._run(
            "UPDATE JSON_TABLE(%s, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', value LONGTEXT PATH '$[1]')) AS b "
            "STRAIGHT_JOIN calls AS c ON c.seq = b.seq SET c.state = 2, c.session = NULL, c.value = b.value",
            json.dumps(rows),
        )

    def _ends(self) -> tuple[End, End]:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return _MariaEnd(self._url, here), _MariaEnd(self._url, there)


class _MariaEnd(End):
    """Rings with a datagram: the server has no word for it."""

    def __init__(self, url: str, bell: socket.socket) -> None:
        self._connection = _connected(url)
        self._bell = bell

    def ring(self) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("INSERT INTO told VALUES ()")
        self._bell.send(b"ring")

    def heard(self, seconds: float | None) -> bool:
        self._bell.settimeout(seconds)
        try:
            return self._bell.recv(16) == b"ring"
        except TimeoutError:
            return False

    def end(self) -> None:
        self._bell.send(b"end")

    def close(self) -> None:
        self._bell.close()
        self._connection.close()


def _connected(url: str) -> pymysql.Connection[Any]:
    parts = address(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
        database=parts.path.removeprefix("/"),
        charset="utf8mb4",
        autocommit=True,
    )
