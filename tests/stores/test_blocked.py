"""Rows of the dead that a transaction of the user's holds: it is named, and left alone."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from typing import Any

import psycopg
import pytest

from everloop._core.records import Lane, NewCall, SessionInfo, Turn
from everloop.store.sql import blocked, mysql
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql_connection import connect
from everloop.store.url import store_from_url
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.waiting import until

pytestmark = pytest.mark.server

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
MINUTE = 60_000_000


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is late is looked at whenever somebody reaps."""
    monkeypatch.setattr(blocked, "LOOK_S", 0.0)
    monkeypatch.setattr(blocked, "SILENT_S", 0.0)
    monkeypatch.setattr("everloop.store.sql.server_store.LATE", 0)
    monkeypatch.setattr(mysql, "SILENT_S", -1.0)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


async def leased_by_the_dead(store: Any) -> str:
    """Leave a lease of a session whose time is over."""
    dead = await store.open_session(WORKER, MINUTE)
    call = NewCall(id="00000001-0000-7000-8000-000000000000", lane=LANE, args=b"j")
    (lease,) = (await store.turn(dead, Turn(adds=[call], lanes=(LANE,), room=1))).leased
    await store.renew(dead, 0)
    return str(lease.id)


@pytest.mark.usefixtures("at_once")
async def test_a_transaction_of_the_users_on_postgresql(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_from_url(postgresql_url)
    await store.open()
    id_ = await leased_by_the_dead(store)
    with psycopg.connect(postgresql_url, application_name="till") as theirs:
        theirs.execute("SELECT * FROM ever_calls WHERE id = %s FOR UPDATE", (id_,))
        assert [await store.reap() for _ in range(3)] == [0, 0, 0]
        theirs.execute("SELECT 1")  # nobody has ended it
        number, role = theirs.info.backend_pid, theirs.info.user
    (text,) = told(caplog)
    assert text == (
        "everloop: calls of a process that has ended cannot be taken over: the transaction of connection "
        f"{number} (till, role {role}) holds their rows. Commit it or roll it back; to end the "
        f"connection: SELECT pg_terminate_backend({number})"
    )
    assert await store.reap() == 1
    await store.close()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("sees", [True, False])
async def test_a_transaction_of_the_users_on_mariadb(
    mariadb: MariaServer, mariadb_url: str, caplog: pytest.LogCaptureFixture, sees: bool
) -> None:
    user = address_of(mariadb_url).user
    if sees:
        mariadb.execute(f"GRANT PROCESS ON *.* TO '{user}'@'%'")
    store = store_from_url(mariadb_url)
    await store.open()
    id_ = await leased_by_the_dead(store)
    with closing(connect(address_of(mariadb_url))) as theirs:
        theirs.run(f"START TRANSACTION; SELECT * FROM ever_calls WHERE id = '{id_}' FOR UPDATE", "holding")
        assert [await store.reap() for _ in range(3)] == [0, 0, 0]
        theirs.run("SELECT 1", "living")
        theirs.run("ROLLBACK", "ending")  # a connection that is only closed ends when the server notices
    who = f"connection {theirs.number} (user {user}) may hold"
    assert [who in text and text.endswith(f"KILL {theirs.number}") for text in told(caplog)] == [True] * sees
    assert await store.reap() == 1
    await store.close()


async def test_a_connection_of_ours_that_stands_still_is_ended(
    postgresql_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    store, other = store_from_url(postgresql_url), store_from_url(postgresql_url)
    await store.open()
    await other.open()
    id_ = await leased_by_the_dead(other)

    def hold(connection: Any) -> int:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM ever_calls WHERE id = %s FOR UPDATE", (id_,))
        return int(connection.info.backend_pid)

    number = await other._runner().call(hold)  # type: ignore[attr-defined]
    with psycopg.connect(postgresql_url, autocommit=True) as side:  # the answer is there before it waits
        stands = "SELECT wait_event_type = 'Client' FROM pg_stat_activity WHERE pid = %s"
        await until(lambda: side.execute(stands, (number,)).fetchone() == (True,))
    assert await store.reap() == 0
    (text,) = told(caplog)
    assert text == (
        "everloop: a process stands still within a transaction, for 0 s or longer, and what it holds cannot "
        f"be taken over; its connection {number} was ended"
    )
    async with asyncio.timeout(20):  # its end was asked for
        while not (reaped := await store.reap()):
            await asyncio.sleep(0.01)
    assert reaped == 1
    await other.close()
    await store.close()
