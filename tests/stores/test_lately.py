"""Looks for what was submitted lately, on servers: what they find, and what waits for a look at all."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import pytest

from everloop._core.calls import Event, State
from everloop._core.clock import ManualClock
from everloop._core.records import Lane, Leased, NewCall, Outcome, Parent, SessionInfo, Turn, TurnAnswer
from everloop.store.sql.server_store import ServerStore
from everloop.store.sql.verbs.lately import TIMES, Lately
from everloop.testing.conformance import Factory

pytestmark = pytest.mark.server

LANE, OTHER = Lane("a", "default", "work"), Lane("a", "default", "other")
LANES = (LANE, OTHER)
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=LANES)
MINUTE = 60_000_000
#: Seconds that a look at all takes here.
TAKES = 0.01


class Slow(Lately):
    """As it is where each look at all takes long, and any other one no time."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: list[str] = []

    def looked(self, request: Turn, since: int | None, began: int, ended: int, found: int) -> None:
        self.ways.append("all" if since is None else "lately")
        took = 0 if since is not None else round(TAKES * 1e6)
        super().looked(request, since, began, began + took, found)


def call(number: int, lane: Lane = LANE, **rest: Any) -> NewCall:
    return NewCall(id=f"{number:08x}-0000-7000-8000-000000000000", lane=lane, args=b"j", **rest)


class Scene:
    """A worker whose looks at all are slow, and another one beside it."""

    def __init__(self, make: Factory) -> None:
        self.clock = ManualClock()
        self.stores = [cast(ServerStore[Any], make(self.clock))]
        self.lately = self.stores[0]._lately = Slow()
        self.sessions: list[int] = []
        self.leased: dict[str, Leased] = {}
        self.numbers = count(1001)

    async def open(self) -> Scene:
        await self.stores[0].open()
        self.stores.append(self.stores[0].twin())
        await self.stores[1].open()
        self.sessions = [await store.open_session(WORKER, MINUTE) for store in self.stores]
        return self

    async def close(self) -> None:
        for store in self.stores:
            await store.close()

    async def turn(self, who: int = 0, **asked: Any) -> TurnAnswer:
        answer = await self.stores[who].turn(self.sessions[who], Turn(lanes=LANES, **{"room": 10, **asked}))
        self.leased.update({lease.id: lease for lease in answer.leased})
        return answer

    async def found(self, **asked: Any) -> tuple[list[int], list[str]]:
        """Make a turn; return the numbers of the calls that it leases, and the ways in which it looked."""
        self.lately.ways.clear()
        answer = await self.turn(**asked)
        return [int(lease.id[:8], 16) for lease in answer.leased], self.lately.ways

    def end(self, number: int, event: Event = Event.SUCCEED) -> Outcome:
        lease = self.leased[call(number).id]
        return Outcome(lease.id, lease.fence, event, b"j1" if event is Event.SUCCEED else None)

    async def settle_in(self) -> None:
        """Have calls leased for a while, and the last look at all be slow."""
        for _ in range(4):
            number = next(self.numbers)
            self.clock.advance(2)
            await self.turn(adds=[call(number)])
            await self.turn(outcomes=[self.end(number)])
        self.clock.advance(2)
        assert await self.found() == ([], ["all"])


@pytest.fixture(params=["mysql", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def scene(factory: Factory) -> Any:
    scene = Scene(factory)
    await scene.open()
    await scene.settle_in()
    yield scene
    await scene.close()


async def test_what_was_submitted_lately_is_found_in_order(scene: Scene) -> None:
    urgent = call(3, OTHER, priority=5)
    await scene.turn(1, adds=[call(1), call(2, OTHER), urgent], room=0)
    assert await scene.found() == ([3, 1, 2], ["lately"])
    await scene.turn(1, adds=[call(4)], room=0)
    assert await scene.found(outcomes=[scene.end(1), scene.end(2)]) == ([4], ["lately"])
    assert await scene.found(adds=[call(5)]) == ([5], ["lately"])
    assert await scene.found(outcomes=[scene.end(3), scene.end(4), scene.end(5)]) == ([], ["lately"])


async def test_what_came_back_elsewhere_waits_for_the_next_look_at_all(scene: Scene) -> None:
    await scene.turn(1, adds=[call(1)], room=0)
    await scene.turn(1, room=1)
    await scene.settle_in()
    await scene.turn(1, outcomes=[scene.end(1, Event.RELEASE)], room=0)
    scene.lately.ways.clear()
    answer = await scene.turn()
    assert (answer.leased, scene.lately.ways) == ([], ["lately"])
    assert answer.next_due == scene.clock.now() + round((TIMES + 1) * TAKES * 1e6)
    scene.clock.advance((TIMES + 1) * TAKES)
    assert await scene.found() == ([1], ["all"])


async def test_what_a_turn_itself_brings_back_is_found_by_the_next(scene: Scene) -> None:
    assert await scene.found(adds=[call(1)]) == ([1], ["lately"])
    await scene.settle_in()
    scene.clock.advance(2 * TAKES)
    answer = await scene.turn(outcomes=[scene.end(1, Event.RELEASE)])
    assert (answer.leased, answer.next_due) == ([], scene.clock.now())
    assert await scene.found() == ([1], ["all"])

    after = call(3, after=call(1).id)
    await scene.turn(adds=[after], room=0)
    await scene.settle_in()
    scene.clock.advance(1.5 * TAKES)  # half of the time is left to other looks
    answer = await scene.turn(outcomes=[scene.end(1)])
    assert (answer.settled, answer.leased) == ([True], [])
    assert answer.next_due == scene.clock.advance(TAKES / 2)
    assert await scene.found() == ([3], ["all"])


async def test_what_has_expired_is_not_started_and_ends_at_the_next_look_at_all(scene: Scene) -> None:
    await scene.turn(1, adds=[call(1, expires=1), call(2)], room=0)
    scene.clock.advance(TAKES)
    assert await scene.found() == ([2], ["lately"])
    failed = Outcome(call(2).id, 1, Event.FAIL, error=b"j1")
    assert await scene.found(outcomes=[failed]) == ([], ["lately"])
    await scene.settle_in()
    (found,) = await scene.stores[1].get([call(1).id])
    assert found is not None
    assert found.state is State.EXPIRED


async def test_what_expired_before_is_not_started_when_it_comes_back(scene: Scene) -> None:
    await scene.turn(adds=[call(1, delay=10_050_000, expires=10_030_000)], room=0)
    await scene.settle_in()
    scene.clock.advance(0.05)
    numbers, ways = await scene.found()
    assert (numbers, ways[0]) == ([], "lately")
    numbers, ways = await scene.found()
    assert (numbers, set(ways)) == ([], {"all"})
    (found,) = await scene.stores[1].get([call(1).id])
    assert found is not None
    assert found.state is State.EXPIRED


async def test_a_call_whose_time_has_come_is_found_by_the_next_turn(scene: Scene) -> None:
    await scene.turn(adds=[call(1, delay=10_000_000 + 50_000)], room=0)
    await scene.settle_in()
    assert (await scene.turn()).next_due == scene.clock.now() + 50_000
    scene.clock.advance(0.05)
    answer = await scene.turn()
    assert answer.next_due is not None
    assert answer.next_due <= scene.clock.now()
    assert await scene.found() == ([1], ["all"])


@pytest.mark.parametrize("busy", [False, True])
async def test_of_more_than_there_is_room_for_the_first_are_taken(
    scene: Scene, kind: str, busy: bool
) -> None:
    assert await scene.found(adds=[call(9)]) == ([9], ["lately"])
    await scene.turn(1, adds=[call(n) for n in range(1, 5)], room=0)
    await scene.turn(1, adds=[call(5, priority=1)], room=0)
    failed = [Outcome(call(9).id, 1, Event.FAIL, error=b"j1")] if busy else []
    scene.lately.ways.clear()
    answer = await scene.turn(outcomes=failed, room=2)
    straight = kind == "postgresql" and not busy
    assert scene.lately.ways == ["lately"]
    assert [int(lease.id[:8], 16) for lease in answer.leased] == ([5, 1] if straight else [])
    assert answer.next_due == 0  # at once
    left = [2, 3, 4] if straight else [5, 1, 2, 3, 4]
    assert await scene.found(room=2) == (left[:2], ["all"])
    assert await scene.found() == (left[2:], ["all"])


async def test_who_takes_only_children_finds_those(scene: Scene) -> None:
    await scene.found(adds=[call(1)])
    parent = Parent(call(1).id, 1)
    assert await scene.found(roots=False) == ([], ["all"])
    child = call(3, parent=parent, child_key="c", owned=True)
    await scene.turn(adds=[call(2), child], roots=False, room=0)
    assert await scene.found(roots=False) == ([3], ["lately"])
    assert await scene.found() == ([2], ["all"])


async def test_what_others_hold_is_passed_over(scene: Scene) -> None:
    await scene.turn(1, adds=[call(1), call(2)], room=0)
    assert len((await scene.turn(1, room=1)).leased) == 1
    assert await scene.found() == ([2], ["lately"])
