"""The store behind PgBouncer in transaction mode: everything works, and nothing is left to strangers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from everloop import App, ConfigError
from everloop._core.calls import Event
from everloop._core.records import KeyRule, Lane, NewCall, Outcome, SessionInfo, Turn
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.runners import postgresql_listener
from everloop.store.sql.runners.postgresql_connection import Connection
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.pgbouncer import Pooler
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import address

pytestmark = pytest.mark.server

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
MINUTE = 60_000_000


@pytest.fixture(scope="module")
def pooler(postgresql: PostgresServer) -> Iterator[Pooler]:
    required(PostgresServer)  # skips, or fails, where servers are left out
    with Pooler(postgresql) as pooler:
        yield pooler


@pytest.fixture
def url(pooler: Pooler, postgresql_url: str) -> str:
    """A fresh database, through the pooler."""
    return pooler.url(postgresql_url)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url)
    await store.open()
    yield store
    await store.close()


def call(number: int, **rest: KeyRule) -> NewCall:
    return NewCall(id=f"{number:08x}-0000-7000-8000-000000000000", lane=LANE, args=b"j", **rest)


def test_calls_run_and_that_nobody_listens_is_said_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    postgresql_listener._told.clear()
    app = App("pooled", url)

    @app.task
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def main() -> list[int]:
        async with asyncio.timeout(20):
            return await asyncio.gather(*(double(n) for n in range(100)))

    assert app.run(main()) == [2 * n for n in range(100)]
    assert app.run(main()) == [2 * n for n in range(100)]
    told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    (text,) = told
    assert text == (
        f"everloop: the store's URL leads to a pooler (127.0.0.1:{address(url).port}), where nobody can "
        "listen: what other processes commit is found by looking, once a second. A URL of the server itself "
        "is quicker"
    )


async def test_nothing_is_left_on_the_servers_connections(
    store: PostgresStore, url: str, postgresql: PostgresServer
) -> None:
    worker = await store.open_session(WORKER, MINUTE)
    for n in range(20):
        turn = Turn(adds=[call(n), call(100 + n)], lanes=(LANE,), room=2)
        leased = (await store.turn(worker, turn)).leased
        done = [Outcome(each.id, each.fence, Event.SUCCEED) for each in leased]
        assert (await store.turn(worker, Turn(outcomes=done))).settled == [True, True]
    assert await store.reap() == 0

    names = postgresql.execute(
        f"SELECT DISTINCT application_name FROM pg_stat_activity WHERE usename = '{address(url).username}'"
    )
    assert names == [("everloop",)]
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as stranger:
        for _ in range(4):
            assert stranger.execute("SELECT count(*) FROM pg_prepared_statements").fetchall() == [(0,)]
            assert stranger.execute("SELECT count(*) FROM pg_listening_channels()").fetchall() == [(0,)]
            assert stranger.execute("SHOW lock_timeout").fetchall() == [("0",)]
            assert stranger.execute("SHOW synchronous_commit").fetchall() == [
                ("off",)
            ]  # as its server has it


async def test_each_transaction_has_its_settings(store: PostgresStore, url: str) -> None:
    seen: list[tuple[object, ...]] = []

    def look(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        assert isinstance(connection, Connection)
        for statement in connection.opening:
            connection.execute(statement.encode())
        names = ("transaction_isolation", "lock_timeout", "idle_in_transaction_session_timeout")
        seen.extend(connection.execute(f"SHOW {name}".encode()).fetchall()[0] for name in names)
        seen.extend(connection.execute("SHOW application_name").fetchall())
        connection.execute("ROLLBACK")

    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f"ALTER ROLE {address(url).username} SET default_transaction_isolation = serializable")
    await store._runner().call(look)
    assert seen == [("read committed",), ("5s",), ("5s",), ("everloop store",)]


async def test_many_open_an_empty_database_at_once(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(5)]
    await asyncio.gather(*(store.open() for store in stores))
    identities = {store._identity for store in stores}
    for store in stores:
        await store.close()
    assert len(identities) == 1


async def test_a_key_is_judged(store: PostgresStore) -> None:
    answers = await asyncio.gather(*(store.add(None, [call(n, key=KeyRule("a"))]) for n in range(5)))
    assert sorted(answer.status for (answer,) in answers) == ["added", *["exists"] * 4]


async def test_options_of_the_url_are_refused(url: str) -> None:
    store = PostgresStore(f"{url}?options=-c%20search_path%3Dshop")
    with pytest.raises(ConfigError) as caught:
        await store.open()
    assert str(caught.value).endswith(
        "its `options` do not pass the pooler that it leads to. Set them for the role (ALTER ROLE ... SET "
        "...), or let the URL lead to the server itself"
    )
