"""When a listener on MySQL rings; the connection is a script."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from everloop.store.sql.runners.mysql_connection import Interrupted, MysqlConnection
from everloop.store.sql.runners.mysql_listener import MysqlListener
from everloop.store.sql.runners.mysql_wire import Rows
from everloop.store.sql.runners.server import Lost


class Line(MysqlConnection):
    """A connection whose first sleep is ended by somebody; what begins the second one is noted."""

    def __init__(self, before_the_second: Callable[[], None]) -> None:
        self._before = before_the_second
        self.sleeps = 0
        self.closed = threading.Event()

    def run(self, sql: str, doing: str | Sequence[str], results: list[Rows] | None = None) -> list[Rows]:
        if "GET_LOCK" in sql:
            return [[(1,)]]
        assert sql.startswith("SELECT 1;SELECT SLEEP(")
        assert results is not None
        self.sleeps += 1
        if self.sleeps == 2:
            self._before()
        results.append([(1,)])
        if self.sleeps == 1:
            raise Interrupted("somebody rang")
        self.closed.wait()
        raise Lost("it is closed")

    def bell(self, session: int | str) -> str:
        return f"'bell {session}'"

    def interrupt(self) -> None:
        self.closed.set()

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize(("begins", "rings"), [(0, 2), (1, 3)])
async def test_a_turn_that_begins_before_the_next_sleep_is_rung_for_again(begins: int, rings: int) -> None:
    turns = 7
    rung = 0
    asleep = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        nonlocal rung
        rung += 1

    def before() -> None:
        nonlocal turns
        turns += begins
        loop.call_soon_threadsafe(lambda: loop.call_soon(asleep.set))

    line = Line(before)
    listener = MysqlListener(lambda: line, 1, wake, lambda: turns)
    async with asyncio.timeout(10):
        await asleep.wait()
        while rung < rings:  # the first is for the connection
            await asyncio.sleep(0)
    listener.stop()
    await asyncio.sleep(0)
    assert rung == rings
