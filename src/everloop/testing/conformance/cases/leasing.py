"""Leasing: who gets what, in which order, and when."""

from __future__ import annotations

import asyncio

from everloop._core.calls import Event, State
from everloop._core.records import Lane, Leased, Outcome, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import APP, MINUTE, SECOND, Scene


async def _order(scene: Scene, session: int, *fns: str) -> list[str]:
    return [scene.label(lease.id) for lease in await scene.lease(session, *fns)]


@case
async def a_lease_holds_everything_that_a_run_needs(scene: Scene) -> None:
    session = await scene.session()
    created = scene.clock.now()
    await scene.put("work", args=b"jargs", policy=b"{}", priority=2, delay=SECOND)
    scene.clock.advance(3)
    lease = await scene.take(session, "work")
    same(
        lease,
        Leased(
            id=scene.id("work"),
            fence=1,
            lane=Lane(APP, "default", "work"),
            args=b"jargs",
            policy=b"{}",
            attempt=0,
            crashes=0,
            depth=0,
            priority=2,
            after=None,
            due=created + SECOND,
            created=created,
        ),
    )
    seen = await scene.see("work")
    same((seen.state, seen.session, seen.fence), (State.LEASED, session, 1))
    same((seen.started, seen.ended), (scene.clock.now(), None))


@case
async def a_later_lease_says_what_came_before(scene: Scene) -> None:
    session, dying = await scene.session(), await scene.session()
    await scene.settle(session, await scene.start(session, "work"), Event.RETRY)
    await scene.settle(session, await scene.take(session, "work"), Event.RELEASE)
    await scene.take(dying, "work")
    await scene.crash(dying)
    lease = await scene.take(session, "work")
    same((lease.fence, lease.attempt, lease.crashes, lease.rerun), (7, 1, 1, True))
    same((await scene.see("work")).started, scene.clock.now())


@case
async def calls_are_leased_in_the_order_of_submission(scene: Scene) -> None:
    session = await scene.session()
    for label in ("c", "a", "b"):
        await scene.put(label, "work")
    same(await _order(scene, session, "work"), ["c", "a", "b"])


@case
async def a_higher_priority_goes_first(scene: Scene) -> None:
    session = await scene.session()
    for priority in (0, -1, 2, 1):
        await scene.put(f"{priority}", "work", priority=priority)
    same(await _order(scene, session, "work"), ["2", "1", "0", "-1"])


@case
async def an_earlier_due_time_goes_before_an_earlier_submission(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("due second", "work", delay=2 * SECOND)
    await scene.put("due first", "work", delay=SECOND)
    scene.clock.advance(3)
    await scene.put("due last", "work")
    await scene.put("due long ago", "work", due=scene.clock.now() - MINUTE)
    same(await _order(scene, session, "work"), ["due long ago", "due first", "due second", "due last"])


@case
async def several_lanes_are_merged_into_one_order(scene: Scene) -> None:
    session = await scene.session()
    for label, fn in {"1": "work", "2": "play", "3": "work", "4": "play", "5": "rest"}.items():
        await scene.put(label, fn)
    lanes = tuple(Lane(APP, "default", fn) for fn in ("play", "work"))
    answer = await scene.store.turn(session, Turn(room=3, lanes=lanes))
    same([scene.label(lease.id) for lease in answer.leased], ["1", "2", "3"])


@case
async def children_queue_by_their_roots_place_and_the_deepest_goes_first(scene: Scene) -> None:
    session = await scene.session()
    old = await scene.start(session, "old root")
    scene.clock.advance(1)
    young = await scene.start(session, "young root")
    scene.clock.advance(1)
    await scene.put_child(young, "child of young", "work")
    await scene.put("new root", "work")
    await scene.put("urgent root", "work", priority=1)
    await scene.put_child(old, "child of old", "work")
    child = await scene.start_child(session, old, "middle")
    await scene.put_child(child, "grandchild of old", "work")
    await scene.put_child(old, "second child of old", "work")
    same(
        await _order(scene, session, "work"),
        [
            "urgent root",
            "grandchild of old",
            "child of old",
            "second child of old",
            "child of young",
            "new root",
        ],
    )


@case
async def trees_of_roots_with_one_due_time_do_not_mix(scene: Scene) -> None:
    session = await scene.session()
    first, second = await scene.start(session, "first"), await scene.start(session, "second")
    for label, parent in {"2a": second, "1a": first, "2b": second, "1b": first}.items():
        await scene.put_child(parent, label, "work")
    same(await _order(scene, session, "work"), ["1a", "1b", "2a", "2b"])


@case
async def a_childs_own_due_time_does_not_move_it_in_its_tree(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    await scene.put_child(parent, "first", "work", delay=2 * SECOND)
    await scene.put_child(parent, "second", "work", delay=SECOND)
    scene.clock.advance(3)
    same(await _order(scene, session, "work"), ["first", "second"])


@case
async def a_retried_call_keeps_its_place(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("first", "work")
    (lease,) = await scene.lease(session, "work")
    scene.clock.advance(1)
    await scene.put("second", "work")
    await scene.settle(session, lease, Event.RETRY, delay=SECOND)
    scene.clock.advance(1)
    same(await _order(scene, session, "work"), ["first", "second"])


@case
async def no_more_are_leased_than_there_is_room(scene: Scene) -> None:
    session = await scene.session()
    for label in ("a", "b", "c"):
        await scene.put(label, "work")
    for room, wanted in ((0, 0), (-1, 0), (2, 2), (2, 1), (2, 0)):
        same(len(await scene.lease(session, "work", room=room)), wanted, f"leases for room {room}")


@case
async def only_the_named_lanes_are_leased(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work")
    await scene.put("slow work", "work", queue="slow")
    await scene.put("foreign work", "work", app="other app")
    same(await scene.lease(session, "play", "unknown"), [])
    same((await scene.store.turn(session, Turn(room=10))).leased, [])
    same(await _order(scene, session, "work"), ["work"])
    same([scene.label(lease.id) for lease in await scene.lease(session, "work", queue="slow")], ["slow work"])


@case
async def a_lane_that_is_named_twice_is_leased_from_once(scene: Scene) -> None:
    session = await scene.session()
    for label in ("a", "b"):
        await scene.put(label, "work")
    same(await _order(scene, session, "work", "work"), ["a", "b"])


@case
async def a_session_without_room_for_roots_leases_children_only(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    await scene.put("root", "work", priority=9)
    await scene.put_child(parent, "child", "work")
    await scene.put_child(parent, "detached child", "work", owned=False)
    leased = await scene.lease(session, "work", roots=False)
    same([scene.label(lease.id) for lease in leased], ["child", "detached child"])
    same(await _order(scene, session, "work"), ["root"])


@case
async def a_scheduled_call_is_leased_when_due_and_not_before(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work", delay=SECOND)
    scene.clock.advance(0.999_999)
    same(await scene.lease(session, "work"), [])
    scene.clock.advance(0.000_001)
    same(await _order(scene, session, "work"), ["work"])


@case
async def what_expired_while_it_ran_is_not_leased_when_it_comes_back(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work", expires=SECOND)
    scene.clock.advance(2)
    back = [Outcome(lease.id, lease.fence, Event.RELEASE)]
    answer = await scene.store.turn(session, Turn(outcomes=back, room=1, lanes=(lease.lane,)))
    same((answer.settled, answer.leased), ([True], []))
    same(await scene.state("work"), State.EXPIRED)


@case
async def a_turn_that_names_lanes_makes_due_calls_ready_even_without_room(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work", delay=SECOND)
    scene.clock.advance(1)
    await scene.lease(session, "other", room=0)
    same(await scene.state("work"), State.READY)


@case
async def the_answer_says_when_the_next_scheduled_call_is_due(scene: Scene) -> None:
    session = await scene.session()
    now = scene.clock.now()
    look = Turn(lanes=(Lane(APP, "default", "work"),))
    same((await scene.store.turn(session, look)).next_due, None)
    await scene.put("later", "work", delay=5 * SECOND)
    await scene.put("sooner", "work", delay=3 * SECOND)
    same((await scene.store.turn(session, look)).next_due, now + 3 * SECOND)
    scene.clock.advance(3)
    same((await scene.store.turn(session, look)).next_due, now + 5 * SECOND)
    await scene.store.cancel(scene.ids("later"))
    same((await scene.store.turn(session, look)).next_due, None)


@case
async def the_next_due_time_leaves_out_what_ends_in_the_same_turn(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("early", expires=SECOND, delay=20 * SECOND)
    await scene.put("late", delay=30 * SECOND)
    now = scene.clock.now()
    scene.clock.advance(1)

    look = Turn(lanes=(Lane(APP, "default", "none"),))
    same((await scene.store.turn(session, look)).next_due, now + 30 * SECOND)
    same(await scene.state("early"), State.EXPIRED)


@case
async def the_next_due_time_counts_what_the_same_turn_schedules(scene: Scene) -> None:
    session = await scene.session()
    now = scene.clock.now()
    follower = scene.call("follower", due=now + 20 * SECOND)
    await scene.put("expiring", expires=SECOND, callbacks=(follower,))
    scene.clock.advance(1)
    look = Turn(lanes=(Lane(APP, "default", "work"),))
    same((await scene.store.turn(session, look)).next_due, now + 20 * SECOND)
    call = scene.call("added", delay=SECOND)
    answer = await scene.store.turn(session, Turn(adds=[call], lanes=look.lanes))
    same(answer.next_due, now + 2 * SECOND)


@case
async def two_sessions_never_lease_the_same_call(scene: Scene) -> None:
    sessions = [await scene.session() for _ in range(4)]
    await scene.add(*(scene.call(f"{i}", "work") for i in range(100)))
    taken = await asyncio.gather(*(scene.lease(session, "work", room=7) for session in sessions * 5))
    ids = [lease.id for leased in taken for lease in leased]
    same(len(ids), len(set(ids)), "leased calls and different leased calls")
    same(len(ids), 100)
    holds({lease.fence for leased in taken for lease in leased} == {1}, "each was leased once")


@case
async def a_leased_call_is_not_leased_again_however_long_it_runs(scene: Scene) -> None:
    session, other = await scene.session(lease=3600 * SECOND), await scene.session(lease=3600 * SECOND)
    lease = await scene.start(session, "work", expires=SECOND)
    scene.clock.advance(3000)
    same(await scene.lease(other, "work"), [])
    same(await scene.lease(session, "work"), [])
    holds(await scene.settle(session, lease), "its time to start does not limit its run")


@case
async def what_a_session_does_not_know_that_it_holds_is_released(scene: Scene) -> None:
    session, other = await scene.session(), await scene.session()
    known, settled = await scene.start(session, "known"), await scene.start(session, "settled")
    for label in ("lost", "asked"):
        await scene.start(session, label)
    await scene.start(other, "of another session")
    await scene.store.cancel(scene.ids("asked"))
    outcome = Outcome(settled.id, settled.fence, Event.SUCCEED)
    turn = Turn(outcomes=[outcome], holding=(known.id,))
    for done in (True, False):
        same((await scene.store.turn(session, turn)).settled, [done])
        same(
            await scene.states("known", "settled", "lost", "asked", "of another session"),
            [State.LEASED, State.SUCCEEDED, State.READY, State.CANCELLED, State.LEASED],
        )
    seen = await scene.see("lost")
    same((seen.fence, seen.attempt, seen.crashes, seen.session), (2, 0, 0, None))
    holds(await scene.settle(session, known), "what it knows is still its own")


@case
async def a_turn_may_release_what_it_holds_and_lease_it_again(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    answer = await scene.store.turn(session, Turn(room=1, lanes=(lease.lane,), holding=()))
    same([(again.id, again.fence) for again in answer.leased], [(lease.id, 3)])
