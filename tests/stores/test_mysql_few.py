"""Turns of a few calls on MySQL: taken together, and ended together or not at all."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from everloop import StoreUnavailable
from everloop._core.calls import State
from everloop._core.clock import Clock
from everloop._core.records import Leased, NewCall, Turn, TurnAnswer
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.runners.mysql_connection import MysqlConnection
from everloop.store.sql.verbs import alone
from everloop.store.sql.verbs.alone import AGAIN, SEVERAL, Alone
from everloop.testing.conformance import CASES, Case, walk
from tests.helpers.lately import Always
from tests.helpers.mysql import CLIENT, LANE, MINUTE, call, transaction
from tests.helpers.servers.emptying import emptied
from tests.stores.test_mysql_alone import OTHER, Scene, collides, loses_answers, prepared, success

pytestmark = pytest.mark.server

LANES = LANE, OTHER


@pytest.fixture
async def scene(mysql_store: MysqlStore) -> Scene:
    """A worker that a bell has always just woken, and that has met several calls at once before."""
    scene = await prepared(mysql_store)
    scene.store._alone.took(2)
    scene.store._runner()._bells._quiet.add(
        scene.client
    )  # it does not listen: it is looked for, in the same trip
    return scene


async def lease(scene: Scene, *numbers: int, room: int = 10) -> list[Leased]:
    """Lease just these calls, in one trip."""
    leased = (await scene.turn(lanes=LANES, room=room)).leased
    assert ([each.id for each in leased], scene.trips) == ([call(number).id for number in numbers], 1)
    return leased


async def end(scene: Scene, leased: list[Leased]) -> TurnAnswer:
    return await scene.turn(*(success(each, each.id.encode()) for each in leased))


def told(*numbers: int) -> list[tuple[str, bytes | None]]:
    return [(call(number).id, call(number).id.encode()) for number in numbers]


async def test_a_few_calls_take_one_trip_there_and_one_back(scene: Scene) -> None:
    await scene.add(*(call(number, args=b"j[7]", priority=3) for number in (1, 2, 3)))
    leased = await lease(scene, 1, 2, 3)
    (each, *_) = leased
    assert (each.fence, each.lane, each.args, each.attempt, each.crashes) == (1, LANE, b"j[7]", 0, 0)
    assert (each.depth, each.priority) == (0, 3)

    answer = await end(scene, leased[::-1])
    assert (answer.settled, answer.leased, answer.more, scene.trips) == ([True] * 3, [], False, 1)
    assert await scene.told() == told(1, 2, 3)
    for found in await scene.store.get([call(number).id for number in (1, 2, 3)]):
        assert found is not None
        assert (found.state, found.value, found.attempt) == (State.SUCCEEDED, found.id.encode(), 1)
        assert found.session == scene.worker


async def test_the_first_of_all_lanes_go_first_as_far_as_there_is_room(scene: Scene) -> None:
    await scene.add(call(1, OTHER), call(2, LANE, priority=1), call(3, OTHER, priority=2), call(4, LANE))
    scene.store._alone._room.clear()
    await lease(scene, 3, 2, 1, room=3)
    await lease(scene, 4, room=3)


async def test_no_more_are_taken_than_can_be_ended_at_once(scene: Scene) -> None:
    await scene.add(*(call(number) for number in range(SEVERAL + 1)))
    leased = await lease(scene, *range(SEVERAL), room=SEVERAL + 10)
    answer = await end(scene, leased)
    assert (answer.settled, answer.more, scene.trips) == ([True] * SEVERAL, True, 1)
    assert scene.store._alone.most == SEVERAL


async def test_several_are_taken_where_several_came_the_last_time(scene: Scene) -> None:
    await scene.add(call(1))
    await end(scene, await lease(scene, 1))
    await scene.add(call(2), call(3))
    leased = await lease(scene, 2)  # the last time there was one
    assert (await end(scene, leased)).more
    await end(scene, await lease(scene, 3))
    await scene.add(call(4), call(5))
    await lease(scene, 4)
    assert scene.store._alone.most == 1


async def test_ends_come_as_the_bodies_end(scene: Scene) -> None:
    await scene.add(*(call(number) for number in (1, 2, 3)))
    first, *others = await lease(scene, 1, 2, 3)
    for some in [first], others:
        assert (await end(scene, some)).settled == [True] * len(some)
        assert scene.trips == 1
    assert await scene.told() == told(1, 2, 3)


async def test_where_nothing_is_ready_the_turn_goes_the_ordinary_way(scene: Scene) -> None:
    assert ((await scene.turn(lanes=LANES)).leased, scene.trips > 1) == ([], True)


async def test_what_has_expired_is_not_taken(scene: Scene) -> None:
    await scene.store.add(None, [call(1), call(2, expires=0), call(3)])
    leased = await lease(scene, 1, 3)
    await end(scene, leased)
    await scene.turn()
    assert [await scene.state(number) for number in (1, 2, 3)] == [
        State.SUCCEEDED,
        State.EXPIRED,
        State.SUCCEEDED,
    ]


async def test_a_session_that_was_reaped_takes_nothing(scene: Scene) -> None:
    await scene.store.renew(scene.worker, 0)
    await scene.store.reap()
    await scene.add(call(1), call(2))
    assert (await scene.turn()).leased == []
    assert await scene.state(1) is State.READY


async def test_what_somebody_holds_is_passed_over_and_ends_later(scene: Scene, side: MysqlConnection) -> None:
    await scene.add(call(1), call(2), call(3))
    with transaction(side, f"SELECT 1 FROM ever_calls WHERE id = '{call(1).id}' FOR UPDATE"):
        leased = await lease(scene, 2, 3)
    with transaction(side, f"SELECT 1 FROM ever_calls WHERE id = '{call(2).id}' FOR UPDATE"):
        assert (await end(scene, leased)).settled == [None, True]
    assert (await end(scene, leased[:1])).settled == [True]
    assert await scene.told() == told(3, 2)[::-1]


@pytest.mark.parametrize("lanes", [(LANE,), LANES])
async def test_a_call_that_is_not_committed_yet_holds_up_no_other(
    scene: Scene, side: MysqlConnection, lanes: tuple[object, ...]
) -> None:
    await scene.add(call(1), call(2))
    row = f"(-7, '{call(3).id}', {len(lanes)}, 'ready', 1, -7, 1)"
    with transaction(side, f"INSERT INTO ever_calls (seq, id, lane, state, place, root, due) VALUES {row}"):
        await lease(scene, 1, 2)


async def test_of_leases_of_which_one_was_lost_the_others_end(scene: Scene) -> None:
    await scene.add(call(1), call(2))
    leased = await lease(scene, 1, 2)
    await scene.store.turn(scene.worker, Turn(lanes=LANES, holding=(call(2).id,)))
    assert (await end(scene, leased)).settled == [False, True]
    assert await scene.state(1) is not State.SUCCEEDED
    assert await scene.told() == told(2)


async def test_where_something_hangs_on_one_all_end_the_ordinary_way(scene: Scene) -> None:
    other = await scene.store.open_session(CLIENT, MINUTE)
    await scene.add(call(1), call(2))
    leased = await lease(scene, 1, 2)
    await scene.store.add(None, [call(3, after=call(1).id)])
    assert await scene.store.wait(other, [call(2).id]) == []
    assert (await end(scene, leased)).settled == [True, True]
    assert await scene.state(3) is not State.WAITING
    assert await scene.told() == told(1, 2)
    assert [end.id for end in (await scene.store.turn(other, Turn())).ended] == [call(2).id]


async def test_who_waits_for_some_is_told_of_those(scene: Scene) -> None:
    other = await scene.store.open_session(CLIENT, MINUTE)
    await scene.add(call(1))
    await scene.store.turn(other, Turn(adds=[call(2)]))
    await scene.store.add(None, [call(3), call(4)])  # nobody does
    leased = await lease(scene, 1, 2, 3, 4)
    assert (await end(scene, leased[:2])).settled == [True, True]
    assert (await end(scene, leased[2:])).settled == [True, True]
    assert scene.trips == 1
    assert await scene.told() == told(1)
    assert [end.id for end in (await scene.store.turn(other, Turn())).ended] == [call(2).id]


async def test_a_session_that_runs_its_own_calls_hears_in_the_answer(scene: Scene) -> None:
    await scene.store.turn(scene.worker, Turn(adds=[call(1), call(2)]))
    answer = await end(scene, await lease(scene, 1, 2))
    assert [(ended.id, ended.state, ended.value, ended.attempt) for ended in answer.ended] == [
        (call(number).id, State.SUCCEEDED, call(number).id.encode(), 1) for number in (1, 2)
    ]
    assert (await scene.store.turn(scene.worker, Turn())).ended == []


async def test_ends_that_are_said_twice_count_once(scene: Scene) -> None:
    await scene.add(call(1), call(2))
    leased = await lease(scene, 1, 2)
    assert (await end(scene, leased)).settled == [True, True]
    assert (await end(scene, leased)).settled == [False, False]
    assert await scene.told() == told(1, 2)


@pytest.mark.parametrize("at", ["lease_few", "settle_few", "COMMIT"])
async def test_what_met_another_transaction_goes_the_ordinary_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await scene.add(call(1), call(2))
    if at != "lease_few":
        leased = await lease(scene, 1, 2)
    met = collides(scene, monkeypatch, at)
    if at == "lease_few":
        leased = (await scene.turn()).leased
    assert (await end(scene, leased)).settled == [True, True]
    assert met == [at]
    assert await scene.told() == told(1, 2)


@pytest.mark.parametrize("ends", [False, True])
async def test_an_answer_that_is_lost_has_happened_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    await scene.add(call(1), call(2))
    leased = await lease(scene, 1, 2) if ends else []
    with monkeypatch.context() as patched:
        loses_answers(scene, patched)
        with pytest.raises(StoreUnavailable):
            await (end(scene, leased) if ends else scene.turn())
    if ends:
        assert (await end(scene, leased)).settled == [False, False]
        assert await scene.told() == told(1, 2)
        return
    again = await scene.store.turn(scene.worker, Turn(lanes=(LANE,), room=10, holding=()))
    assert [(each.id, each.fence) for each in again.leased] == [(call(number).id, 3) for number in (1, 2)]


async def test_beside_an_open_transaction_a_few_take_one_trip_there_and_one_back(scene: Scene) -> None:
    scene.store._lately = Always()
    await scene.add(call(1), call(2, OTHER, priority=1), call(3))
    leased = await lease(scene, 2, 1, 3)
    before = scene.store.now()
    answer = await end(scene, leased)
    assert (answer.settled, answer.leased, answer.more, scene.trips) == ([True] * 3, [], False, 1)
    assert answer.next_due is not None
    assert before < answer.next_due <= scene.store.now() + AGAIN  # it was not looked for what is ready
    assert await scene.told() == told(1, 2, 3)
    await scene.add(call(4))
    await end(scene, await lease(scene, 4))
    assert await scene.told() == told(4)


async def test_of_more_than_there_is_room_for_none_are_taken_lately(scene: Scene) -> None:
    scene.store._alone._room.clear()
    scene.store._lately = Always()
    await scene.add(call(1), call(2), call(3, priority=1))
    answer = await scene.turn(lanes=LANES, room=2)
    assert (answer.leased, scene.trips > 1) == ([], True)  # all are looked at by the next
    scene.store._alone._room.clear()
    await lease(scene, 3, 1, 2, room=3)


async def test_what_cannot_be_taken_is_not_taken_lately(scene: Scene, side: MysqlConnection) -> None:
    scene.store._lately = Always()
    await scene.store.add(None, [call(1), call(2, expires=0), call(3), call(4)])
    with transaction(side, f"SELECT 1 FROM ever_calls WHERE id = '{call(1).id}' FOR UPDATE"):
        await lease(scene, 3, 4)
    await scene.store.renew(scene.worker, 0)
    await scene.store.reap()
    assert (await scene.turn(lanes=LANES)).leased == []
    assert await scene.state(1) is State.READY


async def test_where_looks_at_all_are_to_be_avoided_one_goes_the_ordinary_way_and_sees_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "LONG", 0)
    for number, trips in ((1, 1), (2, 2), (3, 1)):  # not each of them, for a disk may be slow, too
        await scene.add(call(number))
        (leased,) = (await scene.turn()).leased
        assert scene.trips == trips
        assert (await scene.turn(success(leased))).settled == [True]

    class Over(Always):
        """As when the time has come for a look at all."""

        def since(self, now: int, request: Turn) -> int | None:
            return None

    scene.store._lately = Over()
    await scene.add(call(4))
    assert ([each.id for each in (await scene.turn()).leased], scene.trips) == ([call(4).id], 2)

    scene.store._lately = Always()
    await scene.add(call(5), call(6))
    leased = (await scene.turn()).leased
    scene.store._lately = Over()
    answer = await end(scene, leased)
    assert (answer.settled, answer.more, scene.trips) == ([True, True], True, 1)  # a look at all follows


async def test_a_callback_makes_the_end_of_all_ordinary(scene: Scene) -> None:
    await scene.add(call(1, callbacks=(call(2),)), call(3))
    leased = await lease(scene, 1, 3)
    answer = await end(scene, leased)
    assert answer.settled == [True, True]
    assert [each.id for each in answer.leased] == [call(2).id]


async def test_rows_of_any_size_come_back(scene: Scene) -> None:
    large: list[NewCall] = [call(number, args=b"j" + b'"\\x' * 300_000) for number in (1, 2)]
    await scene.add(*large)
    leased = await lease(scene, 1, 2)
    assert [each.args for each in leased] == [each.args for each in large]
    values = [b"j" + b"x" * 300_000, b"\x00\xff"]
    answer = await scene.turn(*(success(each, value) for each, value in zip(leased, values, strict=True)))
    assert answer.settled == [True, True]
    assert [value for _, value in await scene.told()] == values


class Heedless(Alone):
    """Looks no second time for what a bell may have rung for too early."""

    def after(self, session: int | None, now: int, request: Turn, answer: TurnAnswer) -> TurnAnswer:
        return answer


class RungStore(MysqlStore):
    """A store in which a bell has rung before each turn, of a session that runs nothing.

    What such a turn leaves for the next one is done at once, for both are compared with one of the others. No
    bell rings while there is something that it would do before it leases.

    Attributes:
        taken: How many turns took, or ended, some calls and did nothing else.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock=clock)
        self._alone = Heedless()
        self.taken = 0

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        alone = self._alone
        now = self.now()
        first = f"SELECT 1 FROM ever_calls WHERE line = 0 OR due_at <= {now} OR expires_at <= {now} LIMIT 1"
        if await self._runner().call(lambda connection: connection.run(first, "looking")[0]):
            alone._leases.clear()
            return await super().turn(session, turn)
        alone.rung.add(session)
        alone._room.clear()
        alone.took(2)
        before = set(alone._leases)
        answer = await super().turn(session, turn)
        took = bool(answer.leased) and answer.next_due is not None and answer.next_due <= self.now()
        ended = {each.id for each in turn.outcomes} & before and all(answer.settled)
        if not turn.lanes or not (took or ended):
            return answer
        self.taken += 1
        left = replace(turn, adds=[], outcomes=[], progress=[], room=turn.room - len(answer.leased))
        rest = await super().turn(session, left)
        return replace(
            rest,
            settled=answer.settled,
            added=answer.added,
            leased=answer.leased + rest.leased,
            ended=answer.ended + rest.ended,
            cancels=answer.cancels + rest.cancels,
        )


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.group in ("leasing", "settling", "telling")],
    ids=lambda case: f"{case.group}: {case.name}",
)
async def test_who_is_always_rung_conforms(case: Case, mariadb_kept: str) -> None:
    await case.check(lambda clock: RungStore(emptied(mariadb_kept), clock))


@pytest.mark.parametrize("seed", [0, 3, 8])
async def test_a_random_walk_of_who_is_always_rung(seed: int, mariadb_kept: str) -> None:
    taken: list[int] = []

    class Counted(RungStore):
        async def close(self) -> None:
            taken.append(self.taken)
            await super().close()

    await walk(lambda clock: Counted(emptied(mariadb_kept), clock), seed, steps=200)
    assert sum(taken) > 0
