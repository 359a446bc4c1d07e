"""Statements on a connection to PostgreSQL: many of them in one round trip, and one wait.

psycopg's own pipeline looks at its socket with each statement. Each time it gives the interpreter's lock
away, and beside a loop that is busy it gets it back 5 ms later: a turn of ten statements would take 50 ms
longer. So the statements are handed to libpq here, which keeps them, and the thread waits once they are all
there.
"""

from __future__ import annotations

import re
import select
from collections.abc import Generator, Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.postgresql_connection import Connection
from everloop.store.sql.verbs.statement import Statement

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_encode = msgspec.json.Encoder().encode
_FAILED = pq.ExecStatus.FATAL_ERROR
#: Seconds between looks at an answer of which nothing has come: libpq may have seen the end already.
LOOK = 5.0


class Asked(NamedTuple):
    """A statement as libpq takes it: with numbers for parameters, and their values as text.

    What has none is about the transaction: it has no plan that would be worth keeping.
    """

    sql: bytes
    values: list[bytes | None]


def asked(statement: Statement, template: Template) -> Asked:
    """Return what is sent for a statement of the dialect's file; rows travel as one JSON text.

    Raises:
        psycopg.DataError: A text has a zero in it, at which libpq would end it.
    """
    sql, names = _numbered(template.sql)
    parameters = statement.parameters
    return Asked(sql, [_bound(parameters[name]) for name in names])


def plain(sql: str, *values: str) -> Asked:
    """Return what is sent for a text that has its numbers in it."""
    return Asked(sql.encode(), [value.encode() for value in values])


@cache
def _numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    return _PARAMETER.sub(number, sql).encode(), tuple(names)


def _bound(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, list | dict):
        return _encode(value)
    text = str(value).encode()
    if b"\0" in text:
        raise psycopg.DataError(f"a text of PostgreSQL cannot have a zero in it, as {value!r} has")
    return text


class Pipe:
    """Sends statements over a connection, and reads what is answered.

    Args:
        connection: The connection; it may be used otherwise in between.
    """

    def __init__(self, connection: Connection) -> None:
        self._pgconn = connection.pgconn
        self._reader = Transformer(connection)
        # Behind a pooler, what is prepared may be another server's.
        self._prepares = not connection.pooled
        self._prepared: dict[bytes, bytes] = {}
        self._numbers = count()
        self._trips, self._replan = 0, 16
        self._readable = select.poll()
        self._readable.register(connection.fileno(), select.POLLIN)
        self._ready = select.poll()
        self._ready.register(connection.fileno(), select.POLLIN | select.POLLOUT)

    def outgrown(self) -> bool:
        """Tell whether as much again has been done as when the plans were last made.

        A prepared statement keeps its plan: one that was made while a table was small reads all of it, and
        goes on so when that is a million rows, until somebody analyses the table.
        """
        if self._trips < self._replan:
            return False
        self._replan = 2 * self._trips
        return True

    def is_readable(self) -> bool:
        """Tell whether something has come, be it the end."""
        return bool(self._readable.poll(0))

    def has_ended(self) -> bool:
        """Tell whether the server has ended the connection while it was idle."""
        try:
            # What it said last comes before its end: the second look finds that.
            while self.is_readable():
                self._pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return self._pgconn.status != pq.ConnStatus.OK

    def ask(self, statements: Sequence[Asked]) -> list[pq.abc.PGresult]:
        """Execute statements in one round trip, each prepared once; return the result of each.

        What follows a statement that fails is not executed.

        Raises:
            psycopg.Error: The connection is lost; a statement that failed is told by its result.
        """
        answer = self.send(statements)
        while not self.flush():
            for _, event in self._ready.poll(LOOK * 1_000):
                if event & ~select.POLLOUT:
                    self._pgconn.consume_input()
        try:
            while True:
                next(answer)
                self._readable.poll(LOOK * 1_000)
        except StopIteration as end:
            results: list[pq.abc.PGresult] = end.value
            return results

    def send(self, statements: Sequence[Asked]) -> Generator[None, None, list[pq.abc.PGresult]]:
        """Begin to send statements, as `ask` does; return what reads the answer.

        That yields where it has to wait until the connection is readable, and has looked for what is there
        when it goes on. Until `flush` says so, not all is sent.

        Raises:
            psycopg.Error: The connection is lost; so may be raised where the answer is read.
        """
        self._trips += 1
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        fresh: list[bytes | None] = []
        for sql, values in statements:
            if not (values and self._prepares):
                pgconn.send_query_params(sql, values or None, result_format=pq.Format.BINARY)
                fresh.append(None)
                continue
            name = self._prepared.get(sql)
            fresh.append(None if name else sql)
            if name is None:
                name = self._prepared[sql] = b"ever_%d" % next(self._numbers)
                pgconn.send_prepare(name, sql)
            pgconn.send_query_prepared(name, values, result_format=pq.Format.BINARY)
        pgconn.pipeline_sync()
        return self._answer(fresh)

    def flush(self) -> bool:
        """Send what can be sent; tell whether that is all."""
        return not self._pgconn.flush()

    def _answer(self, fresh: list[bytes | None]) -> Generator[None, None, list[pq.abc.PGresult]]:
        results: list[pq.abc.PGresult] = []
        for text in fresh:
            if text is not None:
                prepared = yield from self._result()
                if prepared.status != pq.ExecStatus.COMMAND_OK:
                    del self._prepared[text]
                    yield from self._result()  # of the execution, which was left out
                    results.append(prepared)
                    continue
            results.append((yield from self._result()))
        yield from self._result(last=True)
        self._pgconn.exit_pipeline_mode()
        return results

    def rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        """Return the rows of a result."""
        self._reader.set_pgresult(result)
        return self._reader.load_rows(0, result.ntuples, tuple)

    def _result(self, *, last: bool = False) -> Generator[None, None, pq.abc.PGresult]:
        """Return the result of one command; `last` is that of the end of the pipeline."""
        pgconn = self._pgconn
        found: pq.abc.PGresult | None = None
        while True:
            while pgconn.is_busy():
                yield
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                if found is None:
                    raise psycopg.OperationalError("the server sent no result")
                return found
            found = result
            if last:
                return found


def failure(results: Sequence[pq.abc.PGresult]) -> psycopg.Error | None:
    """Return the error of the statement that failed, if one did."""
    for result in results:
        if result.status == _FAILED:
            return errors.error_from_result(result)
    return None
