"""What is the memory store's own: names that share, and bells."""

from __future__ import annotations

import asyncio
import threading

import pytest

from everloop._core.calls import Event
from everloop._core.clock import ManualClock
from everloop._core.errors import StoreError
from everloop._core.keeping import Pruned, Pruning
from everloop._core.records import Lane, NewCall, Outcome, SessionInfo, Turn
from everloop.store import memory_keeping
from everloop.store.memory import MemoryStore
from everloop.store.url import store_from_url

LANE = Lane("a", "default", "work")
CALL = NewCall(id="00000001-0000-7000-8000-000000000000", lane=LANE, args=b"j")
CLIENT = SessionInfo(app="a", kind="client", host="here", pid=1)
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
MINUTE = 60_000_000


async def test_stores_of_one_name_are_one_store() -> None:
    first, second = store_from_url("memory://one-name"), store_from_url("memory://one-name")
    await first.add(None, [CALL])

    assert await second.get([CALL.id]) == await first.get([CALL.id])
    assert await store_from_url("memory://another-name").get([CALL.id]) == [None]
    assert await store_from_url("memory://").get([CALL.id]) == [None]


async def test_private_stores_share_nothing() -> None:
    first, second = MemoryStore(), MemoryStore()
    await first.add(None, [CALL])

    assert await second.get([CALL.id]) == [None]
    assert first.url == "memory://"


async def test_a_worker_is_woken_when_a_call_is_added() -> None:
    store, woken = MemoryStore(), asyncio.Event()
    stop = store.listen(await store.open_session(WORKER, MINUTE), woken.set)
    await store.add(None, [CALL])

    await asyncio.wait_for(woken.wait(), 5)
    stop()


async def test_a_client_is_woken_when_its_call_ends_and_not_before() -> None:
    store, woken = MemoryStore(), asyncio.Event()
    client, worker = await store.open_session(CLIENT, MINUTE), await store.open_session(WORKER, MINUTE)
    stop = store.listen(client, woken.set)
    await store.add(client, [CALL])
    (lease,) = (await store.turn(worker, Turn(room=1, lanes=(LANE,)))).leased
    await asyncio.sleep(0)
    assert not woken.is_set()

    await store.turn(worker, Turn(outcomes=[Outcome(lease.id, lease.fence, Event.SUCCEED)]))
    await asyncio.wait_for(woken.wait(), 5)
    stop()
    stop()


async def test_who_stopped_listening_is_not_woken() -> None:
    store, woken = MemoryStore(), asyncio.Event()
    stop = store.listen(await store.open_session(WORKER, MINUTE), woken.set)
    stop()
    await store.add(None, [CALL])
    await asyncio.sleep(0)

    assert not woken.is_set()


async def test_who_stops_leaves_the_others_of_its_session_listening() -> None:
    store, gone, woken = MemoryStore(), asyncio.Event(), asyncio.Event()
    session = await store.open_session(WORKER, MINUTE)
    stop, stop_other = (store.listen(session, event.set) for event in (gone, woken))
    stop()
    await store.add(None, [CALL])

    await asyncio.wait_for(woken.wait(), 5)
    assert not gone.is_set()
    stop_other()


async def test_a_sweep_goes_on_behind_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_keeping, "PAGE", 2)
    clock = ManualClock()
    store = MemoryStore(clock)
    calls = [NewCall(id=f"{n:08x}-0000-7000-8000-000000000000", lane=LANE, args=b"j") for n in range(3)]
    await store.add(None, calls)
    await store.cancel([call.id for call in calls])
    clock.advance(3_600)

    request = Pruning("a", failed=MINUTE, every=MINUTE)
    first = await store.prune(request)
    assert (first.calls, await store.prune(request)) == (2, Pruned()), "another sweep is not due"
    assert first.next is not None
    second = await store.prune(first.next)
    assert (second.calls, second.next) == (1, None)
    assert await store.get([call.id for call in calls]) == [None] * 3


async def test_a_bell_rings_across_threads() -> None:
    store, woken = MemoryStore(), asyncio.Event()
    stop = store.listen(await store.open_session(WORKER, MINUTE), woken.set)
    thread = threading.Thread(target=lambda: asyncio.run(_add(store)))
    thread.start()

    await asyncio.wait_for(woken.wait(), 5)
    stop()
    thread.join()


async def test_a_listener_whose_loop_is_closed_is_passed_over() -> None:
    store = MemoryStore()
    session = await store.open_session(WORKER, MINUTE)
    thread = threading.Thread(target=lambda: asyncio.run(_listen(store, session)))
    thread.start()
    thread.join()

    await store.add(None, [CALL])


async def test_an_outcome_that_is_none_is_refused_before_anything_happens() -> None:
    store = MemoryStore()
    worker = await store.open_session(WORKER, MINUTE)
    await store.add(None, [CALL])
    (lease,) = (await store.turn(worker, Turn(room=1, lanes=(LANE,)))).leased
    before = await store.get([CALL.id])
    outcomes = [Outcome(lease.id, lease.fence, event) for event in (Event.SUCCEED, Event.DUE)]

    with pytest.raises(
        ValueError, match="a lease ends by succeed, fail, retry, cancel, release, reap, not by"
    ):
        await store.turn(worker, Turn(outcomes=outcomes))
    assert await store.get([CALL.id]) == before


async def test_a_users_connection_cannot_be_on_it() -> None:
    with pytest.raises(StoreError, match="memory:// is no database"):
        await MemoryStore().settle_on(None, Outcome(CALL.id, 1, Event.SUCCEED))  # type: ignore[arg-type]  # none is


async def _add(store: MemoryStore) -> None:
    await store.add(None, [CALL])


async def _listen(store: MemoryStore, session: int) -> None:
    store.listen(session, lambda: None)
