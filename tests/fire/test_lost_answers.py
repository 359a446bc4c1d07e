"""The connection is cut around the commit of each verb, which says so or repeats itself, and is done once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

import pytest

from everloop._core.calls import Event, State
from everloop._core.errors import StoreUnavailable
from everloop._core.records import Ended, KeyRule, Lane, Outcome, Progress, Turn
from everloop.store.protocol import Store
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.url import store_from_url
from tests.fire.kinds import Kind
from tests.fire.stores import CLIENT, LANE, MINUTE, WORKER, call, leased, states, stored, told
from tests.helpers.servers.proxy import Proxy

pytestmark = pytest.mark.server

LIMIT_S = 10.0
T = TypeVar("T")

ANSWER, COMMIT, BEGINNING = "the answer", "the commit", "the beginning"


def commits(said: bytes) -> bool:
    # Not READ COMMITTED, with which a connection begins.
    return re.search(rb"\bCOMMIT\b", said) is not None


class Losing:
    """Makes a request whose connection is cut, and the same request again when that was told."""

    def __init__(self, what: str, kind: Kind, proxy: Proxy) -> None:
        self.what = what
        #: Whether the store has done it, and could not say so.
        self.done = what == ANSWER
        #: Whether somebody was told that the store is away.
        self.raised = False
        self._kind = kind
        self._proxy = proxy

    async def __call__(self, request: Callable[[], Awaitable[T]]) -> T:
        cut = self._arm()
        try:
            return await request()
        except StoreUnavailable:
            self.raised = True
        finally:
            cut.result(LIMIT_S)
        return await request()

    def _arm(self) -> Future[bytes]:
        if self.what == ANSWER:
            return self._proxy.cut_after(commits, self._kind.answered)
        if self.what == COMMIT:
            return self._proxy.cut_before(commits)
        return self._proxy.cut_before(lambda said: self._kind.begins in said)


@pytest.fixture(params=[ANSWER, COMMIT, BEGINNING])
def losing(request: pytest.FixtureRequest, kind: Kind, proxy: Proxy) -> Losing:
    return Losing(request.param, kind, proxy)


@pytest.fixture
async def calm(url: str) -> AsyncIterator[Store]:
    """The store, past the proxy: to prepare and to look."""
    store = store_from_url(url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def worker(calm: Store) -> int:
    return await calm.open_session(WORKER, MINUTE)


@pytest.fixture
async def client(calm: Store) -> int:
    return await calm.open_session(CLIENT, MINUTE)


@pytest.fixture
async def store(calm: Store, worker: int, proxy: Proxy, url: str) -> AsyncIterator[Store]:
    """The same store through the proxy; it knows the lane, so that each verb is one transaction."""
    store = store_from_url(proxy.url(url))
    await store.open()
    await store.turn(worker, Turn(lanes=(LANE,)))
    yield store
    await store.close()


async def test_calls_that_a_turn_adds_are_there_once(
    store: Store, calm: Store, client: int, losing: Losing
) -> None:
    calls = [call(n) for n in range(20)]

    answer = await losing(lambda: store.turn(client, Turn(adds=calls)))

    assert [added.id for added in answer.added] == [call.id for call in calls]
    assert {added.status for added in answer.added} <= {"added", "exists"}
    assert await states(calm, calls) == [State.READY] * 20
    assert losing.raised  # beginning and commit of such a turn are sent together


@pytest.fixture
async def listening(store: Store, worker: int, client: int) -> AsyncIterator[None]:
    """Both listen: where there is a connection that can take them, their small turns go on that."""
    stops = [store.listen(session, lambda: None) for session in (client, worker)]
    if isinstance(store, PostgresStore):
        async with asyncio.timeout(LIMIT_S):
            while any(listener.direct is None for listener in store._listeners.values()):
                await asyncio.sleep(0.01)
    yield
    for stop in stops:
        stop()


@pytest.mark.usefixtures("listening")
async def test_a_call_that_a_small_turn_adds_is_there_once(
    store: Store, calm: Store, client: int, losing: Losing
) -> None:
    answer = await losing(lambda: store.turn(client, Turn(adds=[call(1)])))

    assert [added.id for added in answer.added] == [call(1).id]
    assert answer.added[0].status == ("exists" if losing.done else "added")
    assert await states(calm, [call(1)]) == [State.READY]
    assert losing.raised


@pytest.mark.usefixtures("listening")
async def test_the_outcome_of_a_small_turn_is_stored_once_and_told_once(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    await calm.turn(client, Turn(adds=[call(1)]))
    (lease,) = await leased(calm, worker)
    outcome = Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue")

    answer = await losing(lambda: store.turn(worker, Turn(outcomes=[outcome], lanes=(LANE,))))

    assert answer.settled == [not losing.done]
    (snapshot,) = await stored(calm, [call(1)])
    assert (snapshot.state, snapshot.value, snapshot.attempt) == (State.SUCCEEDED, b"jvalue", 1)
    assert [end.id for end in await told(calm, client)] == [call(1).id]


async def test_calls_of_a_new_lane_are_there_once(
    calm: Store, client: int, losing: Losing, proxy: Proxy, url: str
) -> None:
    store = store_from_url(proxy.url(url))
    await store.open()
    calls = [call(n, lane=Lane("a", "new", "other")) for n in range(3)]

    try:
        # The lane gets its number in a transaction before.
        await losing(lambda: store.turn(client, Turn(adds=calls)))
    finally:
        await store.close()

    assert await states(calm, calls) == [State.READY] * 3
    assert {snapshot.lane for snapshot in await stored(calm, calls)} == {Lane("a", "new", "other")}


async def test_outcomes_are_stored_once_and_told_once(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    calls = [call(n) for n in range(6)]
    await calm.turn(client, Turn(adds=calls))
    leases = await leased(calm, worker)
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED, b"jvalue") for lease in leases]

    answer = await losing(lambda: store.turn(worker, Turn(outcomes=outcomes)))

    assert answer.settled == [not losing.done] * 6
    for snapshot in await stored(calm, calls):
        assert (snapshot.state, snapshot.value, snapshot.attempt) == (State.SUCCEEDED, b"jvalue", 1)
    assert sorted(end.id for end in await told(calm, client)) == [call.id for call in calls]
    assert await told(calm, client) == []


async def test_a_failure_starts_its_callback_once_and_a_retry_counts_one_attempt(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    callback, again = call(2), call(3)
    failing = call(1, callbacks=(callback,))
    await calm.turn(client, Turn(adds=[failing, again]))
    outcomes = [
        Outcome(lease.id, lease.fence, Event.FAIL if lease.id == failing.id else Event.RETRY, error=b"jerror")
        for lease in await leased(calm, worker)
    ]
    progress = [Progress(outcomes[0].id, outcomes[0].fence, 1, 2, "half")]

    await losing(lambda: store.turn(worker, Turn(outcomes=outcomes, progress=progress)))

    found = await stored(calm, [failing, callback, again])
    assert [snapshot.state for snapshot in found] == [State.FAILED, State.READY, State.READY]
    assert [(snapshot.attempt, snapshot.crashes) for snapshot in found] == [(1, 0), (0, 0), (1, 0)]
    assert [(end.id, end.state) for end in await told(calm, client)] == [(failing.id, State.FAILED)]
    # Each runs once more.
    assert {lease.id for lease in await leased(calm, worker)} == {callback.id, again.id}
    assert await leased(calm, worker) == []


async def test_a_turn_with_everything_in_it_is_made_once(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    before, after = [call(n) for n in range(3)], [call(n) for n in range(3, 6)]
    await calm.turn(client, Turn(adds=before))
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in await leased(calm, worker)]

    answer = await losing(
        lambda: store.turn(
            worker,
            Turn(outcomes=outcomes, adds=after, lanes=(LANE,), room=2, holding=() if losing.raised else None),
        )
    )

    assert {lease.id for lease in answer.leased} <= {call.id for call in after}
    assert len(answer.leased) == 2
    counts = await calm.counts()
    assert (counts["succeeded"], counts["leased"], counts["ready"], sum(counts.values())) == (3, 2, 1, 6)
    held = {s.id: s.fence for s in await stored(calm, [*before, *after]) if s.state is State.LEASED}
    assert held == {lease.id: lease.fence for lease in answer.leased}


async def test_leases_in_a_lost_answer_are_given_back_unharmed(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    calls = [call(n) for n in range(5)]
    await calm.turn(client, Turn(adds=calls))

    def take() -> Awaitable[object]:
        # As the engine does: whoever has lost an answer says what it holds, and here it takes nothing.
        turn = Turn(lanes=(LANE,), holding=()) if losing.raised else Turn(lanes=(LANE,), room=5)
        return store.turn(worker, turn)

    await losing(take)

    held = {s.id: s for s in await stored(calm, calls) if s.state is State.LEASED}
    if losing.raised:
        assert await states(calm, calls) == [State.READY] * 5
        late = [Outcome(call.id, 1, Event.SUCCEED) for call in calls]
        assert (await calm.turn(worker, Turn(outcomes=late))).settled == [False] * 5
        leases = await leased(store, worker)
        assert sorted(lease.id for lease in leases) == [call.id for call in calls]
        assert {lease.fence for lease in leases} == {3 if losing.done else 1}
    else:
        assert len(held) == 5
    for snapshot in await stored(calm, calls):
        assert (snapshot.state, snapshot.session) == (State.LEASED, worker)
        assert (snapshot.attempt, snapshot.crashes) == (0, 0)


async def test_what_is_still_held_is_not_given_back(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    calls = [call(n) for n in range(4)]
    await calm.turn(client, Turn(adds=calls))
    first, second = await leased(calm, worker, room=2)

    answer = await losing(
        lambda: store.turn(
            worker, Turn(lanes=(LANE,), room=2, holding=(first.id, second.id) if losing.raised else None)
        )
    )

    assert sorted(lease.id for lease in answer.leased) == [call.id for call in calls[2:]]
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in (first, second, *answer.leased)]
    assert (await calm.turn(worker, Turn(outcomes=outcomes))).settled == [True] * 4


async def test_ends_in_a_lost_answer_are_had_by_asking(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    calls = [call(n) for n in range(3)]
    await calm.turn(client, Turn(adds=calls))
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in await leased(calm, worker)]
    await calm.turn(worker, Turn(outcomes=outcomes))

    answer = await losing(lambda: store.turn(client, Turn()))

    ended: list[Ended] = answer.ended
    if losing.done:
        assert ended == []
        assert await calm.wait(client, [call.id for call in calls]) == []
        ended = await told(calm, client)
    assert sorted(end.id for end in ended) == [call.id for call in calls]


async def test_a_keyed_call_is_there_once(store: Store, calm: Store, client: int, losing: Losing) -> None:
    calls = [call(1, key=KeyRule("a")), call(2, key=KeyRule("b"))]

    answer = await losing(lambda: store.add(client, calls))

    assert [(added.id, added.status) for added in answer] == [
        (call.id, "exists" if losing.done else "added") for call in calls
    ]
    (joined,) = await calm.add(None, [call(3, key=KeyRule("a"))])
    assert (joined.id, joined.status) == (calls[0].id, "exists")
    assert await states(calm, calls) == [State.READY] * 2


async def test_a_waiting_session_is_told_once(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    calls = [call(1, told=False), call(2, told=False)]
    await calm.add(None, calls)
    early, late = await leased(calm, worker)
    await calm.turn(worker, Turn(outcomes=[Outcome(early.id, early.fence, Event.SUCCEED)]))

    unknown = await losing(lambda: store.wait(client, [early.id, late.id, call(9).id]))

    assert unknown == [call(9).id]
    assert [end.id for end in await told(calm, client)] == [early.id]
    await calm.turn(worker, Turn(outcomes=[Outcome(late.id, late.fence, Event.SUCCEED)]))
    assert [end.id for end in await told(calm, client)] == [late.id]
    assert await told(calm, client) == []


async def test_a_cancellation_is_asked_once(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    running, waiting = call(1), call(2)
    await calm.turn(client, Turn(adds=[running, waiting]))
    (lease,) = await leased(calm, worker, room=1)
    assert lease.id == running.id

    answers = await losing(lambda: store.cancel([running.id, waiting.id, call(9).id], "enough"))

    assert [(a.state, a.asked) for a in answers] == [
        (State.LEASED, True),
        (State.CANCELLED, False),
        (None, False),
    ]
    assert [end.id for end in await told(calm, client)] == [waiting.id]
    cancels = (await calm.turn(worker, Turn(lanes=(LANE,)))).cancels
    assert [(cancel.id, cancel.fence, cancel.message) for cancel in cancels] == [
        (running.id, lease.fence, "enough")
    ]
    assert (await calm.turn(worker, Turn(lanes=(LANE,)))).cancels == []
    await calm.turn(worker, Turn(outcomes=[Outcome(lease.id, lease.fence, Event.CANCEL)]))
    assert await states(calm, [running, waiting]) == [State.CANCELLED] * 2
    assert [end.id for end in await told(calm, client)] == [running.id]


async def test_a_renewed_session_lives(store: Store, calm: Store, worker: int, losing: Losing) -> None:
    await calm.renew(worker, 0)

    assert await losing(lambda: store.renew(worker, MINUTE))

    assert await calm.reap() == 0
    assert await calm.renew(worker, MINUTE)


async def test_the_lanes_of_a_session_are_served_once(store: Store, calm: Store, losing: Losing) -> None:
    session = await calm.open_session(CLIENT, MINUTE)

    await losing(lambda: store.serve(session, WORKER))

    assert await calm.serving("a") == [(LANE.queue, LANE.fn)]
    await calm.add(None, [call(1)])
    assert len(await leased(calm, session)) == 1


async def test_a_dead_session_is_reaped_once(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    calls = [call(1), call(2)]
    await calm.turn(client, Turn(adds=calls))
    leases = await leased(calm, worker)
    await calm.renew(worker, 0)

    reaped = await losing(store.reap)

    assert reaped == (0 if losing.done else 1)
    for snapshot in await stored(calm, calls):
        assert (snapshot.state, snapshot.crashes, snapshot.attempt, snapshot.fence) == (State.READY, 1, 0, 2)
    late = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leases]
    assert (await calm.turn(worker, Turn(outcomes=late))).settled == [False, False]
    assert not await calm.renew(worker, MINUTE)
    assert await calm.renew(client, MINUTE)


async def test_a_closed_session_leaves_its_calls_unharmed(
    store: Store, calm: Store, client: int, worker: int, losing: Losing
) -> None:
    calls = [call(1), call(2)]
    await calm.turn(client, Turn(adds=calls))
    await leased(calm, worker)

    await losing(lambda: store.close_session(worker))

    for snapshot in await stored(calm, calls):
        assert (snapshot.state, snapshot.crashes, snapshot.attempt, snapshot.fence) == (State.READY, 0, 0, 2)
    assert not await calm.renew(worker, MINUTE)
    assert await calm.serving("a") == []


async def test_a_session_whose_number_was_lost_expires_by_itself(
    store: Store, calm: Store, losing: Losing
) -> None:
    session = await losing(lambda: store.open_session(WORKER, 0))

    assert await calm.renew(session, MINUTE)
    assert await calm.reap() == (1 if losing.done else 0)
    await calm.add(None, [call(1)])
    assert [lease.id for lease in await leased(calm, session)] == [call(1).id]
