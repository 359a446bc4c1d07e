"""A connection died while nobody used it: the next verb works, and nobody hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from everloop._core.calls import State
from everloop._core.records import CallFilter, KeyRule, Turn
from everloop.store.protocol import Store
from everloop.store.url import store_from_url
from tests.fire.kinds import Kind
from tests.fire.stores import CLIENT, LANE, MINUTE, WORKER, call
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.proxy import Proxy
from tests.helpers.servers.server import Server

pytestmark = pytest.mark.server

LIMIT_S = 10.0

#: Each verb, as a session that is there says it.
VERBS: dict[str, Callable[[Store, int], Awaitable[object]]] = {
    "add": lambda store, session: store.add(session, [call(2, key=KeyRule("a"))]),
    "cancel": lambda store, session: store.cancel([call(1).id]),
    "close_session": lambda store, session: store.close_session(session),
    "counts": lambda store, session: store.counts(),
    "find": lambda store, session: store.find(CallFilter()),
    "get": lambda store, session: store.get([call(1).id]),
    "open_session": lambda store, session: store.open_session(WORKER, MINUTE),
    "reap": lambda store, session: store.reap(),
    "renew": lambda store, session: store.renew(session, MINUTE),
    "serve": lambda store, session: store.serve(session, WORKER),
    "serving": lambda store, session: store.serving("a"),
    "tend": lambda store, session: store.tend(),
    "turn": lambda store, session: store.turn(session, Turn(adds=[call(2)], lanes=(LANE,), room=1)),
    "wait": lambda store, session: store.wait(session, [call(1).id]),
}


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = store_from_url(url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture(scope="module")
def restarted() -> Iterator[dict[str, Server]]:
    """Servers that the tests of this module restart."""
    servers: dict[str, Server] = {}
    yield servers
    for server in servers.values():
        server.close()


async def used(store: Store) -> int:
    """Use each connection of a store; return a session."""
    session = await store.open_session(CLIENT, MINUTE)
    await store.add(session, [call(1)])
    await store.counts()
    return session


async def until_none_is_left(kind: Kind, server: Server, url: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while kind.connected(server, url):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("verb", sorted(VERBS))
async def test_after_the_server_has_ended_the_connections(
    store: Store, kind: Kind, server: Server, url: str, verb: str
) -> None:
    session = await used(store)
    for number in kind.connected(server, url):
        kind.end(server, number)
    await until_none_is_left(kind, server, url)

    await VERBS[verb](store, session)

    (found,) = await store.get([call(1).id])
    assert found is not None
    assert found.state is (
        State.CANCELLED if verb == "cancel" else State.LEASED if verb == "turn" else State.READY
    )


async def test_after_somebody_between_has_cut_the_connections(
    kind: Kind, server: Server, url: str, proxy: Proxy
) -> None:
    store = store_from_url(proxy.url(url))
    await store.open()
    session = await used(store)
    try:
        for verb in sorted(VERBS.keys() - {"close_session"}):
            proxy.cut()
            await VERBS[verb](store, session)
    finally:
        await store.close()


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_after_a_restart_of_the_server(kind: Kind, restarted: dict[str, Server], how: str) -> None:
    if kind.name not in restarted:
        restarted[kind.name] = required(kind.server, fast=False).start()
    server = restarted[kind.name]
    store = store_from_url(server.database())
    await store.open()
    session = await used(store)
    try:
        if how == "killed":
            server.kill()
        else:
            server.stop()
        server.start()
        for verb in ("serve", "add", "counts"):  # one for each connection
            await VERBS[verb](store, session)
        assert (await store.counts())["ready"] == 2
    finally:
        await store.close()
