"""What a listener on MySQL tells before a turn does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from everloop._core.calls import Event, State
from everloop._core.records import Ended, Lane, Outcome, Turn
from everloop.store.protocol import Foretelling
from everloop.store.sql import mysql
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.runners import mysql_listener
from everloop.store.sql.runners.mysql_connection import MysqlConnection
from everloop.store.sql.runners.mysql_listener import FEW, sleep_of
from tests.helpers.mysql import CLIENT, LANE, MINUTE, WORKER, call
from tests.helpers.waiting import until
from tests.stores.test_mysql_bells import sleeping

pytestmark = pytest.mark.server

OTHER = Lane("a", "other", "work")
#: Heard: that there is something to look at.
RING = None


class Hearing:
    """A client that listens; the worker is another process's."""

    def __init__(self, store: MysqlStore, side: MysqlConnection, session: int) -> None:
        self.store, self.side, self.session = store, side, session
        self.theirs = store.twin()
        self.worker = 0
        self.heard: list[Ended | None] = []
        assert isinstance(store, Foretelling)
        store.foretell(session, self.heard.extend)
        self.stop = store.listen(session, lambda: self.heard.append(RING))

    async def asleep(self) -> None:
        await until(lambda: sleeping(self.side, sleep_of(self.session, self.side)))

    async def end(self, *numbers: int) -> list[Ended]:
        """Have these calls run and end; return what is told of them."""
        await self.store.turn(self.session, Turn(adds=[call(number) for number in numbers]))
        leased = (await self.theirs.turn(self.worker, Turn(lanes=(LANE,), room=len(numbers)))).leased
        assert len(leased) == len(numbers)
        outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED, b"j1") for lease in leased]
        await self.theirs.turn(self.worker, Turn(outcomes=outcomes, lanes=(LANE,), room=1))
        return [Ended(lease.id, State.SUCCEEDED, b"j1", None, 1) for lease in leased]

    async def end_of_another(self, number: int) -> list[Ended]:
        """The same with a call of somebody else's, which this session waits for."""
        await self.theirs.add(None, [call(number)])
        await self.theirs.wait(self.session, [call(number).id])
        (lease,) = (await self.theirs.turn(self.worker, Turn(lanes=(LANE,), room=1))).leased
        outcome = Outcome(lease.id, lease.fence, Event.SUCCEED, b"j1")
        await self.theirs.turn(self.worker, Turn(outcomes=[outcome], lanes=(LANE,)))
        return [Ended(lease.id, State.SUCCEEDED, b"j1", None, 1)]

    async def turn(self) -> list[Ended]:
        return (await self.store.turn(self.session, Turn())).ended


@pytest.fixture
async def hearing(mysql_store: MysqlStore, side: MysqlConnection) -> AsyncIterator[Hearing]:
    hearing = Hearing(mysql_store, side, await mysql_store.open_session(CLIENT, MINUTE))
    await hearing.theirs.open()
    hearing.worker = await hearing.theirs.open_session(WORKER, MINUTE)
    await hearing.theirs.turn(hearing.worker, Turn(lanes=(LANE,)))
    await until(lambda: hearing.heard)  # it has connected
    await hearing.asleep()
    hearing.heard.clear()
    yield hearing
    hearing.stop()
    await hearing.theirs.close()


async def test_an_end_is_told_before_a_turn_that_takes_it(hearing: Hearing) -> None:
    for number in (1, 2):
        ends = await hearing.end(number)
        await until(lambda: RING in hearing.heard)
        assert hearing.heard == [*ends, RING]
        assert await hearing.turn() == ends  # again
        assert await hearing.turn() == []
        await hearing.asleep()
        hearing.heard.clear()


async def test_a_turn_that_comes_by_itself_spares_the_one_that_takes_what_was_told(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "_LATER", 0.2)
    (end,) = await hearing.end(1)
    await until(lambda: hearing.heard)
    assert await hearing.turn() == [end]  # within that time
    (second,) = await hearing.end(2)
    await until(lambda: RING in hearing.heard)
    assert hearing.heard == [end, second, RING]


async def test_many_ends_are_left_to_a_turn_and_so_are_those_that_follow(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_listener, "REST", 600)
    for numbers in range(FEW + 1), range(100, 100 + FEW):
        ends = await hearing.end(*numbers)
        await until(lambda: hearing.heard)
        assert hearing.heard == [RING]
        assert await hearing.turn() == ends
        await hearing.asleep()
        hearing.heard.clear()


async def test_as_many_as_few_are_told(hearing: Hearing) -> None:
    ends = await hearing.end(*range(FEW))
    await until(lambda: RING in hearing.heard)
    assert hearing.heard == [*ends, RING]


async def test_behind_a_turn_of_many_nothing_is_told_before_the_next(hearing: Hearing) -> None:
    await hearing.store.turn(hearing.session, Turn(adds=[call(100 + n, OTHER) for n in range(17)]))
    (lease,) = await hearing.end_of_another(1)
    await until(lambda: hearing.heard)
    assert hearing.heard == [RING]
    assert await hearing.turn() == [lease]


async def test_what_is_no_end_is_left_to_a_turn(hearing: Hearing, side: MysqlConnection) -> None:
    await hearing.store.add(None, [call(1)])
    put = f"INSERT INTO ever_inbox SELECT {hearing.session}, seq, 'cancel' FROM ever_calls"
    side.run(put, "cancelling")
    side.run(f"KILL QUERY {sleeping(side, sleep_of(hearing.session, side))[0]}", "ringing")
    await until(lambda: hearing.heard)
    assert hearing.heard == [RING]


async def test_while_a_turn_is_under_way_it_is_left_to_that(hearing: Hearing) -> None:
    ends = await hearing.end(1)
    await until(lambda: RING in hearing.heard)
    hearing.heard.clear()
    await hearing.asleep()
    busy = hearing.store._runner()._busy
    with busy:
        ends += await hearing.end_of_another(2)
        await until(lambda: hearing.heard)
    assert hearing.heard == [RING]
    assert await hearing.turn() == ends


async def test_where_it_cannot_be_told_it_is_rung(hearing: Hearing, side: MysqlConnection) -> None:
    side.run("RENAME TABLE ever_outcomes TO elsewhere", "hiding")
    side.run(f"KILL QUERY {sleeping(side, sleep_of(hearing.session, side))[0]}", "ringing")
    await until(lambda: hearing.heard)
    side.run("RENAME TABLE elsewhere TO ever_outcomes", "showing")
    assert hearing.heard == [RING]
    await hearing.asleep()  # and it goes on listening


async def test_a_worker_is_told_nothing_before_its_turn(hearing: Hearing) -> None:
    heard: list[Ended | None] = []
    hearing.theirs.foretell(hearing.worker, heard.extend)
    stop = hearing.theirs.listen(hearing.worker, lambda: heard.append(RING))
    await until(lambda: heard)  # it has connected
    await until(lambda: sleeping(hearing.side, sleep_of(hearing.worker, hearing.side)))
    heard.clear()
    await hearing.theirs.turn(hearing.worker, Turn(adds=[call(1)]))
    (lease,) = (await hearing.theirs.turn(hearing.worker, Turn(lanes=(LANE,), room=1))).leased
    await hearing.store.cancel([lease.id], "")
    await until(lambda: heard)
    assert heard == [RING]
    stop()
