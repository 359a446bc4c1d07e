"""SQLite under the pool: one fair line of writers, and cancellations that leave nothing behind."""

# ruff: noqa: PT012 - a scope raises at the end of its block, so the whole block is expected to

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from statistics import median

import pytest
from sqlalchemy import text

from everloop._core.errors import StoreUnavailable
from everloop._core.gate import Place, WriteGate, write_gate
from everloop.resources.database import Database
from everloop.resources.resource import ResourcePool
from everloop.resources.sqlite import writes
from tests.helpers.databases import COUNT, FOR_EVER, INSERT, TABLE, database, names
from tests.helpers.seeds import seed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def db(file: Path) -> AsyncIterator[Database]:
    async with database(file, own=True) as opened:
        yield opened


async def is_free(file: Path) -> bool:
    """Whether nobody writes the file: neither by the gate, nor by SQLite's lock."""
    async with write_gate(file).hold_async(5):
        with closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as connection:
            connection.execute("begin immediate")
            connection.execute("rollback")
    return True


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select 1", False),
        ("  SELECT 1", False),
        ("-- a note\n/* update */ select 1", False),
        ("values (1)", False),
        ("explain insert into t values (1)", False),
        ("pragma journal_mode", False),
        ("vacuum", False),
        ("release savepoint a", False),
        ("with a as (select 1) select * from a", False),
        ("with a as (select 1) insert into t select * from a", True),
        ("with a as (select 1)\nDELETE from t", True),
        ("insert into t values (1)", True),
        ("INSERT OR REPLACE INTO t VALUES (1)", True),
        ("-- select\nupdate t set a = 1", True),
        ("replace into t values (1)", True),
        ("create table selection (a)", True),
        ("selection", True),
        ("savepoint a", True),
        ("analyze", True),
        ("", True),
    ],
)
def test_what_needs_a_write_transaction(statement: str, expected: bool) -> None:
    assert writes(statement) is expected


# -- the line of writers ---------------------------------------------------------------------------------


async def test_user_transactions_and_a_busy_engine_take_turns(
    db: Database, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that writes without a pause, as the store does, lets each in after one turn of its own."""
    gate = write_gate(file)
    stop = threading.Event()
    turns = 0
    waits: list[int] = []

    async def enter(self: WriteGate, patience: float, holder: object = "") -> Place:
        before = turns
        place = await original(self, patience, holder)
        waits.append(turns - before)
        return place

    original = WriteGate.enter
    monkeypatch.setattr(WriteGate, "enter", enter)

    def engine() -> None:
        nonlocal turns
        with closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as connection:
            while not stop.is_set():
                with gate.hold(10):
                    connection.execute("begin immediate")
                    connection.execute("insert into pages values ('engine')")
                    connection.execute("commit")
                    turns += 1

    thread = threading.Thread(target=engine)
    thread.start()
    try:
        for _ in range(30):
            async with db.transaction() as conn:
                await conn.execute(INSERT, {"name": "user"})
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)

    # One turn may have passed before it stood in the line.
    assert len(waits) == 30 and median(waits) <= 1
    assert names(file).count("user") == 30
    assert names(file).count("engine") == turns > 0


async def test_a_transaction_holds_the_gate_until_it_has_ended(db: Database, file: Path) -> None:
    gate = write_gate(file)
    async with db.connection() as conn:
        await conn.execute(COUNT)
        assert gate._turn is None
        await conn.execute(INSERT, {"name": "one"})
        assert "a write transaction on" in str(gate._turn and gate._turn.holder)
        await conn.commit()
        assert gate._turn is None
        await conn.execute(INSERT, {"name": "two"})
        await conn.rollback()
        assert gate._turn is None
        await conn.execute(INSERT, {"name": "three"})

    assert gate._turn is None


async def test_waiting_for_this_process_is_bounded_and_names_the_writer(file: Path) -> None:
    async with database(file, pool_timeout=0.05) as db, db.transaction() as conn:
        await conn.execute(INSERT, {"name": "long"})

        async def other() -> None:
            async with db.transaction() as waiting:
                await waiting.execute(INSERT, {"name": "late"})

        with pytest.raises(StoreUnavailable) as caught:
            await asyncio.create_task(other())

    assert "shop.db was being written by this process for 0.05 s, by a write transaction on" in str(
        caught.value
    )
    assert f"(since {__file__}:" in str(caught.value)
    assert names(file) == ["long"]


async def test_waiting_for_another_process_is_bounded(file: Path) -> None:
    async with database(file, pool_timeout=0.05) as db:
        with closing(sqlite3.connect(file, isolation_level=None)) as another:
            another.execute("begin immediate")
            with pytest.raises(StoreUnavailable, match="was being written by another process for"):
                async with db.transaction() as conn:
                    await conn.execute(INSERT, {"name": "late"})
            assert write_gate(file)._turn is None
            another.execute("commit")
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "next"})

    assert names(file) == ["next"]


async def test_a_failed_begin_leaves_the_scope_as_it_was(file: Path) -> None:
    async with database(file, pool_timeout=0.05) as db:
        with closing(sqlite3.connect(file, isolation_level=None)) as another:
            another.execute("begin immediate")
            async with db.transaction() as conn:
                with pytest.raises(StoreUnavailable):
                    await conn.execute(INSERT, {"name": "refused"})
                another.execute("commit")
                await conn.execute(INSERT, {"name": "in the transaction"})
                assert names(file) == []

    assert names(file) == ["in the transaction"]


PROCESS = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import text
sys.path.insert(0, sys.argv[2])
from tests.helpers.databases import COUNT, INSERT, database

async def main():
    async with database(Path(sys.argv[1])) as db:
        async def append():
            async with db.transaction() as conn:
                count = (await conn.execute(COUNT)).scalar_one()
                await conn.execute(INSERT, {"name": str(count)})
        await asyncio.gather(*[append() for _ in range(25)])

asyncio.run(main())
"""


async def test_processes_that_write_one_file_lose_and_double_nothing(file: Path) -> None:
    here = str(Path(__file__).resolve().parents[2])
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, str(file), here, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in started:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()

    assert names(file) == [str(n) for n in range(75)]


async def test_many_connections_may_be_the_first_on_a_new_file(file: Path) -> None:
    async with database(file) as db:

        async def read() -> str:
            async with db.connection() as conn:
                await asyncio.sleep(0)
                return str((await conn.execute(text("pragma journal_mode"))).scalar_one())

        assert await asyncio.gather(*[read() for _ in range(20)]) == ["wal"] * 20


# -- cancellation ----------------------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("scope", ["connection", "transaction", "session"])
async def test_a_cancelled_query_is_interrupted_at_once(db: Database, file: Path, scope: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), getattr(db, scope)() as conn:
            await conn.execute(INSERT, {"name": "undone"})
            await conn.execute(FOR_EVER)

    assert time.monotonic() - began < 5
    assert await is_free(file)
    assert db.statistics().in_use == 0
    assert names(file) == []
    async with db.transaction() as conn:
        await conn.execute(INSERT, {"name": "next"})
    assert names(file) == ["next"]


async def test_cancelling_again_while_the_query_is_stopped_changes_nothing(db: Database, file: Path) -> None:
    async def query() -> None:
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "undone"})
            await conn.execute(FOR_EVER)

    task = asyncio.create_task(query())
    await asyncio.sleep(0.1)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)

    assert task.cancelled()
    assert await is_free(file)
    assert db.statistics().in_use == 0


async def test_who_is_cancelled_in_the_line_of_writers_leaves_it(db: Database, file: Path) -> None:
    async def insert() -> None:
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "undone"})

    async with write_gate(file).hold_async():
        waiting = asyncio.create_task(insert())
        while not write_gate(file)._line:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not write_gate(file)._line

    assert await is_free(file)


async def test_a_commit_that_has_begun_is_finished_and_told_of(db: Database, file: Path) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def transaction() -> AsyncIterator[None]:
        scope = db.transaction()
        scope.after_commit = lambda: told.append("committed")  # type: ignore[attr-defined]  # a WriteScope
        async with scope as conn:
            await conn.execute(INSERT, {"name": "kept"})
            yield

    async def body() -> None:
        async with transaction():
            asyncio.get_running_loop().call_soon(task.cancel)  # strikes while COMMIT is in its thread

    task = asyncio.create_task(body())
    with pytest.raises(asyncio.CancelledError):
        await task

    assert told == ["committed"]
    assert names(file) == ["kept"]
    assert await is_free(file)


@pytest.mark.both_loops
async def test_cancelled_at_random_points_nothing_is_half_done_mixed_up_or_kept(file: Path) -> None:
    rng = random.Random(seed())
    done: set[str] = set()

    async def use(db: Database, number: int) -> None:
        name = str(number)
        async with [db.connection, db.transaction, db.session][number % 3]() as conn:
            assert (await conn.execute(text("select :n"), {"n": name})).scalar_one() == name
            await conn.execute(INSERT, {"name": name})
            await conn.execute(INSERT, {"name": name})
            assert (await conn.execute(text("select :n"), {"n": name})).scalar_one() == name
            if number % 3 == 0:
                await conn.commit()
        done.add(name)

    async with database(file, own=True, pool_size=4) as db:
        tasks: list[asyncio.Task[None]] = []
        for number in range(300):
            tasks.append(asyncio.create_task(use(db, number)))
            if rng.random() < 0.7:
                asyncio.get_running_loop().call_later(rng.expovariate(50), tasks[-1].cancel)
            while sum(not task.done() for task in tasks) >= 12:
                await asyncio.sleep(0)
        await asyncio.wait(tasks)
        errors = [task.exception() for task in tasks if not task.cancelled()]

        assert [error for error in errors if error is not None] == []
        assert db.statistics().in_use == 0
        assert await is_free(file)
        async with asyncio.timeout(10):  # every place of the pool is still there
            async with db.connection() as a, db.connection() as b, db.connection() as c, db.connection() as d:
                for conn in (a, b, c, d):
                    await conn.execute(COUNT)
                assert db.statistics().in_use == 4

    stored = names(file)
    assert done <= set(stored)
    assert all(stored.count(name) == 2 for name in stored)
    assert 30 < len(done) < 300


def test_a_query_that_its_loop_has_abandoned_is_stopped(file: Path) -> None:
    pool = ResourcePool()
    db = Database(pool, f"sqlite:///{file}", store_url=str)

    async def query() -> None:
        async with db.transaction() as conn:
            await conn.execute(TABLE)
            loop.call_later(0.05, loop.stop)
            await conn.execute(FOR_EVER)

    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(query())
    loop.run_forever()
    loop.close()
    abandoned._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be abandoned
    pool._open._drop_closed()

    assert asyncio.run(is_free(file))
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("everloop-pool") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_pool_of_one_survives_every_cancellation(file: Path) -> None:
    async with database(file, own=True, pool_size=1) as db:
        for steps in range(60):

            async def use() -> None:
                async with db.transaction() as conn:
                    await conn.execute(INSERT, {"name": "x"})
                    await conn.execute(INSERT, {"name": "x"})

            task = asyncio.create_task(use())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert db.statistics().in_use == 0
            assert write_gate(file)._turn is None

    assert len(names(file)) % 2 == 0
