"""Who is woken on MySQL, where nothing can be listened to: sleeps are ended."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import closing
from functools import partial

import pytest

from everloop import StoreError, StoreUnavailable
from everloop._core.calls import Event
from everloop._core.records import Lane, Outcome, Turn
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners import mysql_bells
from everloop.store.sql.runners.mysql_connection import MysqlConnection, connect
from everloop.store.sql.runners.mysql_listener import hang_up_bell, sleep_of
from everloop.store.sql.runners.server import Lost
from everloop.store.sql.verbs.scope import Scope
from tests.helpers.mysql import CLIENT, LANE, MINUTE, WORKER, call
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.waiting import until

pytestmark = pytest.mark.server

OTHER = Lane("a", "other", "work")


# -- bells --------------------------------------------------------------------------------------------------


def sleeping(side: MysqlConnection, text: str) -> list[int]:
    """Return the connections that execute just this."""
    query = f"SELECT id FROM information_schema.processlist WHERE info = {side.literal(text)}"
    return [number for (number,) in side.run(query, "looking")[0]]


class Listening:
    """A session that listens, asleep on the server; `rung` is set at each ring."""

    def __init__(self, store: MysqlStore, session: int) -> None:
        self.rung = asyncio.Event()
        self.session = session
        self.stop = store.listen(session, self.rung.set)

    async def asleep(self, side: MysqlConnection) -> int:
        await self.rung.wait()  # as it has connected
        sleep = sleep_of(self.session, side)
        await until(lambda: sleeping(side, sleep))
        self.rung.clear()
        return sleeping(side, sleep)[0]

    async def heard(self) -> None:
        async with asyncio.timeout(5):
            await self.rung.wait()


async def test_a_commit_wakes_whom_it_is_for_and_nobody_else(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    client, other = [await mysql_store.open_session(CLIENT, MINUTE) for _ in range(2)]
    worker = await mysql_store.open_session(WORKER, MINUTE)
    await mysql_store.turn(worker, Turn(lanes=(LANE,)))
    bells = [Listening(mysql_store, session) for session in (client, other, worker)]
    for bell in bells:
        await bell.asleep(side)
    await mysql_store.turn(client, Turn(adds=[call(1)]))  # wakes workers
    await bells[2].heard()
    assert [bell.rung.is_set() for bell in bells] == [False, False, True]

    for turn in range(5):  # again and again
        await bells[2].asleep(side)
        lease = (await mysql_store.turn(worker, Turn(lanes=(LANE,), room=1))).leased[0]
        outcome = Outcome(lease.id, lease.fence, Event.SUCCEED)
        await mysql_store.turn(worker, Turn(outcomes=[outcome], lanes=(LANE,), room=1))
        await bells[0].heard()
        await bells[0].asleep(side)
        await mysql_store.turn(client, Turn(adds=[call(2 + turn)]))
        await bells[2].heard()
    assert not bells[1].rung.is_set()
    for bell in bells:
        bell.stop()
        bell.stop()


async def test_to_wake_who_is_known_takes_no_round_trip_of_its_own(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    client = await mysql_store.open_session(CLIENT, MINUTE)
    await mysql_store.turn(client, Turn(adds=[call(0)]))
    runner = mysql_store._runner()

    async def trips(number: int) -> int:
        before = runner.trips
        await mysql_store.turn(client, Turn(adds=[call(number)]))
        return runner.trips - before

    silent = await trips(1)
    workers = [
        Listening(mysql_store, await mysql_store.open_session(WORKER, MINUTE)),
        Listening(mysql_store, await mysql_store.open_session(WORKER, MINUTE)),
    ]
    for extra, number in ((1, 2), (0, 3), (0, 4)):  # whoever is new is first looked for
        for worker in workers:
            await worker.asleep(side)
        assert await trips(number) == silent + extra
        for worker in workers:
            await worker.heard()
    for worker in workers:
        worker.stop()


async def test_a_worker_that_has_ended_keeps_no_other_from_being_woken(
    mysql_store: MysqlStore, side: MysqlConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_bells, "LOOK_S", 600.0)
    client = await mysql_store.open_session(CLIENT, MINUTE)
    worker = Listening(mysql_store, await mysql_store.open_session(WORKER, MINUTE))
    await worker.asleep(side)
    bells = mysql_store._runner()._bells  # type: ignore[attr-defined] # of this dialect
    bells._workers, bells._look_at = {worker.session + 1}, float("inf")  # has ended since it was looked for
    await mysql_store.turn(client, Turn(adds=[call(1)]))
    await worker.heard()
    assert bells._workers == {worker.session}
    worker.stop()
    (found,) = await mysql_store.get([call(1).id])
    assert found is not None


async def test_an_idle_worker_that_is_rung_at_once_looks_again(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    client = await mysql_store.open_session(CLIENT, MINUTE)
    worker = await mysql_store.open_session(WORKER, MINUTE)
    rings: list[float] = []
    stop = mysql_store.listen(worker, lambda: rings.append(time.monotonic()))
    sleep = sleep_of(worker, side)
    await until(lambda: sleeping(side, sleep))
    await mysql_store.turn(client, Turn(adds=[call(1)]))  # looks who is there
    await until(lambda: len(rings) == 2)
    at_once = 2 if side.is_mariadb else 1  # MySQL tells of the end of a sleep as of any other result
    for room, times in ((5, at_once), (4, 1)):  # it runs nothing, and one body
        await mysql_store.turn(worker, Turn(lanes=(OTHER,), room=room))
        assert mysql_store._alone.idle is (room == 5)
        await until(lambda: sleeping(side, sleep))
        rings.clear()
        await mysql_store.turn(client, Turn(adds=[call(10 + room)]))
        await until(lambda times=times: len(rings) == times)  # type: ignore[misc]
    await asyncio.sleep(0.05)
    assert len(rings) == 1
    stop()


def test_a_binary_log_stands_between_a_commit_and_those_who_see_it(
    mariadb: MariaServer, side: MysqlConnection
) -> None:
    assert side.shows_early is side.is_mariadb
    logging = {"log_bin": "log", "binlog_format": "ROW"}
    with (
        type(mariadb)(fast=True, settings=logging) as server,
        closing(connect(address_of(server.database()))) as connection,
    ):
        assert not connection.shows_early


async def test_a_worker_that_comes_beside_others_is_looked_for_within_a_second(
    mysql_store: MysqlStore, side: MysqlConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_bells, "LOOK_S", 600.0)
    client = await mysql_store.open_session(CLIENT, MINUTE)
    workers: list[Listening] = []
    for rung in ([True], [True, False]):
        workers.append(Listening(mysql_store, await mysql_store.open_session(WORKER, MINUTE)))
        for worker in workers:
            await worker.asleep(side)
        await mysql_store.turn(client, Turn(adds=[call(len(workers))]))
        await workers[0].heard()
        assert [worker.rung.is_set() for worker in workers] == rung

    mysql_store._runner()._bells._look_at = 0.0  # type: ignore[attr-defined] # that time is over
    await workers[0].asleep(side)
    await mysql_store.turn(client, Turn(adds=[call(3)]))
    for worker in workers:
        await worker.heard()
        worker.stop()


async def test_one_that_listens_no_more_keeps_the_others_from_nothing(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    sessions = [await mysql_store.open_session(CLIENT, MINUTE) for _ in range(2)]
    gone, client = [Listening(mysql_store, session) for session in sessions]
    runner = mysql_store._runner()
    calls = [call(number) for number in range(8)]
    for number, one in enumerate(calls):
        await mysql_store.turn(sessions[number % 2], Turn(adds=[one]))
    worker = await mysql_store.open_session(WORKER, MINUTE)

    async def end_two() -> int:
        """Tell both sessions of an end; return the round trips that it took."""
        leases = (await mysql_store.turn(worker, Turn(lanes=(LANE,), room=2))).leased
        before = runner.trips
        ends = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leases]
        assert (await mysql_store.turn(worker, Turn(outcomes=ends))).settled == [True, True]
        return runner.trips - before

    for bell in (gone, client):
        await bell.asleep(side)
    usual = await end_two()
    for bell in (gone, client):
        await bell.heard()
        await bell.asleep(side)

    side.run(f"KILL CONNECTION IS_USED_LOCK({side.bell(sessions[0])})", "killing")
    gone.stop()
    await until(lambda: not side.run(f"SELECT IS_USED_LOCK({side.bell(sessions[0])})", "looking")[0][0][0])
    for more in (2, 0):  # it is noticed once
        assert await end_two() == usual + more
        await client.heard()
        await client.asleep(side)

    back = Listening(mysql_store, sessions[0])
    await back.asleep(side)
    assert await end_two() == usual + 1
    await back.heard()
    await client.heard()
    for bell in (back, client):
        bell.stop()


async def test_a_bell_ends_no_other_query(
    mysql_store: MysqlStore, side: MysqlConnection, mariadb: MariaServer, mariadb_url: str
) -> None:
    session = await mysql_store.open_session(CLIENT, MINUTE)
    listening = Listening(mysql_store, session)
    await listening.asleep(side)
    # Of the same user, with the same words; and the session of the same number in another database.
    with closing(connect(address_of(mariadb_url))) as stranger:
        ended: list[object] = []

        def sleep() -> None:
            try:
                ended.append(stranger.run(sleep_of(session, stranger), "sleeping"))
            except StoreError as error:
                ended.append(error)

        thread = threading.Thread(target=sleep)
        thread.start()
        await until(lambda: len(sleeping(side, sleep_of(session, side))) == 2)
        elsewhere = MysqlStore(mariadb.database())
        await elsewhere.open()
        there = Listening(elsewhere, session)
        await there.rung.wait()
        there.rung.clear()

        runner = mysql_store._runner()
        runner.post(partial(runner.wake, scope=Scope(mysql_store._clock, rung={session})))
        await listening.heard()
        assert not ended
        assert not there.rung.is_set()
        stranger.interrupt()
        thread.join()
    assert [type(end) for end in ended] == [Lost]
    there.stop()
    listening.stop()
    await elsewhere.close()


async def test_a_listener_takes_the_place_of_the_one_before_whose_end_was_not_noticed(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    session = await mysql_store.open_session(CLIENT, MINUTE)
    first = Listening(mysql_store, session)
    number = await first.asleep(side)
    first.stop()
    assert sleeping(side, sleep_of(session, side)) == [number]  # the server does not know that nobody listens

    second = Listening(mysql_store, session)
    await second.rung.wait()
    await until(lambda: sleeping(side, sleep_of(session, side)) not in ([], [number]))
    second.rung.clear()
    runner = mysql_store._runner()
    runner.post(partial(runner.wake, scope=Scope(mysql_store._clock, rung={session})))
    await second.heard()
    second.stop()


async def test_a_lock_that_a_stranger_keeps_is_told(mysql_store: MysqlStore, mariadb: MariaServer) -> None:
    session = await mysql_store.open_session(CLIENT, MINUTE)
    with closing(connect(mysql_store._address)) as connection, closing(guest(mariadb)) as stranger:
        take = f"SELECT GET_LOCK({connection.bell(session)}, 0)"
        assert stranger.run(take, "taking")[0] == [(1,)]
        with pytest.raises(
            StoreUnavailable, match=r"another connection holds the lock 'everloop bell .* and"
        ):
            hang_up_bell(connection, session, patience=0)


def guest(mariadb: MariaServer) -> MysqlConnection:
    """Return a connection of a user's that may not be killed by others."""
    return connect(address_of(mariadb.database()))


async def test_a_listener_whose_connection_is_killed_comes_back(
    mysql_store: MysqlStore, side: MysqlConnection, mariadb: MariaServer
) -> None:
    session = await mysql_store.open_session(CLIENT, MINUTE)
    listening = Listening(mysql_store, session)
    first = await listening.asleep(side)

    mariadb.execute(f"KILL CONNECTION {first}")
    async with asyncio.timeout(5):
        await listening.rung.wait()  # words may have been missed meanwhile
    assert await listening.asleep(side) != first
    listening.stop()
    assert not listening.rung.is_set()


async def test_many_who_ring_at_once_do_not_hold_each_other_up(
    mysql_store: MysqlStore, side: MysqlConnection, mariadb: MariaServer
) -> None:
    session = await mysql_store.open_session(CLIENT, MINUTE)
    listening = Listening(mysql_store, session)
    number = await listening.asleep(side)

    def ring() -> float:
        slowest = 0.0
        with closing(connect(mysql_store._address)) as connection:
            for _ in range(1_000):
                began = time.monotonic()
                connection.run(f"KILL QUERY {number}", "ringing")
                slowest = max(slowest, time.monotonic() - began)
        return slowest

    slowest = max(await asyncio.gather(*(asyncio.to_thread(ring) for _ in range(3))))
    listening.stop()
    # MariaDB gives up after 2 s, and goes on: no clock of ours is asked how fast it is.
    assert slowest < 1.5
