"""What is left of sessions that are over: the next sweep takes it, or the one after some days."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg
import pymysql
import pytest

from everloop._core.calls import Event
from everloop._core.keeping import SESSIONS, Pruned, Pruning
from everloop._core.records import Lane, NewCall, Outcome, SessionInfo, Turn
from everloop.store.sql.mysql_address import address_of
from everloop.store.url import sqlite_path, store_from_url

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
CLIENT = SessionInfo(app="a", kind="client", host="here", pid=2)
ALL = Pruning("a", calls=0, failed=0)
ID = "00000001-0000-7000-8000-000000000000"

#: As a transaction leaves it that has seen the session, and is committed after the session's end.
_TELL = "INSERT INTO ever_inbox (session, seq, kind) SELECT {}, seq, 'ended' FROM ever_calls"
_WAIT = "INSERT INTO ever_waits (seq, session) SELECT seq, {} FROM ever_calls"


def _ask(url: str, *statements: str) -> list[Any]:
    """Do this in a transaction of its own; return the number in the last one's answer."""
    if url.startswith("postgresql"):
        connection: Any = psycopg.connect(url)
    elif url.startswith("sqlite"):
        connection = sqlite3.connect(sqlite_path(url))
    else:
        at = address_of(url)
        connection = pymysql.connect(
            host=at.host, port=at.port, user=at.user, password=at.password, database=at.database
        )
    with closing(connection):
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        found = list(map(tuple, cursor.fetchall())) if cursor.description else []
        connection.commit()
    return found


def _left(url: str) -> list[int]:
    return [_ask(url, f"SELECT count(*) FROM {table}")[0][0] for table in ("ever_inbox", "ever_waits")]


async def test_what_was_told_to_nobody_goes_with_the_next_sweep(url: str) -> None:
    store = store_from_url(url)
    await store.open()
    worker = await store.open_session(WORKER, 60_000_000)
    client = await store.open_session(CLIENT, 60_000_000)
    await store.add(None, [NewCall(id=ID, lane=LANE, args=b"j")])
    (leased,) = (await store.turn(worker, Turn(room=1, lanes=(LANE,)))).leased
    await store.turn(worker, Turn(outcomes=[Outcome(leased.id, leased.fence, Event.SUCCEED, b"j1")]))
    await store.close_session(client)
    _ask(url, _TELL.format(client), _WAIT.format(client))
    assert _left(url) == [1, 1]

    assert await store.prune(ALL) == Pruned(1)

    assert _left(url) == [0, 0]
    assert await store.get([ID]) == [None]
    await store.close()


async def test_what_is_told_to_one_that_lives_stays(url: str) -> None:
    store = store_from_url(url)
    await store.open()
    worker = await store.open_session(WORKER, 60_000_000)
    client = await store.open_session(CLIENT, 60_000_000)
    await store.turn(client, Turn(adds=[NewCall(id=ID, lane=LANE, args=b"j")]))
    (leased,) = (await store.turn(worker, Turn(room=1, lanes=(LANE,)))).leased
    await store.turn(worker, Turn(outcomes=[Outcome(leased.id, leased.fence, Event.SUCCEED, b"j1")]))

    assert await store.prune(ALL) == Pruned(0)

    assert _left(url) == [1, 0]
    (ended,) = (await store.turn(client, Turn())).ended
    assert ended.id == ID
    await store.close()


async def test_where_a_session_was_is_known_for_as_long_as_its_calls(url: str) -> None:
    store = store_from_url(url)
    await store.open()
    await store.close_session(await store.open_session(CLIENT, 60_000_000))
    await store.close_session(await store.open_session(CLIENT, 60_000_000))
    ages = f"UPDATE ever_past_sessions SET closed = closed - {SESSIONS + 1} WHERE session = 1"
    _ask(url, ages)

    await store.prune(Pruning("a", calls=60_000_000))  # the others are kept for ever
    assert _ask(url, "SELECT session FROM ever_past_sessions ORDER BY session") == [(1,), (2,)]
    await store.prune(Pruning("a", calls=60_000_000, failed=60_000_000))

    assert _ask(url, "SELECT session FROM ever_past_sessions") == [(2,)]
    await store.close()


@pytest.mark.server
async def test_on_postgresql_a_session_may_end_beside_a_transaction_that_tells_it(
    postgresql_url: str,
) -> None:
    """Where the rows above come from: neither sees what the other has not committed."""
    store = store_from_url(postgresql_url)
    await store.open()
    client = await store.open_session(CLIENT, 60_000_000)
    await store.add(None, [NewCall(id=ID, lane=LANE, args=b"j")])
    with psycopg.connect(postgresql_url) as theirs:
        theirs.execute(
            f"{_TELL.format('s.session')} JOIN ever_sessions AS s ON s.session = {client}".encode()
        )
        await store.close_session(client)

    assert _left(postgresql_url) == [1, 0]
    await store.close()
