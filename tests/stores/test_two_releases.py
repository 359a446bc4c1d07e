"""Two releases at one store: a migration that only adds, and says so, stops nobody of the release before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from everloop import SchemaError
from everloop._core.calls import Event, State
from everloop._core.records import CallFilter, KeyRule, Lane, NewCall, Outcome, Progress, SessionInfo, Turn
from everloop.store.sql import dialect, mysql, postgresql, server_store, sql_store
from everloop.store.sql.dialect import Migration, migrations, split
from everloop.store.sql.runners import sqlite_file
from everloop.store.sql.sql_store import SqlStore
from everloop.store.url import store_from_url

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
MINUTE = 60_000_000
TABLES = (
    "meta",
    "lanes",
    "calls",
    "payloads",
    "outcomes",
    "progress",
    "keys",
    "sessions",
    "serves",
    "inbox",
    "waits",
)
#: Everything that a migration which only adds may do: a column more in each table, an index, a table.
ADDS = "".join(f"ALTER TABLE ever_{table} ADD COLUMN more bigint NOT NULL DEFAULT 7;\n" for table in TABLES)
ADDS += "CREATE INDEX ever_calls_more ON ever_calls (more);\nCREATE TABLE ever_more (n bigint PRIMARY KEY);\n"
MODULES = (dialect, mysql, postgresql, server_store, sql_store, sqlite_file)
numbers = count(1)
#: The number of this release's schema.
NOW = migrations("sqlite")[-1].number


@contextmanager
def release(*later: Migration, first: int | None = None) -> Iterator[None]:
    """Be a release that has these migrations more, or the first ones only."""
    real = migrations

    def known(name: str) -> tuple[Migration, ...]:
        return (*real(name)[:first], *later)

    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "migrations", known)
        yield


def store_at(url: str) -> SqlStore:
    store = store_from_url(url)
    assert isinstance(store, SqlStore)
    return store


async def opened(url: str, *later: Migration) -> SqlStore:
    store = store_at(url)
    with release(*later):
        await store.open()
    return store


async def migrated(url: str, *later: Migration) -> None:
    await (await opened(url)).close()
    with release(*later):
        await store_at(url).migrate()


def call(**rest: Any) -> NewCall:
    return NewCall(id=f"{next(numbers):08x}-0000-7000-8000-000000000000", lane=LANE, args=b"j", **rest)


async def work(mine: SqlStore, theirs: SqlStore) -> None:
    """Let one release submit what the other runs, with each verb there is."""
    client, worker = await mine.open_session(WORKER, MINUTE), await theirs.open_session(WORKER, MINUTE)
    first, second, third = call(), call(key=KeyRule("k")), call(callbacks=(call(),))
    later = call(delay=MINUTE)
    await mine.turn(client, Turn(adds=[first, third]))
    assert [each.status for each in await mine.add(client, [second, later])] == ["added", "added"]
    assert [each.status for each in await theirs.add(worker, [call(key=KeyRule("k"))])] == ["exists"]
    assert await mine.wait(client, [first.id, second.id, third.id]) == []

    leased = (await theirs.turn(worker, Turn(lanes=(LANE,), room=9))).leased
    assert {each.id for each in leased} == {first.id, second.id, third.id}
    await theirs.turn(worker, Turn(progress=[Progress(leased[0].id, leased[0].fence, 1, 2, "half")]))
    ends = [
        Outcome(leased[0].id, leased[0].fence, Event.SUCCEED, b"jvalue"),
        Outcome(leased[1].id, leased[1].fence, Event.FAIL, error=b"jerror"),
    ]
    assert (await theirs.turn(worker, Turn(outcomes=ends))).settled == [True, True]
    told = (await mine.turn(client, Turn())).ended
    assert {end.id for end in told} == {end.id for end in ends}

    await mine.cancel([leased[2].id, later.id])
    assert [each.id for each in (await theirs.turn(worker, Turn())).cancels] == [leased[2].id]
    assert await theirs.renew(worker, 0)
    assert await mine.reap() == 1
    (found,) = await mine.get([leased[2].id])
    assert found is not None and found.state is State.CANCELLED
    await mine.serve(client, WORKER)
    assert ("default", "work") in await mine.serving("a")
    assert len(await mine.find(CallFilter())) == sum((await theirs.counts()).values())
    await mine.close_session(client)
    for left in await mine.find(CallFilter(states=("ready",))):
        await mine.cancel([left.id])


async def test_both_work_at_one_queue_and_the_older_one_may_be_started_anew(url: str) -> None:
    adds = Migration(NOW + 1, "adds", ADDS, oldest=NOW)
    running = await opened(url)
    await migrated(url, adds)
    newer = await opened(url, adds)
    restarted = await opened(url)
    async with asyncio.timeout(30):
        for mine, theirs in ((running, newer), (newer, restarted), (restarted, running)):
            await work(mine, theirs)
    for store in (running, newer, restarted):
        await store.close()


@pytest.mark.parametrize(
    ("later", "refused"),
    [
        (
            (
                Migration(NOW + 1, "adds", "CREATE TABLE ever_more (n bigint);", oldest=NOW),
                Migration(NOW + 2, "adds", "CREATE TABLE ever_most (n bigint);", oldest=NOW + 1),
            ),
            True,
        ),
        (
            (
                Migration(NOW + 1, "adds", "CREATE TABLE ever_more (n bigint);", oldest=NOW),
                Migration(NOW + 2, "adds", "CREATE TABLE ever_most (n bigint);", oldest=NOW),
            ),
            False,
        ),
    ],
    ids=["too new", "both add"],
)
async def test_a_schema_that_does_not_say_so_is_refused(
    url: str, later: tuple[Migration, ...], refused: bool
) -> None:
    await migrated(url, *later)
    older = store_at(url)
    if refused:
        with pytest.raises(SchemaError) as caught:
            await older.open()
        assert str(caught.value).endswith(
            f"has schema {later[-1].number}, but this version of Everloop knows {NOW}; upgrade it "
            "(pip install -U everloop). Nothing has been changed"
        )
    else:
        await older.open()
        await older.close()


async def test_the_release_before_this_one_goes_on_with_its_schema(
    url: str, by_hand: Callable[[str, list[str]], None]
) -> None:
    """A column more: it is added once, also where a part of that was done."""
    (added,) = [each for each in migrations(store_at(url).dialect) if each.number == NOW]
    with release(first=NOW - 1):
        before = store_at(url)
        await before.open()
        await before.close()
    assert await store_at(url).migrations() == (NOW - 1, [added])
    if url.startswith("mysql"):
        by_hand(url, split(added.script))  # each statement is committed by itself there
    await store_at(url).migrate()
    newer, older = await opened(url), store_at(url)
    with release(first=NOW - 1):
        await older.open()
    async with asyncio.timeout(30):
        await work(older, newer)
    for store in (older, newer):
        await store.close()


async def test_an_older_release_does_not_bring_a_newer_schema_down(url: str) -> None:
    adds = Migration(NOW + 1, "adds", ADDS, oldest=NOW)
    await migrated(url, adds)
    await store_at(url).migrate()
    assert await store_at(url).migrations() == (NOW + 1, [])


async def test_what_is_migrated_by_hand_says_so_too(
    url: str, by_hand: Callable[[str, list[str]], None]
) -> None:
    adds = Migration(NOW + 1, "adds", ADDS, oldest=NOW)
    await (await opened(url)).close()
    with release(adds):
        statements = store_at(url).script([adds])
    by_hand(url, statements)
    older = await opened(url)
    assert await store_at(url).migrations() == (NOW + 1, [])
    await older.close()


@pytest.fixture
def by_hand() -> Callable[[str, list[str]], None]:
    def execute(url: str, statements: list[str]) -> None:
        import sqlite3
        from contextlib import closing

        import psycopg

        from everloop.store.sql.mysql_address import address_of
        from everloop.store.sql.runners.mysql_connection import connect
        from everloop.store.url import sqlite_path

        if url.startswith("sqlite"):
            with closing(sqlite3.connect(sqlite_path(url))) as file:
                file.executescript(";\n".join(statements))
        elif url.startswith("postgresql"):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(";\n".join(statements).encode())
        else:
            with closing(connect(address_of(url))) as theirs:
                theirs.run(";\n".join(statements), "migrating")

    return execute
