"""What is the own of the store on MySQL and MariaDB."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pymysql
import pytest

from everloop import StoreError, StoreUnavailable
from everloop._core.calls import Event, State
from everloop._core.records import CallFilter, KeyRule, Lane, Leased, Outcome, Turn, TurnAnswer
from everloop.store.sql import sql_store
from everloop.store.sql.dialect import statements
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.runners.mysql_connection import MysqlConnection, explain
from everloop.store.sql.runners.mysql_texts import render
from everloop.store.sql.runners.server import Collision, Lost
from everloop.store.sql.verbs.statement import Statement
from tests.helpers.mysql import CLIENT, LANE, MINUTE, WORKER, call, transaction, users_connection
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.waiting import until

pytestmark = pytest.mark.server


# -- texts --------------------------------------------------------------------------------------------------


async def test_texts_are_the_same_only_when_their_bytes_are(mysql_store: MysqlStore) -> None:
    keys = ["k", "k ", "K", " k", "ḱ", "k\0", "😀", "😁", "é", "e\u0301", "%s", ":key", "\\", "'"]
    calls = [call(n, key=KeyRule(key)) for n, key in enumerate(keys)]

    assert [answer.status for answer in await mysql_store.add(None, calls)] == ["added"] * len(keys)
    again = [call(100 + n, key=KeyRule(key)) for n, key in enumerate(keys)]
    assert [answer.id for answer in await mysql_store.add(None, again)] == [one.id for one in calls]
    found = await mysql_store.get([one.id for one in calls])
    assert [one and one.key for one in found] == keys


async def test_lanes_and_tags_are_told_apart_by_their_bytes(mysql_store: MysqlStore) -> None:
    queues = ["q", "Q", "q ", "ö", "o\u0308"]
    await mysql_store.add(
        None, [call(n, Lane("a", queue, "work"), tags=(queue,)) for n, queue in enumerate(queues)]
    )

    for n, queue in enumerate(queues):
        for filter in (CallFilter(queue=queue), CallFilter(tag=queue)):
            assert [found.id for found in await mysql_store.find(filter)] == [call(n).id]


async def test_payloads_come_back_byte_for_byte(mysql_store: MysqlStore) -> None:
    payloads = [
        b"j[9007199254740993,18446744073709551616,-0.0,1e400]",
        "j\"😀 \\u0000 \\\\ ' '' % %s :now {for} \u2028\"".encode(),
        b"j\xff\xfe\x00binary",
        b"j" + b"\\" * 1_000,
        b"j" + "é".encode() * 100_000,
    ]
    calls = [call(n, args=payload) for n, payload in enumerate(payloads)]
    calls += [call(100 + n, args=payload, tags=("t",)) for n, payload in enumerate(payloads)]
    await mysql_store.add(None, calls[: len(payloads)])
    await mysql_store.add(None, calls[len(payloads) :])

    found = await mysql_store.get([one.id for one in calls])
    assert [one and one.args for one in found] == payloads * 2


async def test_payloads_and_messages_are_leased_and_told_byte_for_byte(mysql_store: MysqlStore) -> None:
    every = "".join(map(chr, range(1, 0x2100))) + "\ufeff\uffff😀\U0010ffff"
    payloads = [
        b"j" + every.encode(),
        b"j" + every[::-1].encode(),
        b'j"\'\\\\"',
        b"j\xff\xfe\x00binary",
        b"jnull",
        b"",
    ]
    client = await mysql_store.open_session(CLIENT, MINUTE)
    worker = await mysql_store.open_session(WORKER, MINUTE)
    for some in payloads, payloads[:1]:  # many at once, and one alone
        calls = [call(len(some) * 100 + n, args=payload) for n, payload in enumerate(some)]
        await mysql_store.turn(client, Turn(adds=calls))
        leased = (await mysql_store.turn(worker, Turn(lanes=(LANE,), room=10))).leased
        assert [lease.args for lease in leased] == some

        message = every + "\0"
        await mysql_store.cancel([call.id for call in calls], message)
        told = (await mysql_store.turn(worker, Turn())).cancels
        assert [cancel.message for cancel in told] == [message] * len(some)

        ends = [
            Outcome(lease.id, lease.fence, Event.SUCCEED, payload)
            for lease, payload in zip(leased, some, strict=True)
        ]
        assert (await mysql_store.turn(worker, Turn(outcomes=ends))).settled == [True] * len(some)
        assert [end.value for end in (await mysql_store.turn(client, Turn())).ended] == some


# -- round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 400])
async def test_a_turn_takes_three_round_trips_at_most_whatever_its_size(
    mysql_store: MysqlStore, size: int
) -> None:
    worker = await mysql_store.open_session(WORKER, MINUTE)
    await mysql_store.turn(worker, Turn(lanes=(LANE,)))  # numbers the lane
    runner = mysql_store._runner()

    async def trips(turn: Turn) -> tuple[int, TurnAnswer]:
        before = runner.trips
        answer = await mysql_store.turn(worker, turn)
        return runner.trips - before, answer

    def ends(leased: list[Leased]) -> list[Outcome]:
        return [Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue") for lease in leased]

    number, added = await trips(Turn(adds=[call(n) for n in range(size)], lanes=(LANE,), room=size))
    assert (number, len(added.leased)) == (2, size)  # nothing stood before them: they were added as leased

    more = [call(size + n) for n in range(2 * size)]
    number, settled = await trips(Turn(outcomes=ends(added.leased), adds=more, lanes=(LANE,), room=size))
    assert (number, settled.settled, len(settled.leased)) == (3, [True] * size, size)

    number, settled = await trips(Turn(outcomes=ends(settled.leased), lanes=(LANE,), room=size))
    assert (number, settled.settled, len(settled.leased)) == (2, [True] * size, size)


async def test_a_client_adds_in_one_round_trip_and_reads_what_ended_in_two(mysql_store: MysqlStore) -> None:
    client = await mysql_store.open_session(CLIENT, MINUTE)
    worker = await mysql_store.open_session(WORKER, MINUTE)
    runner = mysql_store._runner()
    await mysql_store.turn(worker, Turn(lanes=(LANE,)))

    async def trips(turn: Turn) -> tuple[int, TurnAnswer]:
        before = runner.trips
        answer = await mysql_store.turn(client, turn)
        return runner.trips - before, answer

    assert (await trips(Turn(adds=[call(1), call(2)])))[0] == 1
    leased = (await mysql_store.turn(worker, Turn(lanes=(LANE,), room=2))).leased
    ends = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]
    await mysql_store.turn(worker, Turn(outcomes=ends[:1]))
    number, answer = await trips(Turn())
    assert (number, [end.id for end in answer.ended]) == (2, [call(1).id])

    await mysql_store.turn(worker, Turn(outcomes=ends[1:]))
    number, answer = await trips(Turn(adds=[call(3)]))  # and what it has found out on the way
    assert (number, [end.id for end in answer.ended], answer.added[0].status) == (3, [call(2).id], "added")
    number, answer = await trips(Turn(adds=[call(3), call(4)]))  # what is there already takes another way
    assert [added.status for added in answer.added] == ["exists", "added"]


async def test_a_lost_connection_costs_one_that_was_idle_nothing(
    mysql_store: MysqlStore, mariadb: MariaServer
) -> None:
    worker = await mysql_store.open_session(WORKER, MINUTE)
    number = await mysql_store._runner().call(lambda connection: connection.number)
    mariadb.execute(f"KILL CONNECTION {number}")

    assert (await mysql_store.turn(worker, Turn(adds=[call(1)], lanes=(LANE,), room=1))).leased[0].id == call(
        1
    ).id
    assert await mysql_store._runner().call(lambda connection: connection.number) != number


def waiting(mariadb: MariaServer) -> bool:
    # Not from innodb_trx: that is kept for as long as it is read more often than every 0.1 s.
    ((_, number),) = mariadb.execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
    return int(number) > 0


async def test_a_deadlock_is_begun_anew(
    mysql_store: MysqlStore, side: MysqlConnection, mariadb: MariaServer
) -> None:
    await mysql_store.add(None, [call(1), call(2)])
    ids = [call(1).id, call(2).id]
    # Much has been written here: the server ends the other one.
    weight = "INSERT INTO ever_outcomes (seq, ended) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL "
    weight += "SELECT i + 1 FROM n WHERE i < 500) SELECT i, 0 FROM n"
    with transaction(side, weight, f"SELECT 1 FROM ever_calls WHERE id = '{ids[1]}' FOR UPDATE"):
        cancelled = asyncio.ensure_future(mysql_store.cancel(ids))
        await until(lambda: waiting(mariadb))
        side.run(f"SELECT 1 FROM ever_calls WHERE id = '{ids[0]}' FOR UPDATE", "closing the circle")
    assert [answer.state for answer in await cancelled] == [State.CANCELLED] * 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1062, Collision),
        (1205, Collision),
        (1213, Collision),
        (0, Lost),
        (1053, Lost),
        (2006, Lost),
        (2013, Lost),
        (2055, Lost),
        (1021, StoreUnavailable),
        (1040, StoreUnavailable),
        (1114, StoreUnavailable),
        (1290, StoreUnavailable),
        (1317, StoreUnavailable),
        (1045, StoreError),
        (1146, StoreError),
        (1406, StoreError),
    ],
)
def test_a_failure_is_told_by_what_may_be_done_about_it(code: int, kind: type[StoreError]) -> None:
    error = explain(pymysql.err.OperationalError(code, "the words of the server"), "lease_pick")

    assert isinstance(error, kind)
    assert isinstance(error, StoreUnavailable) == issubclass(kind, StoreUnavailable)
    assert isinstance(error, Lost) == (kind is Lost)
    assert "(lease_pick): the words of the server" in str(error)


# -- beside open transactions -------------------------------------------------------------------------------


async def test_a_row_that_somebody_holds_holds_up_nobody_else(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    worker = await mysql_store.open_session(WORKER, MINUTE)
    leased = (await mysql_store.turn(worker, Turn(adds=[call(1), call(2)], lanes=(LANE,), room=2))).leased
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]

    with transaction(side, f"SELECT 1 FROM ever_calls WHERE id = '{leased[0].id}' FOR UPDATE"):
        async with asyncio.timeout(4):  # a lock is waited for for five
            answer = await mysql_store.turn(
                worker, Turn(outcomes=outcomes, adds=[call(3)], lanes=(LANE,), room=5)
            )
    assert answer.settled == [None, True]
    assert [lease.id for lease in answer.leased] == [call(3).id]
    assert (await mysql_store.turn(worker, Turn(outcomes=outcomes))).settled == [True, False]


async def test_a_key_that_an_open_transaction_judges_is_answered_busy(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    await mysql_store.add(None, [call(1, key=KeyRule("a"))])
    rows = {"rows": [[0, "a", "work", "b"]]}
    lock = render(side, Statement("key_lock", rows), statements("mysql")["key_lock"])

    with transaction(side, *lock):
        async with asyncio.timeout(4):
            keys = {2: "b", 3: "a", 4: "c"}
            answers = await mysql_store.add(None, [call(n, key=KeyRule(key)) for n, key in keys.items()])
    assert [answer.status for answer in answers] == ["busy", "exists", "added"]
    assert [answer.status for answer in await mysql_store.add(None, [call(2, key=KeyRule("b"))])] == ["added"]


async def test_the_dead_session_of_a_held_lease_is_reaped_later(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    dying = await mysql_store.open_session(WORKER, MINUTE)
    leased = (await mysql_store.turn(dying, Turn(adds=[call(1), call(2)], lanes=(LANE,), room=2))).leased
    await mysql_store.renew(dying, 0)

    with transaction(side, f"SELECT 1 FROM ever_calls WHERE id = '{leased[0].id}' FOR UPDATE"):
        assert await mysql_store.reap() == 0
        states = [found and found.state for found in await mysql_store.get([call(1).id, call(2).id])]
        assert states == [State.LEASED, State.READY]
    assert await mysql_store.reap() == 1


async def test_a_call_is_there_when_the_users_transaction_commits(
    mysql_store: MysqlStore, mariadb_url: str
) -> None:
    with closing(users_connection(mariadb_url)) as connection:
        await mysql_store.add_on(connection, [call(1), call(2, tags=("t",))])
        assert await mysql_store.get([call(1).id]) == [None]
        connection.rollback()
        (added, _), (tagged, _) = [
            await mysql_store.add_on(connection, [call(n, tags=("t",))]) for n in (3, 4)
        ]
        connection.commit()

    assert [answer.status for answer in (*added, *tagged)] == ["added", "added"]
    found = await mysql_store.find(CallFilter())
    assert [(one.id, one.tags) for one in found] == [(call(4).id, ("t",)), (call(3).id, ("t",))]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
async def test_no_key_is_judged_by_what_was_committed_before(
    mysql_store: MysqlStore, mariadb_url: str, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setattr(sql_store, "PATIENCE", 0)
    with closing(users_connection(mariadb_url)) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
            cursor.execute("SELECT * FROM ever_calls")  # what REPEATABLE READ sees from now on
        await mysql_store.add(None, [call(1, key=KeyRule("k"))])
        if level == "REPEATABLE READ":
            with pytest.raises(StoreUnavailable, match="the same key"):
                await mysql_store.add_on(connection, [call(2, key=KeyRule("k"))])
            connection.rollback()
        for number, key in ((3, "k"), (4, "new"), (5, "new")):
            answers, _ = await mysql_store.add_on(connection, [call(number, key=KeyRule(key))])
            assert [(answer.id, answer.status) for answer in answers] == {
                3: [(call(1).id, "exists")],
                4: [(call(4).id, "added")],
                5: [(call(4).id, "exists")],
            }[number]
        connection.commit()
    assert [one.id for one in await mysql_store.find(CallFilter())] == [call(4).id, call(1).id]
