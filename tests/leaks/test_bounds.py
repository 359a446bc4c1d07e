"""What comes and goes leaves nothing, and what is remembered has a bound."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import everloop
from everloop import App
from everloop._core.errors import StoreUnavailable
from everloop._core.records import Lane, NewCall, SessionInfo, Turn
from everloop.engine import scribe
from everloop.store.sql.runners import mysql_bells, sqlite_file
from everloop.store.sql.store import SqliteStore
from everloop.store.sql.verbs.scope import Scope
from tests.helpers.census import held, registries
from tests.helpers.processes import started
from tests.helpers.waiting import until

ROOT = Path(__file__).resolve().parents[2]
#: What there may be more of at one moment than at another (see tests/leaks/judge.py).
MOMENT = 5


def _growth(once: Callable[[], object], times: int) -> list[str]:
    """Do something so many times; return what has grown since it was done for the third time."""
    for _ in range(3):
        once()
    before = registries() | held()
    for _ in range(times):
        once()
    after = registries() | held()
    exact = {"threads", "descriptors", "connections"}
    return [
        f"{name} was {before.get(name, 0)}, and is {count}"
        for name, count in after.items()
        if name not in ("rss", "sqlite", "blocks")
        and count > before.get(name, 0) + (0 if name in exact else MOMENT)
    ]


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = App("bounds", f"sqlite:///{tmp_path}/store.db", lease=0.5)

    @app.task
    async def double(n: int) -> int:
        return 2 * n

    @app.task
    def in_thread(n: int) -> int:
        return n

    return app


def test_loops_that_come_and_go_leave_nothing(app: App, tmp_path: Path) -> None:
    """As scripts, and frameworks that run each request on a loop of its own, have them."""
    double, in_thread = app.functions["double"], app.functions["in_thread"]

    async def main() -> None:
        async with app.database().transaction() as connection:
            task = await app.submit(double(2), connection=connection)
        assert await double(1) == 2
        assert await in_thread(1) == 1
        assert await task == 4

    assert not _growth(lambda: asyncio.run(main()), 10)
    assert not list((tmp_path / "store.db.bells").iterdir())
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        for table in ("ever_sessions", "ever_serves", "ever_inbox", "ever_waits"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_what_is_leaked_for_each_loop_is_found() -> None:
    """The test above can fail."""
    kept = everloop._notices._said

    def leak() -> None:
        kept.add(f"something else each time {len(kept)}")

    said = set(kept)
    try:
        (fault,) = _growth(leak, 10)
    finally:
        kept.intersection_update(said)
    assert fault.startswith("everloop._notices._said was ")


def test_a_database_is_the_same_each_time_it_is_asked_for(tmp_path: Path) -> None:
    """Its pool stays open as long as the app: one for each time was a leak."""
    app, url = App("shop", f"sqlite:///{tmp_path}/shop.db"), f"sqlite:///{tmp_path}/orders.db"

    assert app.database() is app.database()
    assert app.database(url, pool_size=2) is app.database(url, pool_size=2)
    assert len({app.database(), app.database(url), app.database(url, pool_size=2)}) == 3


async def test_of_workers_that_were_killed_their_host_and_number_are_kept_and_nothing_else(
    tmp_path: Path,
) -> None:
    store, target = f"sqlite:///{tmp_path}/store.db", "tests.leaks.programs.load:app"
    env = {"EVERLOOP_STORE": store, "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                started("-m", "everloop", "worker", target, folder=tmp_path, env=env, name=f"worker{n}")
            )
            for n in range(2)
        ]
        for worker in workers:
            worker.until("worker ready")
        async with App("load", store, embed=False) as app:
            await app.counts()
            for worker in workers:
                worker.kill()
            with closing(sqlite3.connect(tmp_path / "store.db")) as connection:

                def counted(table: str) -> int:
                    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

                await until(lambda: counted("ever_past_sessions") == 2)  # its keeper looks each second
                assert [counted(f"ever_{name}") for name in ("sessions", "serves", "inbox")] == [1, 0, 0]
            await until(lambda: len(list((tmp_path / "store.db.bells").iterdir())) == 1)


async def test_the_log_of_an_sqlite_file_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "COPY_AT", 1 << 16)
    monkeypatch.setattr(sqlite_file, "RESTART_AT", 1 << 19)
    monkeypatch.setattr(sqlite_file, "LAID_OUT", 1 << 16)
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    lane = Lane("a", "default", "work")
    session = await store.open_session(SessionInfo(app="a", kind="client", host="here", pid=1), 60_000_000)
    sizes: list[int] = []
    for n in range(40):
        calls = [
            NewCall(id=f"{n:08x}-0000-7000-8000-{k:012x}", lane=lane, args=b"j" * 500) for k in range(50)
        ]
        await store.turn(session, Turn(adds=calls))
        await store.tend()
        sizes.append((tmp_path / "store.db-wal").stat().st_size)
    await store.close()

    written = (tmp_path / "store.db").stat().st_size
    assert written > 3 << 19, "all of that went through the log"
    assert max(sizes) < 1 << 20


def test_what_waits_to_be_logged_while_the_store_is_away_has_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scribe, "WAITING", 10_000)

    class Away:
        async def log(self, _chunks: object) -> None:
            raise StoreUnavailable("it is away")

    async def main() -> tuple[int, int]:
        writes = scribe.Scribe(Away())  # type: ignore[arg-type] # it logs, and nothing else
        leased = SimpleNamespace(id="1", fence=1, attempt=0)
        attempts: list[Any] = [SimpleNamespace(page=None, leased=leased) for _ in range(100)]
        for attempt in attempts:
            writes.printed(attempt, "a" * 1_000 + "\n")
        most = writes._waiting
        await writes.close()
        return most, sum(attempt.page.lost for attempt in attempts)

    most, lost = asyncio.run(main())
    assert 5_000 < most <= 10_000
    assert lost == 100 - most // (1_000 + scribe.OVERHEAD)


def test_sessions_that_do_not_listen_are_remembered_up_to_a_bound() -> None:
    bells = mysql_bells.Bells(lambda *_: [])
    scope = Scope(None, 0, {}, {})  # type: ignore[arg-type] # nobody asks for the time
    for session in range(1, 5 * mysql_bells._MOST):
        bells._heard(scope, {session}, [], set())
        assert len(bells._quiet) <= mysql_bells._MOST


def _caches() -> Iterator[tuple[str, int | None]]:
    for found in pkgutil.walk_packages(everloop.__path__, "everloop."):
        if found.name in ("everloop.__main__", "everloop._child") or "fastapi" in found.name:
            continue
        for name, value in vars(importlib.import_module(found.name)).items():
            if hasattr(value, "cache_parameters") and value.__module__ == found.name:
                yield f"{found.name.removeprefix('everloop.')}.{name}", value.cache_parameters()["maxsize"]


def test_each_cache_has_a_bound_or_knows_all_it_will_be_asked() -> None:
    unbounded = {name for name, most in _caches() if most is None}

    assert unbounded == {
        "store.sql.dialect.statements",  # asked for each dialect
        "store.sql.dialect.migrations",
        "store.sql.runners.mysql_texts._form",  # for each statement of a dialect
        "store.sql.runners.mysql_texts._is_folded",
        "store.sql.runners.mysql_texts._parts",
        "store.sql.runners.postgresql_pipe._numbered",
    }
