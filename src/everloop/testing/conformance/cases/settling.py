"""Settling: what the end of a lease does, and that only the current lease does it."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Lane, Leased, Outcome, Progress, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import APP, SECOND, Scene

SETTLING = (Event.SUCCEED, Event.FAIL, Event.CANCEL, Event.RETRY, Event.RELEASE)


def _outcome(lease: Leased, event: Event = Event.SUCCEED) -> Outcome:
    return Outcome(lease.id, lease.fence, event)


@case
async def success_failure_and_cancellation_are_final_and_count_as_attempts(scene: Scene) -> None:
    session = await scene.session()
    for event, state in {
        Event.SUCCEED: State.SUCCEEDED,
        Event.FAIL: State.FAILED,
        Event.CANCEL: State.CANCELLED,
    }.items():
        lease = await scene.start(session, event)
        scene.clock.advance(1)
        holds(await scene.settle(session, lease, event, value=b"jvalue", error=b"jerror"), "it was settled")
        seen = await scene.see(event)
        same((seen.state, seen.value, seen.error), (state, b"jvalue", b"jerror"))
        same((seen.attempt, seen.crashes, seen.fence), (1, 0, 1))
        same((seen.session, seen.ended), (session, scene.clock.now()))
        same(seen.started, scene.clock.now() - SECOND)


@case
async def a_retry_counts_an_attempt_and_waits_for_its_delay(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.settle(session, lease, Event.RETRY, delay=2 * SECOND)
    seen = await scene.see("work")
    same((seen.state, seen.due - scene.clock.now()), (State.SCHEDULED, 2 * SECOND))
    same((seen.attempt, seen.crashes, seen.fence, seen.session), (1, 0, 2, None))
    scene.clock.advance(2)
    same((await scene.take(session, "work")).attempt, 1)


@case
async def a_retry_without_delay_is_ready_at_once(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    answer = await scene.store.turn(
        session, Turn(outcomes=[_outcome(lease, Event.RETRY)], room=1, lanes=(lease.lane,))
    )
    same([(again.id, again.fence, again.attempt) for again in answer.leased], [(lease.id, 3, 1)])


@case
async def a_crash_that_its_worker_tells_of_counts_like_one_of_the_worker(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work", crash_limit=1)
    await scene.settle(session, lease, Event.REAP, error=b"jfirst words")
    seen = await scene.see("work")
    same((seen.state, seen.attempt, seen.crashes, seen.fence, seen.error), (State.READY, 0, 1, 2, None))
    await scene.settle(session, await scene.take(session, "work"), Event.REAP, error=b"jlast words")
    seen = await scene.see("work")
    same((seen.state, seen.attempt, seen.crashes, seen.error), (State.FAILED, 0, 2, b"jlast words"))


@case
async def a_crash_ends_a_call_whose_cancellation_was_asked(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.store.cancel([lease.id])
    await scene.settle(session, lease, Event.REAP, error=b"jlast words")
    seen = await scene.see("work")
    same((seen.state, seen.attempt, seen.crashes, seen.error), (State.CANCELLED, 0, 1, None))


@case
async def a_release_counts_nothing(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.settle(session, lease, Event.RELEASE)
    seen = await scene.see("work")
    same((seen.state, seen.attempt, seen.crashes, seen.fence), (State.READY, 0, 0, 2))
    await scene.settle(session, await scene.take(session, "work"), Event.RELEASE, delay=SECOND)
    seen = await scene.see("work")
    same((seen.state, seen.due - scene.clock.now()), (State.SCHEDULED, SECOND))
    same((seen.attempt, seen.crashes, seen.fence), (0, 0, 4))


@case
async def a_stale_fence_changes_nothing_and_is_answered_false(scene: Scene) -> None:
    session, dying = await scene.session(), await scene.session()
    old = await scene.start(dying, "work")
    await scene.crash(dying)
    while_ready = await scene.see("work")
    for event in SETTLING:
        same(await scene.settle(session, old, event, value=b"jlate"), wanted=False)
    same(await scene.see("work"), while_ready)
    new = await scene.take(session, "work")
    while_leased = await scene.see("work")
    for event in SETTLING:
        same(await scene.settle(session, old, event, value=b"jlate"), wanted=False)
    same(await scene.see("work"), while_leased)
    await scene.settle(session, new, value=b"jvalue")
    when_final = await scene.see("work")
    for event in SETTLING:
        for lease in (old, new):
            same(await scene.settle(session, lease, event, value=b"jlate"), wanted=False)
    same(await scene.see("work"), when_final)


@case
async def an_unknown_call_or_a_fence_of_the_future_is_answered_false(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    outcomes = [Outcome(scene.id("nobody"), 1, Event.SUCCEED), Outcome(lease.id, 2, Event.SUCCEED)]
    same((await scene.store.turn(session, Turn(outcomes=outcomes))).settled, [False, False])
    same(await scene.state("work"), State.LEASED)


@case
async def a_call_that_was_never_leased_cannot_be_settled(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("ready", callbacks=(scene.call("waiting"),))
    await scene.put("scheduled", delay=SECOND)
    outcomes = [Outcome(id, 0, Event.SUCCEED) for id in scene.ids("ready", "waiting", "scheduled")]
    same((await scene.store.turn(session, Turn(outcomes=outcomes))).settled, [False] * 3)
    same(await scene.states("ready", "waiting", "scheduled"), [State.READY, State.WAITING, State.SCHEDULED])


@case
async def each_outcome_is_answered_by_itself(scene: Scene) -> None:
    session = await scene.session()
    first, second, third = [await scene.start(session, label) for label in ("1", "2", "3")]
    await scene.settle(session, second)
    outcomes = [_outcome(first), _outcome(second), _outcome(third, Event.FAIL)]
    same((await scene.store.turn(session, Turn(outcomes=outcomes))).settled, [True, False, True])
    same(await scene.states("1", "2", "3"), [State.SUCCEEDED, State.SUCCEEDED, State.FAILED])


@case
async def of_two_outcomes_of_one_lease_the_first_counts(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    outcomes = [_outcome(lease, Event.FAIL), _outcome(lease), _outcome(lease, Event.RETRY)]
    same((await scene.store.turn(session, Turn(outcomes=outcomes))).settled, [True, False, False])
    seen = await scene.see("work")
    same((seen.state, seen.attempt), (State.FAILED, 1))


@case
async def a_call_that_was_asked_to_cancel_does_not_go_back_to_the_queue(scene: Scene) -> None:
    session = await scene.session()
    for event, attempt in {Event.RETRY: 1, Event.RELEASE: 0}.items():
        lease = await scene.start(session, event)
        await scene.store.cancel([lease.id])
        holds(await scene.settle(session, lease, event, error=b"jerror", delay=SECOND), "it was settled")
        seen = await scene.see(event)
        same((seen.state, seen.attempt, seen.error), (State.CANCELLED, attempt, b"jerror"))


@case
async def a_call_that_was_asked_to_cancel_may_still_succeed_or_fail(scene: Scene) -> None:
    session = await scene.session()
    for event, state in {Event.SUCCEED: State.SUCCEEDED, Event.FAIL: State.FAILED}.items():
        lease = await scene.start(session, event)
        await scene.store.cancel([lease.id])
        holds(await scene.settle(session, lease, event, value=b"jvalue"), "it was settled")
        seen = await scene.see(event)
        same((seen.state, seen.value), (state, b"jvalue"))


@case
async def a_turn_settles_before_it_leases(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "first", fn="work")
    await scene.put("second", "work")
    lanes = (Lane(APP, "default", "work"),)
    answer = await scene.store.turn(session, Turn(outcomes=[_outcome(lease)], room=5, lanes=lanes))
    same([scene.label(leased.id) for leased in answer.leased], ["second"])


@case
async def a_parent_and_its_child_that_end_in_one_turn_both_end_as_they_say(scene: Scene) -> None:
    session = await scene.session()
    for order in (1, -1):
        parent = await scene.start(session, f"parent {order}")
        child = await scene.start_child(session, parent, f"child {order}")
        await scene.settle(session, parent, Event.RELEASE)
        parent = await scene.take(session, f"parent {order}")
        outcomes = [_outcome(parent), _outcome(child)][::order]
        same((await scene.store.turn(session, Turn(outcomes=outcomes))).settled, [True, True])
        seen = await scene.see(f"child {order}")
        same((seen.state, seen.cancel_asked), (State.SUCCEEDED, None))


@case
async def progress_is_stored_for_current_leases_only(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.put("ready")
    good = Progress(lease.id, lease.fence, 1.5, 4.0, "half")
    stale = Progress(lease.id, lease.fence - 1, 3.0, 4.0, "late")
    unleased = Progress(scene.id("ready"), 0, 1.0, None, "")
    unknown = Progress(scene.id("nobody"), 1, 1.0, None, "")
    await scene.store.turn(session, Turn(progress=[good, stale, unleased, unknown]))
    same((await scene.see("work")).progress, (1.5, 4.0, "half"))
    same((await scene.see("ready")).progress, None)
    await scene.store.turn(session, Turn(progress=[Progress(lease.id, lease.fence, 2.0, None, "")]))
    same((await scene.see("work")).progress, (2.0, None, ""))


@case
async def progress_that_comes_with_the_outcome_is_stored(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    last = Progress(lease.id, lease.fence, 4.0, 4.0, "done")
    await scene.store.turn(session, Turn(outcomes=[_outcome(lease)], progress=[last]))
    same((await scene.see("work")).progress, (4.0, 4.0, "done"))
    await scene.store.turn(session, Turn(progress=[Progress(lease.id, lease.fence, 0.0, 4.0, "late")]))
    same((await scene.see("work")).progress, (4.0, 4.0, "done"))
