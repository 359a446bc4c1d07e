"""Who listens loses its connection: polling is the truth meanwhile, and afterwards bells ring again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

import pytest

from everloop import App, TaskFunction
from everloop.engine import turns
from everloop.store.sql.runners import listener
from tests.fire.kinds import Kind
from tests.helpers.servers.server import Server
from tests.helpers.waiting import until

pytestmark = pytest.mark.server

#: A call runs within so many seconds though no bell rings.
POLLED_S = 3.0
#: So many seconds are enough for anything else.
LIMIT_S = 20.0
#: Nobody polls within a test.
NEVER_S = 600.0


class Two:
    """A worker and a client, with sessions of their own on one loop."""

    def __init__(self, url: str) -> None:
        self.worker, _ = self._app(url)
        self.client, self.double = self._app(url)

    @staticmethod
    def _app(url: str) -> tuple[App, TaskFunction[[int], int]]:
        app = App("bells", url, embed=False)

        @app.task
        async def double(n: int) -> int:
            return 2 * n

        return app, double


@asynccontextmanager
async def both(url: str) -> AsyncIterator[Two]:
    two = Two(url)
    async with two.worker.worker(), two.client:
        await two.client.counts()
        yield two


async def until_both_listen(
    kind: Kind, server: Server, url: str, without: AbstractSet[int] = frozenset()
) -> set[int]:
    """Wait until the worker and the client listen, by other connections than these; return theirs."""
    found: set[int] = set()

    def listening() -> bool:
        found.clear()
        found.update(set(kind.listening(server, url)) - without)
        return len(found) == 2

    await until(listening)
    return found


async def test_while_nobody_can_listen_calls_run_by_polling(
    kind: Kind, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever loses its connection does not come back within this test.
    monkeypatch.setattr(listener, "PAUSE", NEVER_S)
    async with both(url) as two:
        bells = await until_both_listen(kind, server, url)
        async with asyncio.timeout(LIMIT_S):
            assert await two.double(1) == 2
        for bell in bells:
            kind.end(server, bell)
        await until(lambda: not kind.listening(server, url))

        for n in range(3):
            async with asyncio.timeout(POLLED_S):
                assert await two.double(n) == 2 * n
        assert kind.listening(server, url) == []


async def test_once_the_listeners_are_back_bells_ring_again(
    kind: Kind, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "POLL", NEVER_S)  # whatever runs, runs because a bell has rung
    async with both(url) as two:
        for _ in range(2):
            bells = await until_both_listen(kind, server, url)
            for bell in bells:
                kind.end(server, bell)
            await until_both_listen(kind, server, url, without=bells)

            for n in range(20):
                async with asyncio.timeout(LIMIT_S):
                    assert await two.double(n) == 2 * n


async def test_a_call_that_is_due_soon_is_rung_for_too(
    kind: Kind, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "POLL", NEVER_S)
    async with both(url) as two:
        await until_both_listen(kind, server, url)
        delayed = two.double.options(delay=0.2)
        async with asyncio.timeout(LIMIT_S):
            assert await delayed(3) == 6
            assert await asyncio.gather(*[delayed(n) for n in range(20)]) == [2 * n for n in range(20)]


async def test_what_was_missed_while_nobody_listened_is_found_when_they_are_back(
    kind: Kind, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "POLL", NEVER_S)
    monkeypatch.setattr(listener, "PAUSE", 0.5)
    async with both(url) as two:
        bells = await until_both_listen(kind, server, url)
        for bell in bells:
            kind.end(server, bell)
        await until(lambda: not kind.listening(server, url))

        async with asyncio.timeout(LIMIT_S):
            assert await two.double(4) == 8
