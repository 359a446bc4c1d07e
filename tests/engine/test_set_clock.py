"""The machine's clock is set forward by a day: nobody takes the living for dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import pytest

from everloop._core.clock import SystemClock
from everloop._core.looks import Gauges
from everloop._core.records import SessionInfo
from everloop.engine import keeper
from everloop.engine.keeper import Keeper
from everloop.store.memory import MemoryStore
from everloop.store.protocol import NOBODY
from tests.helpers.waiting import until

DAY = 86_400_000_000
LEASE_S = 0.3


class Clock:
    """The machine's, which somebody sets."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return SystemClock().now() + self.ahead


class Watched(MemoryStore):
    """Notes, in order, who was renewed and who might have been taken for dead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, "memory://set-clock")
        self.clock = clock
        self.said: list[str] = []
        self.on_reap: Callable[[], None] = lambda: None

    async def renew(self, session: int, lease: int, gauges: Gauges | None = None) -> bool:
        self.said.append("renew")
        return await super().renew(session, lease, gauges)

    async def reap(self, *, overdue: bool = True, dead: Mapping[int, str] = NOBODY) -> int:
        self.said.append("reap" if overdue else "spare")
        try:
            return await super().reap(overdue=overdue, dead=dead)
        finally:
            self.on_reap()


async def test_a_session_is_sure_of_its_life_until_its_last_renewal_is_as_old_as_its_lease() -> None:
    store = Watched(Clock())
    session = await store.open_session(SessionInfo(app="a", kind="worker", host="here", pid=1), 60_000_000)
    kept = Keeper(store, session, time.monotonic(), 60.0, lambda: None, None)

    assert kept.is_sure
    kept._kept_until -= 60.0
    assert not kept.is_sure

    kept.start()
    try:
        await until(lambda: kept.is_sure)
    finally:
        kept.stop()


async def test_all_renew_before_anybody_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "TICK", 0.01)
    clock, loop = Clock(), asyncio.get_running_loop()
    store = Watched(clock)
    session = await store.open_session(SessionInfo(app="a", kind="worker", host="here", pid=1), 300_000)
    lost, judged = asyncio.Event(), asyncio.Event()
    kept = Keeper(store, session, time.monotonic(), LEASE_S, lost.set, None)

    def look() -> None:
        if store.said[-1] != "reap":
            return
        if not clock.ahead:
            clock.ahead = DAY
            store.said.clear()
        else:
            loop.call_soon_threadsafe(judged.set)

    store.on_reap = look
    kept.start()
    try:
        async with asyncio.timeout(20):
            await judged.wait()
    finally:
        kept.stop()

    assert not lost.is_set()
    assert store.said[:2] == ["renew", "spare"]
    assert await store.renew(session, 300_000), "it lives"
