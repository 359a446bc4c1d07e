"""What is the server stores' own: round trips, and transactions that stay open beside the engine."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from itertools import product
from typing import Any

import msgspec
import psycopg
import pytest

from everloop._core.calls import Event, State
from everloop._core.keeping import Pruning
from everloop._core.records import (
    CallFilter,
    KeyRule,
    Lane,
    NewCall,
    Outcome,
    Progress,
    SessionInfo,
    Turn,
    TurnAnswer,
)
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.runners.mysql_connection import connect
from everloop.store.sql.server_store import ServerStore
from everloop.store.url import store_from_url
from tests.helpers.lately import Always
from tests.helpers.mysql import users_connection

pytestmark = pytest.mark.server

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
CLIENT = SessionInfo(app="a", kind="client", host="here", pid=2)
MINUTE = 60_000_000


def call(number: int, **rest: Any) -> NewCall:
    return NewCall(id=f"{number:08x}-0000-7000-8000-000000000000", lane=LANE, args=b"j", **rest)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{server}_url"))


@pytest.fixture
async def store(url: str) -> AsyncIterator[ServerStore[Any]]:
    store = store_from_url(url)
    assert isinstance(store, ServerStore)
    await store.open()
    yield store
    await store.close()


@contextmanager
def transaction(url: str, *statements: str) -> Iterator[None]:
    """Hold a transaction of somebody else's open, in which these statements have run."""
    connection = _connected(url)
    try:
        for statement in statements:
            connection.cursor().execute(statement.encode())
        yield
        connection.rollback()
    finally:
        connection.close()


def _connected(url: str) -> Any:
    if url.startswith("postgresql"):
        return psycopg.connect(url)
    return users_connection(url)


def judging(url: str, key: str) -> str:
    """Return what judges a key, as a submission does."""
    if url.startswith("postgresql"):
        return f'SELECT pg_advisory_xact_lock(hashtextextended(\'["a", "work", "{key}"]\', 7170))'
    bucket = zlib.crc32(f"a\0work\0{key}".encode()) & 65535
    return f"SELECT * FROM ever_key_locks WHERE bucket = {bucket} FOR UPDATE"


@pytest.mark.parametrize("fleet", [1, 40])
async def test_reaping_takes_a_few_round_trips_however_many_have_died(
    store: ServerStore[Any], fleet: int
) -> None:
    await store.add(None, [call(n) for n in range(fleet)])
    for _ in range(fleet):
        worker = await store.open_session(WORKER, 0)
        assert len((await store.turn(worker, Turn(lanes=(LANE,), room=1))).leased) == 1
    runner = store._runner()

    before = runner.trips
    assert await store.reap() == fleet
    assert runner.trips - before <= 7  # two of them look whose transactions block others
    assert (await store.counts())[State.READY] == fleet


@pytest.mark.parametrize("size", [1, 400])
async def test_a_turn_takes_three_round_trips_whatever_its_size(store: ServerStore[Any], size: int) -> None:
    worker = await store.open_session(WORKER, MINUTE)
    await store.turn(worker, Turn(lanes=(LANE,)))  # numbers the lane
    runner = store._runner()

    before = runner.trips
    added = await store.turn(worker, Turn(adds=[call(n) for n in range(size)], lanes=(LANE,), room=size))
    assert runner.trips - before <= 3
    assert len(added.leased) == size

    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue") for lease in added.leased]
    progress = [Progress(lease.id, lease.fence, 1, 2, "half") for lease in added.leased]
    before = runner.trips
    more = [call(size + n) for n in range(size)]
    turn = Turn(outcomes=outcomes, adds=more, progress=progress, lanes=(LANE,), room=size)
    settled = await store.turn(worker, turn)
    assert runner.trips - before <= 3
    assert (settled.settled, len(settled.leased)) == ([True] * size, size)


async def test_what_a_turn_on_postgresql_does_at_once_goes_with_its_commit(postgresql_url: str) -> None:
    store = PostgresStore(postgresql_url)
    await store.open()
    try:
        worker, client = await store.open_session(WORKER, MINUTE), await store.open_session(CLIENT, MINUTE)
        await store.turn(worker, Turn(lanes=(LANE,)))  # numbers the lane
        runner = store._runner()

        async def trips(session: int, turn: Turn) -> tuple[int, TurnAnswer]:
            before = runner.trips
            answer = await store.turn(session, turn)
            return runner.trips - before, answer

        made, _ = await trips(client, Turn(adds=[call(n) for n in range(3)]))
        assert made == 1
        made, answer = await trips(worker, Turn(lanes=(LANE,), room=2))
        assert (made, len(answer.leased)) == (1, 2)
        done = [Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue") for lease in answer.leased]
        made, answer = await trips(worker, Turn(outcomes=done, lanes=(LANE,), room=2))
        assert (made, answer.settled, len(answer.leased)) == (1, [True, True], 1)
        made, answer = await trips(client, Turn())
        assert (made, [end.value for end in answer.ended]) == (1, [b"jvalue", b"jvalue"])
    finally:
        await store.close()


async def test_what_cannot_be_done_at_once_is_done_whole_all_the_same(postgresql_url: str) -> None:
    store = PostgresStore(postgresql_url)
    await store.open()
    try:
        worker, client = await store.open_session(WORKER, MINUTE), await store.open_session(CLIENT, MINUTE)
        plain, hung = call(1), call(2, callbacks=(call(3),))
        await store.turn(client, Turn(adds=[plain, hung]))
        leased = (await store.turn(worker, Turn(lanes=(LANE,), room=2))).leased
        done = [Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue") for lease in leased]

        # A callback hangs on the second: it is ready, and leased, in the very turn that ends that one.
        answer = await store.turn(worker, Turn(outcomes=done, adds=[call(4)], lanes=(LANE,), room=5))
        assert answer.settled == [True, True]
        assert [lease.id for lease in answer.leased] == [call(3).id, call(4).id]
        assert sorted(end.id for end in (await store.turn(client, Turn())).ended) == [plain.id, hung.id]

        # A repetition meets what is there.
        answer = await store.turn(worker, Turn(outcomes=done, adds=[plain, call(5)]))
        assert (answer.settled, [a.status for a in answer.added]) == ([False, False], ["exists", "added"])
    finally:
        await store.close()


def fill(url: str, finished: int) -> None:
    """Add calls that have ended, and let the server count its tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        for into in (
            "ever_calls (seq, id, lane, state, place, root, due) SELECT n, 'c' || n, 1, 'succeeded', 1, n, 1",
            "ever_payloads (seq, args, policy, created) SELECT n, 'j', '', 1",
            "ever_outcomes (seq, ended, session, value) SELECT n, 1, 1, 'j'",
        ):
            connection.execute(f"INSERT INTO {into} FROM generate_series(-{finished}, -1) AS s(n)".encode())
        connection.execute("ANALYZE")


@pytest.mark.parametrize("finished", [0, 1_000_000])
async def test_no_plan_of_a_turn_reads_a_whole_table(postgresql_url: str, finished: int) -> None:
    store = PostgresStore(postgresql_url)
    await store.open()
    worker = await store.open_session(WORKER, MINUTE)
    if finished:
        await store.turn(worker, Turn(lanes=(LANE,)))  # numbers the lane
        fill(postgresql_url, finished)

    def plans(connection: psycopg.Connection[Any]) -> dict[str, str]:
        told: dict[str, str] = {}
        for name, statement, types in connection.execute(
            "SELECT name, statement, parameter_types::text[] FROM pg_prepared_statements "
            "WHERE name LIKE 'ever%' AND statement ~ 'ever_(calls|inbox|payloads|outcomes)'"
        ).fetchall():
            values = ", ".join("1" if kind == "bigint" else "'[]'" for kind in types)
            rows = connection.execute(f'EXPLAIN EXECUTE "{name}" ({values})'.encode()).fetchall()
            told[statement] = "\n".join(line for (line,) in rows)
        return told

    try:
        # Nobody has analysed these tables, and there is next to nothing in them; or they are full, and known.
        for n in range(4):
            turn = Turn(adds=[call(2 * n), call(2 * n + 1)], lanes=(LANE,), room=2)
            first, second = (await store.turn(worker, turn)).leased
            done = Outcome(first.id, first.fence, Event.SUCCEED, b"jvalue")
            failed = Outcome(second.id, second.fence, Event.FAIL, error=b"jerror")
            assert (await store.turn(worker, Turn(outcomes=[done]))).settled == [True]
            assert (await store.turn(worker, Turn(outcomes=[failed]))).settled == [True]

        store._lately = Always()
        await store.turn(worker, Turn(adds=[call(100)], lanes=(LANE,), room=0))
        (leased,) = (await store.turn(worker, Turn(lanes=(LANE,), room=2))).leased
        failed = Outcome(leased.id, leased.fence, Event.FAIL, error=b"jerror")
        assert (await store.turn(worker, Turn(outcomes=[failed], lanes=(LANE,), room=2))).settled == [True]

        found = await store._runner().call(plans)
        lately = [plan for text, plan in found.items() if "state || ''" in text]
        assert [
            re.search(r"ever_calls_pkey on .*\n.*Index Cond: \(seq > ", plan) is None for plan in lately
        ] == [
            False,
            False,
        ]
        assert {"leased", "succeeded"} <= {word for text in found for word in text.split("'")}
        for text, plan in found.items():
            assert "Seq Scan on ever_" not in plan, f"{text}\n{plan}"
            # A join of another kind begins by reading one side, which may be the whole table.
            assert not re.search("(Hash|Merge)( Semi)? Join", plan), f"{text}\n{plan}"
            assert not re.search(r"ever_\w+_(pkey|id) on .*\n(?!.*Index Cond)", plan), f"{text}\n{plan}"
        # By its id, not among all leases of the session.
        (settling,) = [
            plan for text, plan in found.items() if "SET state = 'succeeded'" in text and "said" in text
        ]
        assert "Index Cond: (id = s.id)" in settling, settling
    finally:
        await store.close()


@pytest.mark.parametrize("mode", ["STRICT_ALL_TABLES", "NO_BACKSLASH_ESCAPES"])
def test_every_text_survives_a_literal_of_mysql(mariadb_url: str, mode: str) -> None:
    hard = [
        "",
        "'",
        "\\",
        "\\'",
        "''; --",
        "\\\\'",
        '"',
        "%s",
        "a\0b\n\r\x1a",
        "\u00bf\u5c27\U0001f40d",
        "?:x",
    ]
    texts = hard + ["".join(pair) for pair in product(hard, repeat=2)]
    with closing(connect(address_of(mariadb_url))) as connection:
        connection.run(f"SET sql_mode = '{mode}'", "setting a mode")
        asked = f"SELECT {', '.join(f'({connection.literal(text)})' for text in texts)}"
        assert list(connection.run(asked, "reading texts")[0][0]) == texts


async def test_a_row_that_somebody_holds_holds_up_nobody_else(store: ServerStore[Any], url: str) -> None:
    worker = await store.open_session(WORKER, MINUTE)
    leased = (await store.turn(worker, Turn(adds=[call(1), call(2)], lanes=(LANE,), room=2))).leased
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]

    with transaction(url, f"SELECT * FROM ever_calls WHERE id = '{leased[0].id}' FOR UPDATE"):
        async with asyncio.timeout(4):  # a lock is waited for for five
            answer = await store.turn(worker, Turn(outcomes=outcomes, adds=[call(3)], lanes=(LANE,), room=5))
    assert answer.settled == [None, True]
    assert [lease.id for lease in answer.leased] == [call(3).id]

    assert (await store.turn(worker, Turn(outcomes=outcomes))).settled == [True, False]


async def test_what_has_run_is_not_released_because_its_row_is_held(
    store: ServerStore[Any], url: str
) -> None:
    worker = await store.open_session(WORKER, MINUTE)
    ran, lost = (await store.turn(worker, Turn(adds=[call(1), call(2)], lanes=(LANE,), room=2))).leased
    outcome = Outcome(ran.id, ran.fence, Event.SUCCEED)

    with transaction(url, f"SELECT * FROM ever_calls WHERE id = '{ran.id}' FOR UPDATE"):
        async with asyncio.timeout(4):
            assert (await store.turn(worker, Turn(outcomes=[outcome], holding=()))).settled == [None]
    states = [found and (found.state, found.fence) for found in await store.get([ran.id, lost.id])]
    assert states == [(State.LEASED, ran.fence), (State.READY, lost.fence + 1)]
    assert (await store.turn(worker, Turn(outcomes=[outcome]))).settled == [True]


async def test_a_key_that_an_open_transaction_judges_is_answered_busy(
    store: ServerStore[Any], url: str
) -> None:
    await store.add(None, [call(1, key=KeyRule("a"))])

    with transaction(url, judging(url, "b")):
        async with asyncio.timeout(4):
            answers = await store.add(
                None, [call(2, key=KeyRule("b")), call(3, key=KeyRule("a")), call(4, key=KeyRule("c"))]
            )
    assert [answer.status for answer in answers] == ["busy", "exists", "added"]
    assert [answer.status for answer in await store.add(None, [call(2, key=KeyRule("b"))])] == ["added"]


async def test_a_callback_whose_key_is_busy_is_not_lost(store: ServerStore[Any], url: str) -> None:
    main = call(1, callbacks=(call(2, key=KeyRule("b")),))

    with transaction(url, judging(url, "b")):
        answers = await store.add(None, [main])
    assert [answer.status for answer in answers] == ["busy"]
    assert await store.get([main.id]) == [None]
    assert [answer.status for answer in await store.add(None, [main])] == ["added"]
    assert [found and found.state for found in await store.get([call(2).id])] == [State.WAITING]


def adding(id_: str, *, seq: int = -7, state: str = "waiting", **rest: int | str) -> str:
    """Return what adds a call, as far as others could see."""
    row = {"seq": seq, "id": id_, "lane": 1, "state": state, "place": 1, "root": seq, "due": 1} | rest
    return f"INSERT INTO ever_calls ({', '.join(row)}) VALUES ({', '.join(map(repr, row.values()))})"


async def test_calls_that_are_not_committed_yet_hold_up_nobody(store: ServerStore[Any], url: str) -> None:
    other = Lane("a", "default", "other")
    lanes = (LANE, other)
    worker = await store.open_session(msgspec.structs.replace(WORKER, lanes=lanes), MINUTE)
    client = await store.open_session(CLIENT, MINUTE)
    adds = [call(1), call(2), call(3), call(4, tags=("a",))]
    leased = (await store.turn(worker, Turn(adds=adds, lanes=lanes, room=3))).leased
    first, parent, third = leased
    seqs = await asyncio.to_thread(_seqs, url)
    uncommitted = [
        adding(call(11).id, seq=-11, state="ready"),
        adding(call(12).id, seq=-12, state="ready", lane=2),
        adding(call(13).id, seq=-13, state="ready", crashes=2),
        adding(call(14).id, seq=-14, state="ready", expires=1),
        adding(call(15).id, seq=-15, state="scheduled"),
        adding(call(16).id, seq=-16, after=first.id),
        adding(call(17).id, seq=-17, state="ready", parent=seqs[parent.id], child_key="k"),
    ]
    outcomes = [Outcome(first.id, first.fence, Event.SUCCEED), Outcome(parent.id, parent.fence, Event.FAIL)]
    with transaction(url, *uncommitted):
        async with asyncio.timeout(4):  # a lock is waited for for five
            turn = Turn(outcomes=outcomes, adds=[call(5)], lanes=lanes, room=1, suspects=True)
            answer = await store.turn(worker, turn)
            assert (answer.settled, [lease.id for lease in answer.leased]) == ([True, True], [call(4).id])
            for suspects in (False, True):
                await store.turn(worker, Turn(lanes=lanes, room=0, suspects=suspects))
            third_ends = Outcome(third.id, third.fence, Event.RETRY, delay=0)
            assert (await store.turn(worker, Turn(outcomes=[third_ends], lanes=(LANE,)))).settled == [True]
            await store.cancel([call(5).id])
            await store.wait(client, [call(4).id, call(11).id])
            await store.reap()
            await store.prune(Pruning("a", calls=0))
            await store.add(client, [call(6, key=KeyRule("a")), call(7, after=call(4).id)])
            await store.find(CallFilter(app="a"))
            await store.close_session(worker)


def _seqs(url: str) -> dict[str, int]:
    with closing(_connected(url)) as connection:
        cursor = connection.cursor()
        cursor.execute(b"SELECT id, seq FROM ever_calls")
        return {id_.decode() if isinstance(id_, bytes) else id_: seq for id_, seq in cursor.fetchall()}


async def test_an_id_that_an_open_transaction_has_added_is_answered_busy(
    store: ServerStore[Any], url: str
) -> None:
    client = await store.open_session(CLIENT, MINUTE)
    await store.turn(client, Turn(adds=[call(1)]))
    named = [call(number, named=True) for number in range(1, 12)]

    with transaction(url, adding(named[4].id)):
        async with asyncio.timeout(20):
            answers = await store.add(client, named)
            (again,) = await store.add(client, [named[4]])
            async with asyncio.timeout(4):  # a lock is waited for for five
                await store.turn(client, Turn(adds=[call(20)]))
                await store.add(None, [call(21, key=KeyRule("a"))])
    assert [answer.status for answer in answers] == ["exists", *["added"] * 3, "busy", *["added"] * 6]
    assert again.status == "busy"
    assert await store.get([named[4].id]) == [None]
    assert [answer.status for answer in await store.add(client, [named[4]])] == ["added"]
    assert all(await store.get([each.id for each in named]))


async def test_a_call_with_a_chosen_id_whose_row_is_held_is_answered_busy(
    store: ServerStore[Any], url: str
) -> None:
    client, other = [await store.open_session(CLIENT, MINUTE) for _ in range(2)]
    await store.add(other, [call(1, named=True)])

    with transaction(url, f"SELECT * FROM ever_calls WHERE id = '{call(1).id}' FOR UPDATE"):
        async with asyncio.timeout(20):
            answers = await store.add(client, [call(1, named=True), call(2, named=True)])
    assert [answer.status for answer in answers] == ["busy", "added"]
    assert [answer.status for answer in await store.add(client, [call(1, named=True)])] == ["exists"]


async def test_chosen_ids_that_many_add_at_once_are_added_once(store: ServerStore[Any]) -> None:
    twins = [store, store.twin(), store.twin()]
    for twin in twins[1:]:
        await twin.open()
    try:
        sessions = [await twin.open_session(CLIENT, MINUTE) for twin in twins]
        named = [call(number, named=True) for number in range(1, 101)]
        statuses: list[list[str]] = []

        async def add(twin: ServerStore[Any], session: int, calls: list[NewCall]) -> None:
            while calls:
                answers = await twin.add(session, calls)
                statuses.append([answer.status for answer in answers])
                calls = [c for c, answer in zip(calls, answers, strict=True) if answer.status == "busy"]

        orders = named, named[::-1], named[50:] + named[:50]
        async with asyncio.timeout(60):
            await asyncio.gather(*map(add, twins, sessions, orders))
    finally:
        for twin in twins[1:]:
            await twin.close()
    told = [status for each in statuses for status in each]
    assert (told.count("added"), told.count("exists")) == (100, 200)
    assert (await store.counts())["ready"] == 100


async def test_the_dead_session_of_a_held_lease_is_reaped_later(store: ServerStore[Any], url: str) -> None:
    dying = await store.open_session(WORKER, MINUTE)
    leased = (await store.turn(dying, Turn(adds=[call(1), call(2)], lanes=(LANE,), room=2))).leased
    await store.renew(dying, 0)

    with transaction(url, f"SELECT * FROM ever_calls WHERE id = '{leased[0].id}' FOR UPDATE"):
        assert await store.reap() == 0
        states = [found and found.state for found in await store.get([call(1).id, call(2).id])]
        assert states == [State.LEASED, State.READY]
    assert await store.reap() == 1
    assert [found and found.crashes for found in await store.get([call(1).id, call(2).id])] == [1, 1]
