"""Turns of a single call on MySQL: sent with their commit, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from everloop import StoreError, StoreUnavailable
from everloop._core.calls import Event, State
from everloop._core.records import CallFilter, Lane, Leased, NewCall, Outcome, Turn, TurnAnswer
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.runners.mysql_connection import MysqlConnection
from everloop.store.sql.runners.server import Collision
from everloop.store.sql.verbs.alone import Alone
from everloop.store.sql.verbs.numbers import BLOCK, FRESH
from everloop.store.sql.verbs.straight import FEW
from tests.helpers.mysql import CLIENT, LANE, MINUTE, WORKER, call, transaction
from tests.helpers.waiting import until
from tests.stores.test_mysql_bells import Listening

pytestmark = pytest.mark.server

OTHER = Lane("a", "other", "work")


class Scene:
    """A client and a worker that a bell has always just woken when none of its bodies has ended."""

    def __init__(self, store: MysqlStore, client: int, worker: int) -> None:
        self.store, self.client, self.worker = store, client, worker
        self.trips = 0

    async def add(self, *calls: NewCall) -> None:
        await self.store.turn(self.client, Turn(adds=list(calls)))

    async def turn(self, *outcomes: Outcome, lanes: tuple[Lane, ...] = (LANE,), room: int = 10) -> TurnAnswer:
        if not outcomes:
            self.store._alone.rung.add(self.worker)
        before = self.store._runner().trips
        answer = await self.store.turn(
            self.worker, Turn(outcomes=list(outcomes), lanes=lanes, room=room, suspects=True)
        )
        self.trips = self.store._runner().trips - before
        return answer

    async def lease(self) -> Leased:
        (lease,) = (await self.turn()).leased
        assert self.trips == 1
        return lease

    async def told(self) -> list[tuple[str, bytes | None]]:
        return [(end.id, end.value) for end in (await self.store.turn(self.client, Turn())).ended]

    async def state(self, number: int) -> State:
        (found,) = await self.store.get([call(number).id])
        assert found is not None
        return found.state


async def prepared(mysql_store: MysqlStore) -> Scene:
    """Return a scene whose lanes have their numbers."""
    client = await mysql_store.open_session(CLIENT, MINUTE)
    worker = await mysql_store.open_session(WORKER, MINUTE)
    scene = Scene(mysql_store, client, worker)
    await scene.add(call(1_000, OTHER))  # numbers the lanes
    await scene.turn(lanes=(LANE, OTHER))
    return scene


@pytest.fixture
async def scene(mysql_store: MysqlStore) -> Scene:
    return await prepared(mysql_store)


def collides(scene: Scene, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Let each of these meet another transaction, once; return those that have."""
    met: list[str] = []

    def fault(name: str, _: int) -> None:
        if name in names and name not in met:
            met.append(name)
            raise Collision("it was chosen")

    monkeypatch.setattr(scene.store._runner(), "_fault", fault)
    return met


def loses_answers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody hear of what is committed."""

    def fault(name: str, _: int) -> None:
        if name == "COMMITTED":
            raise StoreUnavailable("nobody knows")

    monkeypatch.setattr(scene.store._runner(), "_fault", fault)


def success(lease: Leased, value: bytes = b"j1") -> Outcome:
    return Outcome(lease.id, lease.fence, Event.SUCCEED, value)


async def test_a_call_by_itself_takes_one_trip_there_and_one_back(
    scene: Scene, side: MysqlConnection
) -> None:
    listening = Listening(scene.store, scene.client)
    await listening.asleep(side)
    for number in (1, 2):
        await scene.add(call(number, args=b"j[7]", priority=3, delay=0))
        answer = await scene.turn()
        (lease,) = answer.leased
        assert scene.trips == 1
        assert (lease.id, lease.fence, lease.lane, lease.args) == (call(number).id, 1, LANE, b"j[7]")
        assert (lease.attempt, lease.crashes, lease.depth, lease.priority) == (0, 0, 0, 3)
        assert answer.next_due is not None  # nothing else was looked at yet: soon
        assert answer.next_due <= scene.store.now()

        answer = await scene.turn(success(lease, b"jvalue"))
        assert (answer.settled, answer.leased, answer.more, answer.next_due) == ([True], [], False, None)
        if number == 2:  # the first time, nobody knew whether the client listens
            assert scene.trips == 1
        await listening.heard()
        assert await scene.told() == [(lease.id, b"jvalue")]
        await listening.asleep(side)
    (found,) = await scene.store.get([call(1).id])
    assert found is not None
    assert (found.state, found.value, found.attempt) == (State.SUCCEEDED, b"jvalue", 1)
    assert found.session == scene.worker
    listening.stop()


async def test_what_was_not_looked_at_is_seen_behind_the_end(scene: Scene) -> None:
    await scene.add(call(1), call(2), call(3, delay=MINUTE))
    lease = await scene.lease()
    answer = await scene.turn(success(lease))
    assert answer.settled == [True]
    assert answer.more  # there is another one
    assert answer.next_due is not None
    assert answer.next_due > scene.store.now()
    assert [each.id for each in (await scene.turn()).leased] == [call(2).id]


async def test_where_several_lanes_have_calls_the_first_of_all_go_first(scene: Scene) -> None:
    await scene.add(call(1, OTHER), call(2, LANE, priority=1), call(3, OTHER, priority=2), call(4, LANE))
    taken = [
        each.id for room in (1, 1, 2) for each in (await scene.turn(lanes=(LANE, OTHER), room=room)).leased
    ]
    assert taken == [call(number).id for number in (3, 2, 1, 4)]


async def test_the_call_of_one_lane_among_several_is_taken_alone(scene: Scene) -> None:
    for lane, numbers in ((OTHER, (2, 1)), (LANE, (4, 3))):
        await scene.add(*(call(number, lane, priority=number) for number in numbers))
        for number in numbers:
            leased = (await scene.turn(lanes=(LANE, OTHER))).leased
            assert ([each.id for each in leased], scene.trips) == ([call(number).id], 1)


async def test_where_nothing_is_ready_the_turn_goes_the_ordinary_way(scene: Scene) -> None:
    await scene.add(call(1, delay=MINUTE))
    answer = await scene.turn()
    assert (answer.leased, scene.trips > 1) == ([], True)
    scene.store._alone._again_at = 0  # the looks after that are over
    due = (await scene.store.turn(scene.worker, Turn(lanes=(LANE,), room=10))).next_due
    assert due is not None
    assert due > scene.store.now() + MINUTE // 2


async def test_a_bell_that_rang_for_nothing_is_followed_by_another_look(scene: Scene) -> None:
    # What it rang for may not have been committed yet; `unit/test_alone.py` tells when.
    assert (await scene.store.turn(scene.worker, Turn(lanes=(LANE,), room=10))).next_due is None
    assert (await scene.turn()).next_due is not None


async def test_a_call_that_was_leased_alone_is_not_looked_for_again(scene: Scene) -> None:
    await scene.add(call(1))
    lease = await scene.lease()
    assert (await scene.turn(success(lease), room=10)).next_due is None


async def test_calls_that_come_one_by_one_share_a_block_of_numbers(
    scene: Scene, side: MysqlConnection
) -> None:
    async def add(*numbers: int) -> list[int]:
        await scene.add(*(call(number) for number in numbers))
        wanted = ", ".join(f"'{call(number).id}'" for number in numbers)
        rows = side.run(f"SELECT seq FROM ever_calls WHERE id IN ({wanted}) ORDER BY seq", "looking")[0]
        return [seq for (seq,) in rows]

    spare = scene.store._spare
    spare.keep(0, BLOCK, 0)  # of earlier calls
    (first,) = await add(1)
    assert first % BLOCK == 0
    assert [*await add(2), *await add(3, 4), *await add(5)] == [first + n for n in (1, 2, 3, 4)]
    spare._taken -= FRESH
    (later,) = await add(6)
    assert later > first
    assert later % BLOCK == 0
    many = await add(*range(7, 7 + FEW + 1))
    assert many[0] % BLOCK == 0  # so many have a block of their own
    assert await add(50) == [many[-1] + 1]
    await scene.store.add(scene.client, [call(60)])  # apart from the turns
    (newest,) = await add(70)
    assert newest > many[0] + BLOCK
    found = [each.id for each in await scene.store.find(CallFilter(app="a", limit=4))]
    assert found == [call(number).id for number in (70, 60, 50, 7 + FEW)]


async def test_numbers_are_not_given_again_after_a_transaction_that_failed(
    scene: Scene, side: MysqlConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.add(call(1))
    failing = {"COMMIT"}

    def fault(name: str, _: int) -> None:
        if name in failing:
            failing.clear()
            raise StoreUnavailable("it was chosen")

    monkeypatch.setattr(scene.store._runner(), "_fault", fault)
    with pytest.raises(StoreUnavailable, match="it was chosen"):
        await scene.add(call(2))
    await scene.add(call(3))
    found = side.run("SELECT id, seq FROM ever_calls ORDER BY seq DESC LIMIT 2", "looking")[0]
    (last, newest), (before, older) = found
    assert (last, before, newest - older) == (call(3).id, call(1).id, 2)


async def test_a_call_that_has_expired_is_ended_and_not_taken(scene: Scene) -> None:
    await scene.store.add(None, [call(1, expires=0)])
    answer = await scene.turn()
    assert answer.leased == []
    assert await scene.state(1) is State.EXPIRED


async def test_a_session_that_was_reaped_takes_nothing(scene: Scene) -> None:
    await scene.store.renew(scene.worker, 0)
    await scene.store.reap()
    await scene.add(call(1))
    assert (await scene.turn()).leased == []
    assert await scene.state(1) is State.READY


async def test_a_call_that_somebody_holds_is_passed_over(scene: Scene, side: MysqlConnection) -> None:
    await scene.add(call(1), call(2))
    with transaction(side, f"SELECT 1 FROM ever_calls WHERE id = '{call(1).id}' FOR UPDATE"):
        lease = await scene.lease()
        assert lease.id == call(2).id
    with transaction(side, f"SELECT 1 FROM ever_calls WHERE id = '{call(2).id}' FOR UPDATE"):
        assert (await scene.turn(success(lease))).settled == [None]
    assert await scene.state(2) is State.LEASED
    assert (await scene.turn(success(lease))).settled == [True]


@pytest.mark.parametrize("lane", [1, 2])
async def test_a_call_that_is_not_committed_yet_holds_up_no_other(
    scene: Scene, side: MysqlConnection, lane: int
) -> None:
    await scene.add(call(1), call(2))
    row = f"(-7, '{call(3).id}', {lane}, 'ready', 1, -7, 1)"
    with transaction(side, f"INSERT INTO ever_calls (seq, id, lane, state, place, root, due) VALUES {row}"):
        async with asyncio.timeout(4):  # a lock is waited for for five
            for number in (1, 2):
                leased = (await scene.turn(lanes=(LANE, OTHER))).leased
                assert ([each.id for each in leased], scene.trips) == ([call(number).id], 1)


async def test_the_end_of_a_lease_that_was_lost_changes_nothing(scene: Scene) -> None:
    await scene.add(call(1))
    lease = await scene.lease()
    await scene.store.renew(scene.worker, 0)
    await scene.store.reap()
    assert (await scene.turn(success(lease))).settled == [False]
    assert await scene.state(1) is State.READY
    assert await scene.told() == []


async def test_an_end_that_is_said_twice_counts_once(scene: Scene) -> None:
    await scene.add(call(1))
    lease = await scene.lease()
    assert (await scene.turn(success(lease))).settled == [True]
    assert (await scene.turn(success(lease, b"jother"))).settled == [False]
    assert await scene.told() == [(lease.id, b"j1")]


async def test_who_joined_a_call_after_it_was_leased_is_told_too(scene: Scene) -> None:
    other = await scene.store.open_session(CLIENT, MINUTE)
    await scene.add(call(1))
    lease = await scene.lease()
    assert await scene.store.wait(other, [lease.id]) == []
    assert (await scene.turn(success(lease))).settled == [True]
    assert await scene.told() == [(lease.id, b"j1")]
    assert [end.id for end in (await scene.store.turn(other, Turn())).ended] == [lease.id]


async def test_what_comes_after_a_call_is_woken_by_its_end(scene: Scene) -> None:
    await scene.add(call(1))
    lease = await scene.lease()
    await scene.store.add(None, [call(2, after=lease.id)])
    assert await scene.state(2) is State.WAITING
    assert (await scene.turn(success(lease))).settled == [True]
    assert await scene.state(2) is not State.WAITING


async def test_a_session_that_runs_its_own_calls_hears_in_the_answer(scene: Scene) -> None:
    await scene.store.turn(scene.worker, Turn(adds=[call(1)]))
    lease = await scene.lease()
    answer = await scene.turn(success(lease))
    assert [(end.id, end.state, end.value, end.attempt) for end in answer.ended] == [
        (lease.id, State.SUCCEEDED, b"j1", 1)
    ]
    assert (await scene.store.turn(scene.worker, Turn())).ended == []


async def test_the_end_of_a_call_of_nobody_is_told_to_nobody(scene: Scene) -> None:
    await scene.store.add(None, [call(1)])
    answer = await scene.turn(success(await scene.lease()))
    assert (answer.settled, answer.ended, scene.trips) == ([True], [], 1)


@pytest.mark.parametrize("event", [Event.FAIL, Event.RETRY, Event.RELEASE])
async def test_any_other_end_goes_the_ordinary_way(scene: Scene, event: Event) -> None:
    await scene.add(call(1))
    lease = await scene.lease()
    outcome = Outcome(lease.id, lease.fence, event, error=None if event is Event.RELEASE else b"jerror")
    assert (await scene.turn(outcome)).settled == [True]
    assert await scene.state(1) is not State.SUCCEEDED


async def test_the_end_of_a_second_run_goes_the_ordinary_way(scene: Scene) -> None:
    await scene.add(call(1))
    first = await scene.lease()
    await scene.turn(Outcome(first.id, first.fence, Event.RELEASE), lanes=())
    second = await scene.lease()
    assert (second.id, second.fence > first.fence) == (first.id, True)
    assert (await scene.turn(success(second))).settled == [True]
    assert scene.trips > 1
    assert await scene.told() == [(second.id, b"j1")]


async def test_what_met_another_transaction_goes_the_ordinary_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.add(call(1), call(2))
    met = collides(scene, monkeypatch, "lease_alone", "settle_alone")
    leased = (await scene.turn()).leased
    assert [lease.id for lease in leased] == [call(1).id, call(2).id]
    assert met == ["lease_alone"]
    await scene.add(call(3))
    lease = await scene.lease()
    assert (await scene.turn(success(lease))).settled == [True]
    assert met == ["lease_alone", "settle_alone"]
    assert await scene.state(3) is State.SUCCEEDED


@pytest.mark.parametrize("at", ["COMMIT", "settle_alone"])
async def test_an_end_whose_transaction_met_another_one_is_said_the_ordinary_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await scene.add(call(1))
    lease = await scene.lease()
    await scene.add(call(2))
    met = collides(scene, monkeypatch, at)
    answer = await scene.turn(success(lease))
    assert (answer.settled, met) == ([True], [at])
    assert [each.id for each in answer.leased] == [call(2).id]
    assert await scene.told() == [(lease.id, b"j1")]


async def test_a_collision_behind_a_turn_that_did_nothing_begins_it_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = collides(scene, monkeypatch, "look")
    assert (await scene.turn()).leased == []
    assert met == ["look"]


async def test_an_answer_that_is_lost_leaves_the_call_to_whoever_asks_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.add(call(1))
    with monkeypatch.context() as patched:
        loses_answers(scene, patched)
        with pytest.raises(StoreUnavailable):
            await scene.turn()
    assert await scene.state(1) is State.LEASED
    again = await scene.store.turn(scene.worker, Turn(lanes=(LANE,), room=10, holding=()))
    assert [(lease.id, lease.fence) for lease in again.leased] == [(call(1).id, 3)]


async def test_a_listener_that_is_gone_keeps_nobody_from_the_answer(
    scene: Scene, side: MysqlConnection
) -> None:
    listening = Listening(scene.store, scene.client)
    await listening.asleep(side)
    await scene.add(call(1))
    assert (await scene.turn(success(await scene.lease()))).settled == [True]
    await listening.heard()
    number = await listening.asleep(side)
    listening.stop()
    with suppress(StoreError):  # it has ended by itself; MySQL would notice that after its sleep
        side.run(f"KILL CONNECTION {number}", "ending it")
    used = f"SELECT IS_USED_LOCK({side.bell(scene.client)})"
    await until(lambda: side.run(used, "looking")[0] == [(None,)])
    await scene.add(call(2))
    answer = await scene.turn(success(await scene.lease()))
    assert (answer.settled, scene.trips) == ([True], 3)  # the bell failed: a look, and what stood behind it
    assert await scene.told() == [(call(2).id, b"j1")]


# -- what is remembered -------------------------------------------------------------------------------------


def test_a_worker_is_idle_when_it_has_as_much_room_as_ever_and_a_bell_has_rung() -> None:
    alone = Alone()

    def comes(room: int, **more: object) -> bool:
        alone.rung.add(1)
        return alone.comes_idle(1, Turn(lanes=(LANE,), room=room, **more))  # type: ignore[arg-type]

    assert comes(5)
    assert not comes(4)
    assert comes(5)
    assert not alone.comes_idle(1, Turn(lanes=(LANE,), room=5))  # it has had its turn
    assert not comes(5, roots=False)
    assert not comes(5, adds=[call(1)])
    assert not comes(5, outcomes=[Outcome("x", 1, Event.SUCCEED)])
    assert not comes(5, holding=())
    assert comes(6)
    assert not comes(0)


def test_of_what_is_remembered_there_is_a_bound() -> None:
    alone = Alone()
    for number in range(1_000):
        alone.remember(str(number), number, None)
    assert len(alone._leases) == 1_000
    alone.remember("x", 1, 2)
    assert len(alone._leases) == 1
    asked = Turn(outcomes=[Outcome("x", 1, Event.SUCCEED)])
    assert alone.ends(asked) == [(1, 2)]
    assert alone.ends(asked) == []
