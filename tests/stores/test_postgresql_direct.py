"""Small turns on PostgreSQL go on the connection that listens, by the loop itself."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psycopg
import pytest

from everloop._core.calls import Event, State
from everloop._core.clock import Clock
from everloop._core.errors import StoreError, StoreUnavailable
from everloop._core.records import NewCall, Outcome, SessionInfo, Turn, TurnAnswer
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.runners import postgresql_direct
from everloop.store.sql.runners.server import Collision
from everloop.store.sql.verbs.straight import FEW, LITTLE
from everloop.testing.conformance import CASES, Case, walk
from tests.helpers.servers.emptying import emptied
from tests.helpers.servers.proxy import Proxy
from tests.helpers.waiting import until
from tests.stores.listening import (
    CLIENT,
    LANE,
    LIMIT_S,
    MINUTE,
    WORKER,
    Listening,
    asked,
    call,
    listening,
    under_way,
)

pytestmark = pytest.mark.server


@pytest.fixture
async def two(postgresql_url: str) -> AsyncIterator[tuple[Listening, Listening]]:
    """A worker and a client, each with a store of its own on one database."""
    worker, client = Listening(postgresql_url), Listening(postgresql_url)
    await worker.open(WORKER)
    await client.open(CLIENT)
    yield worker, client
    for each in (worker, client):
        each.stop()
        await each.store.close()


Two = tuple[Listening, Listening]
ONCE = (1, 0)


async def test_the_turns_of_one_call_take_a_trip_each_and_no_thread(two: Two) -> None:
    worker, client = two
    for each in two:
        await each.is_rung()  # as it began to listen

    _, trips = await client.turn(Turn(adds=[call(1)]))
    assert trips == ONCE
    await worker.is_rung()
    answer, trips = await worker.turn(Turn(lanes=(LANE,), room=5))
    assert (trips, [lease.id for lease in answer.leased]) == (ONCE, [call(1).id])
    done = [Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue") for lease in answer.leased]
    answer, trips = await worker.turn(Turn(outcomes=done, lanes=(LANE,), room=5))
    assert (trips, answer.settled) == (ONCE, [True])
    await client.is_rung()
    answer, trips = await client.turn(Turn())
    assert (trips, [end.value for end in answer.ended]) == (ONCE, [b"jvalue"])


@pytest.mark.parametrize(
    "adds",
    [[call(n) for n in range(FEW + 1)], [call(1, args=b"j" * (LITTLE + 1))], [call(1, tags=("a",))]],
    ids=["many", "large", "not plain"],
)
async def test_any_other_turn_goes_through_the_thread(two: Two, adds: list[NewCall]) -> None:
    _, client = two

    answer, (direct, thread) = await client.turn(Turn(adds=adds))

    assert (direct, len(answer.added)) == (0, len(adds))
    assert thread > 0


async def test_the_largest_of_small_turns_goes_directly(two: Two) -> None:
    _, client = two
    adds = [call(n, args=b"j" * (LITTLE // FEW)) for n in range(FEW)]

    answer, trips = await client.turn(Turn(adds=adds))

    assert (trips, [added.id for added in answer.added]) == (ONCE, [each.id for each in adds])


async def test_what_is_left_of_a_turn_is_done_in_the_thread(two: Two) -> None:
    worker, client = two
    plain, hung = call(1), call(2, callbacks=(call(3),))
    await client.turn(Turn(adds=[plain, hung]))
    answer, _ = await worker.turn(Turn(lanes=(LANE,), room=5))
    done = [Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue") for lease in answer.leased]

    # A callback hangs on the second: it is ready, and leased, in the very turn that ends that one.
    answer, (direct, thread) = await worker.turn(Turn(outcomes=done, lanes=(LANE,), room=5))

    assert (direct, answer.settled, [lease.id for lease in answer.leased]) == (1, [True, True], [call(3).id])
    assert thread > 0
    ended = (await client.store.turn(client.session, Turn())).ended
    assert sorted(end.id for end in ended) == [plain.id, hung.id]


async def test_a_call_that_is_there_already_is_met_in_the_thread(two: Two) -> None:
    _, client = two
    await client.turn(Turn(adds=[call(1)]))

    answer, (direct, thread) = await client.turn(Turn(adds=[call(1), call(2)]))

    assert [added.status for added in answer.added] == ["exists", "added"]
    assert direct == 2  # it has failed, and was rolled back
    assert thread > 0
    answer, trips = await client.turn(Turn(adds=[call(3)]))
    assert (trips, answer.added[0].status) == (ONCE, "added")


async def test_what_fails_for_good_fails_here_too_and_the_connection_goes_on(two: Two) -> None:
    _, client = two

    with pytest.raises(StoreError, match=r"PostgreSQL failed \(add_straight"):
        await client.turn(Turn(adds=[NewCall(id="a\0", lane=LANE, args=b"j")]))

    assert (await client.turn(Turn(adds=[call(2)])))[1] == ONCE


async def test_a_turn_waits_for_one_whose_caller_was_cancelled(two: Two, postgresql_url: str) -> None:
    _, client = two
    async with under_way(client, postgresql_url) as caller:
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        following = [
            asyncio.create_task(client.store.turn(client.session, Turn(adds=[call(n)]))) for n in (2, 3)
        ]
        await asyncio.sleep(0)
        assert client.trips[0] == 1
    answers = await asyncio.gather(*following)

    assert [answer.added[0].status for answer in answers] == ["added", "added"]
    assert client.trips[0] == 3
    found = await client.store.get([call(n).id for n in (1, 2, 3)])
    assert [each and each.state for each in found] == [State.READY] * 3


async def test_a_turn_that_waits_for_one_goes_through_the_thread_when_listening_stops(
    two: Two, postgresql_url: str
) -> None:
    _, client = two
    async with under_way(client, postgresql_url) as caller:
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        following = asyncio.create_task(client.store.turn(client.session, Turn(adds=[call(2)])))
        await asyncio.sleep(0)
        client.stop()

    answer = await asyncio.wait_for(following, 30)
    assert [added.status for added in answer.added] == ["added"]


@pytest.mark.both_loops
async def test_a_reset_that_comes_with_a_bell_ends_the_turn(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_direct, "LOOK", 3_600.0)
    async with through_a_proxy(postgresql_url) as (client, proxy):
        with psycopg.connect(postgresql_url, autocommit=True) as other:
            proxy.stall()
            other.execute(f"NOTIFY ever_{client.session}".encode())
            other.execute("BEGIN")
            other.execute("LOCK TABLE ever_payloads IN ACCESS EXCLUSIVE MODE")
            caller = asyncio.create_task(client.store.turn(client.session, Turn(adds=[call(1)])))
            await until(lambda: client.trips[0] == 1)
            await go_on_and_cut(client, proxy)
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(caller, LIMIT_S)


@pytest.mark.both_loops
async def test_after_a_reset_that_comes_with_an_answer_it_listens_anew(postgresql_url: str) -> None:
    async with through_a_proxy(postgresql_url) as (client, proxy):
        before = await client.connected()
        proxy.stall()
        caller = asyncio.create_task(client.store.turn(client.session, Turn(adds=[call(1)])))
        await until(lambda: client.trips[0] == 1)
        await go_on_and_cut(client, proxy)

        answer = await asyncio.wait_for(caller, LIMIT_S)
        assert [added.status for added in answer.added] == ["added"]
        await until(lambda: client.store._listeners[client.session].direct not in (before, None))


@asynccontextmanager
async def through_a_proxy(url: str) -> AsyncIterator[tuple[Listening, Proxy]]:
    """A client whose connections can be reset."""
    with Proxy(urlsplit(url).port or 5432) as proxy:
        client = await Listening(proxy.url(url)).open(CLIENT)
        yield client, proxy
        client.stop()
        await client.store.close()


async def go_on_and_cut(client: Listening, proxy: Proxy) -> None:
    """Let the last bytes arrive and a reset behind them, while the loop does something else."""
    direct = await client.connected()
    proxy.go_on()
    deadline = time.monotonic() + LIMIT_S
    while not direct._pipe.is_readable() and time.monotonic() < deadline:
        time.sleep(0.01)
    proxy.cut()


async def stopped_under_way(client: Listening, url: str) -> TurnAnswer:
    """Add the first call, and stop listening while the server is at it."""
    async with under_way(client, url) as caller:
        client.stop()
    return await caller


async def test_who_stops_listening_hears_the_answer_that_is_under_way(two: Two, postgresql_url: str) -> None:
    _, client = two
    answer = await stopped_under_way(client, postgresql_url)
    assert [added.status for added in answer.added] == ["added"]

    # It has closed that connection since, and turns go through the thread.
    await until(lambda: len(listening(postgresql_url)) == 1)
    answer = await client.store.turn(client.session, Turn(adds=[call(2)]))
    assert [added.status for added in answer.added] == ["added"]


async def test_who_stops_listening_while_a_call_is_met_goes_through_the_thread(
    two: Two, postgresql_url: str
) -> None:
    _, client = two
    await client.turn(Turn(adds=[call(1)]))
    answer = await stopped_under_way(client, postgresql_url)

    assert [added.status for added in answer.added] == ["exists"]
    await until(lambda: len(listening(postgresql_url)) == 1)


async def test_before_there_is_a_connection_turns_go_through_the_thread(two: Two) -> None:
    _, client = two
    client.stop()
    client.stop = client.store.listen(client.session, client.rung.set)  # it connects now

    answer, (direct, thread) = await client.turn(Turn(adds=[call(1)]))

    assert (answer.added[0].status, direct) == ("added", 0)
    assert thread > 0


async def test_what_cannot_be_sent_at_once_is_sent_when_it_can(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = two
    direct = await client.connected()
    flush, full = direct._pipe.flush, [True, True]
    monkeypatch.setattr(direct._pipe, "flush", lambda: not full.pop() if full else flush())

    answer, trips = await client.turn(Turn(adds=[call(1)]))

    assert (answer.added[0].status, trips, full) == ("added", ONCE, [])


async def test_a_second_half_that_meets_another_transaction_is_told(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, client = two
    await client.turn(Turn(adds=[call(1, callbacks=(call(2),))]))
    answer, _ = await worker.turn(Turn(lanes=(LANE,), room=5))
    (lease,) = answer.leased
    turn = Turn(outcomes=[Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue")], lanes=(LANE,))

    def collide(*_: object) -> None:
        raise Collision("another transaction stood in the way")

    with monkeypatch.context() as patch:
        patch.setattr(worker.store._runner(), "_execute", collide)
        with pytest.raises(StoreUnavailable, match="the second half of a turn met another transaction"):
            await worker.turn(turn)

    answer, _ = await worker.turn(turn)
    assert answer.settled == [True]


async def test_what_a_test_lets_fail_goes_through_the_thread(postgresql_url: str) -> None:
    met: list[str] = []
    store = PostgresStore(postgresql_url, fault=lambda name, _: met.append(name))
    await store.open()
    session = await store.open_session(CLIENT, MINUTE)
    rung = asyncio.Event()
    stop = store.listen(session, rung.set)
    async with asyncio.timeout(LIMIT_S):
        await rung.wait()

    await store.turn(session, Turn(adds=[call(1)]))

    assert "add_straight" in met
    stop()
    await store.close()


async def test_what_is_connected_too_late_is_not_taken(postgresql_url: str) -> None:
    store = Listening(postgresql_url)
    await store.open(CLIENT)
    listener = store.store._listeners[store.session]
    store.stop()

    listener._take()

    assert listener.direct is None
    await store.store.close()


async def test_a_connection_that_has_ended_while_it_was_idle_costs_no_turn(
    two: Two, postgresql_url: str
) -> None:
    _, client = two
    before = await client.connected()
    for number in listening(postgresql_url):
        asked(postgresql_url, f"SELECT pg_terminate_backend({number})")
    await until(lambda: not listening(postgresql_url))

    # Nothing of the loop has run since: it learns so as it begins to send.
    answer = await client.store.turn(client.session, Turn(adds=[call(1)]))
    assert [added.status for added in answer.added] == ["added"]

    client.rung.clear()
    await client.is_rung()  # once it listens again
    assert await client.connected() is not before
    assert (await client.turn(Turn(adds=[call(2)])))[1] == ONCE


async def test_a_connection_that_is_lost_under_way_leaves_it_open_what_has_happened(
    two: Two, postgresql_url: str
) -> None:
    _, client = two
    async with under_way(client, postgresql_url) as caller:
        for number in listening(postgresql_url):
            asked(postgresql_url, f"SELECT pg_terminate_backend({number})")
        with pytest.raises(StoreUnavailable, match=r"ended the connection|is lost"):
            await caller

    answer = await client.store.turn(client.session, Turn(adds=[call(1)]))
    assert [added.status for added in answer.added] == ["added"]


async def test_an_answer_of_which_no_word_has_come_is_looked_for(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = two
    monkeypatch.setattr(postgresql_direct, "LOOK", 0.05)
    direct = await client.connected()
    asyncio.get_running_loop().remove_reader(direct._socket)

    answer, trips = await client.turn(Turn(adds=[call(1)]))

    assert (trips, [added.status for added in answer.added]) == (ONCE, ["added"])


async def test_a_server_that_says_nothing_is_given_up(
    two: Two, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = two
    monkeypatch.setattr(postgresql_direct, "LOOK", 0.05)
    monkeypatch.setattr(postgresql_direct, "PATIENCE", 0.2)
    with psycopg.connect(postgresql_url) as blocker:
        blocker.execute("LOCK TABLE ever_payloads IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match=r"no answer for 0\.2 s"):
            await client.store.turn(client.session, Turn(adds=[call(1)]))

    answer = await client.store.turn(client.session, Turn(adds=[call(1)]))
    assert answer.added[0].status in ("added", "exists")  # the server may have gone on with it
    await client.connected()


async def test_a_fork_leaves_the_connection_to_its_parent(two: Two) -> None:
    _, client = two

    child = os.fork()
    if child == 0:
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)

    assert (await client.turn(Turn(adds=[call(1)])))[1] == ONCE


class ListeningStore(PostgresStore):
    """Has each session listen from the start, so that its small turns go directly."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock=clock)
        self._stops: list[Callable[[], None]] = []

    async def open_session(self, info: SessionInfo, lease: int) -> int:
        session = await super().open_session(info, lease)
        self._stops.append(self.listen(session, lambda: None))
        async with asyncio.timeout(LIMIT_S):
            while self._listeners[session].direct is None:
                await asyncio.sleep(0.001)
        return session

    @property
    def direct_trips(self) -> int:
        found = (listener.direct for listener in self._listeners.values())
        return sum(direct.trips for direct in found if direct is not None)

    async def close(self) -> None:
        for stop in self._stops:
            stop()
        await super().close()


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.group in ("leasing", "settling", "telling")],
    ids=lambda case: f"{case.group}: {case.name}",
)
async def test_who_listens_conforms(case: Case, postgresql_kept: str) -> None:
    await case.check(lambda clock: ListeningStore(emptied(postgresql_kept), clock))


@pytest.mark.parametrize("seed", range(2))
async def test_a_random_walk_of_who_listens(seed: int, postgresql_kept: str) -> None:
    close = ListeningStore.close
    trips: list[int] = []

    async def counted(store: ListeningStore) -> None:
        trips.append(store.direct_trips)
        await close(store)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ListeningStore, "close", counted)
        await walk(lambda clock: ListeningStore(emptied(postgresql_kept), clock), seed, steps=200)
    assert sum(trips) > 0, "small turns went directly"
