"""Who is woken on MySQL, where nothing can be listened to: sleeps are ended."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing, suppress
from functools import partial

import pymysql
import pytest

from everloop import StoreError
from everloop._core.calls import Event
from everloop._core.records import Outcome, Turn
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql import bell_of, bells_of
from everloop.store.sql.runners.mysql_connection import MysqlConnection, connect
from everloop.store.sql.verbs.scope import Scope
from tests.helpers.mysql import CLIENT, LANE, MINUTE, WORKER, call, until
from tests.helpers.servers.mariadb import MariaServer

pytestmark = pytest.mark.server


# -- bells --------------------------------------------------------------------------------------------------


def sleeping(side: MysqlConnection, text: str) -> list[int]:
    """Return the connections that execute just this."""
    query = f"SELECT id FROM information_schema.processlist WHERE info = {side.literal(text)}"
    return [number for (number,) in side.run(query, "looking")[0]]


class Listening:
    """A session that listens, asleep on the server; `rung` is set at each ring."""

    def __init__(self, store: MysqlStore, session: int, *, worker: bool) -> None:
        self.rung = asyncio.Event()
        self.bell = bell_of(session, worker=worker)
        self.stop = store.listen(session, self.rung.set)

    async def asleep(self, side: MysqlConnection) -> int:
        await self.rung.wait()  # as it has connected
        await until(lambda: sleeping(side, self.bell))
        self.rung.clear()
        return sleeping(side, self.bell)[0]


async def test_a_commit_wakes_whom_it_is_for_and_nobody_else(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    client, other = [await mysql_store.open_session(CLIENT, MINUTE) for _ in range(2)]
    worker = await mysql_store.open_session(WORKER, MINUTE)
    await mysql_store.turn(worker, Turn(lanes=(LANE,)))
    bells = [Listening(mysql_store, session, worker=session == worker) for session in (client, other, worker)]
    for bell in bells:
        await bell.asleep(side)
    runner = mysql_store._runner()

    before = runner.trips
    await mysql_store.turn(client, Turn(adds=[call(1)]))  # wakes workers
    assert runner.trips - before == 3
    async with asyncio.timeout(5):
        await bells[2].rung.wait()
    assert [bell.rung.is_set() for bell in bells] == [False, False, True]

    for turn in range(5):  # again and again
        await bells[2].asleep(side)
        lease = (await mysql_store.turn(worker, Turn(lanes=(LANE,), room=1))).leased[0]
        before = runner.trips
        outcome = Outcome(lease.id, lease.fence, Event.SUCCEED)
        await mysql_store.turn(worker, Turn(outcomes=[outcome], lanes=(LANE,), room=1))
        assert runner.trips - before <= 5
        async with asyncio.timeout(5):
            await bells[0].rung.wait()
        await bells[0].asleep(side)
        await mysql_store.turn(client, Turn(adds=[call(2 + turn)]))
        async with asyncio.timeout(5):
            await bells[2].rung.wait()
    assert not bells[1].rung.is_set()
    for bell in bells:
        bell.stop()
        bell.stop()


async def test_a_bell_ends_no_other_query(
    mysql_store: MysqlStore, side: MysqlConnection, mariadb: MariaServer, mariadb_url: str
) -> None:
    session = await mysql_store.open_session(CLIENT, MINUTE)
    listening = Listening(mysql_store, session, worker=False)
    own = await listening.asleep(side)
    name = address_of(mariadb_url).database
    strangers = [f"SELECT SLEEP(1), '{listening.bell[-30:]}'", f"{listening.bell} /* not quite */"]
    ended: list[object] = []

    def sleep(sql: str) -> None:
        with closing(connect(address_of(mariadb_url))) as connection:
            numbers.append(connection.number)
            try:
                ended.append(connection.run(sql, "sleeping")[0][0][0])
            except StoreError as error:
                ended.append(error)

    numbers: list[int] = []
    threads = [threading.Thread(target=sleep, args=(sql,)) for sql in strangers]

    def sleep_as_administrator() -> None:
        with suppress(pymysql.MySQLError):  # it is killed
            mariadb.execute(listening.bell, database=name)

    threads.append(threading.Thread(target=sleep_as_administrator))
    for thread in threads:
        thread.start()
    await until(lambda: all(sleeping(side, sql) for sql in strangers[1:]))
    # The administrator's has the very words: its user, whom only an administrator sees, is another one.
    admin = (
        "SELECT id FROM information_schema.processlist WHERE user = 'everloop_admin' AND info LIKE '%bell%'"
    )
    await until(
        lambda: any("bell" in str(row) for row in mariadb.execute(admin.replace("SELECT id", "SELECT info")))
    )

    query = bells_of(side, [session], Scope(mysql_store._clock))
    assert side.run(query, "bells")[0] == ((own,),)
    runner = mysql_store._runner()
    runner.post(partial(runner.wake, scope=Scope(mysql_store._clock, rung={session})))
    async with asyncio.timeout(5):
        await listening.rung.wait()
    await until(lambda: ended)
    assert ended == [0]  # the one whose sleep was short has slept it out
    assert sleeping(side, strangers[1])

    listening.stop()
    for number in (*numbers, *[row[0] for row in mariadb.execute(admin)]):
        with suppress(pymysql.MySQLError):  # it has ended by itself
            mariadb.execute(f"KILL {number}")
    for thread in threads:
        thread.join()


async def test_a_listener_whose_connection_is_killed_comes_back(
    mysql_store: MysqlStore, side: MysqlConnection, mariadb: MariaServer
) -> None:
    session = await mysql_store.open_session(CLIENT, MINUTE)
    listening = Listening(mysql_store, session, worker=False)
    first = await listening.asleep(side)

    mariadb.execute(f"KILL CONNECTION {first}")
    async with asyncio.timeout(5):
        await listening.rung.wait()  # words may have been missed meanwhile
    assert await listening.asleep(side) != first
    listening.stop()
    assert not listening.rung.is_set()
