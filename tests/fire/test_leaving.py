"""The server says nothing any more: whoever stops does not wait for a connection that is being made."""

from __future__ import annotations

import time
from typing import Any

import pytest

from everloop.engine.keeper import Keeper
from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.server_store import ServerStore
from everloop.store.url import store_from_url
from tests.fire.stores import MINUTE, WORKER
from tests.helpers.servers.proxy import Proxy
from tests.helpers.waiting import until

pytestmark = pytest.mark.server

#: Far less than the ten seconds that a connection may take.
SOON_S = 5.0


async def test_a_listener_and_a_keeper_stop_while_they_connect(url: str, proxy: Proxy) -> None:
    store, twin = store_from_url(proxy.url(url)), store_from_url(proxy.url(url))
    assert isinstance(store, ServerStore) and isinstance(twin, ServerStore)
    await store.open()
    session = await store.open_session(WORKER, MINUTE)
    listener: Listener = store._listener(session, lambda: None)
    keeper = Keeper(twin, session, time.monotonic(), 60.0, lambda: None, None)
    keeper.start()
    await until(lambda: twin._hot is not None)

    proxy.stall()
    proxy.cut()
    runner: Any = twin._hot
    await until(lambda: listener._connecting and runner._connecting)
    before = time.monotonic()
    listener.stop()
    keeper.stop()
    assert time.monotonic() - before < SOON_S
    assert listener._thread.is_alive() and runner._thread.is_alive(), "they end with their attempt"

    proxy.go_on()
    await until(lambda: not (listener._thread.is_alive() or runner._thread.is_alive()))
    await store.close()
