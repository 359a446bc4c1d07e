"""Dying: calls that expire, and workers that crash."""

from __future__ import annotations

import msgspec

from everloop._core.calls import Event, State
from everloop._core.records import Lane, Outcome, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import APP, SECOND, Scene


@case
async def a_call_of_a_dead_session_is_ready_again_with_one_crash_more(scene: Scene) -> None:
    dying, session = await scene.session(), await scene.session()
    old = await scene.start(dying, "work")
    await scene.crash(dying)
    seen = await scene.see("work")
    same((seen.state, seen.crashes, seen.attempt), (State.READY, 1, 0))
    same((seen.fence, seen.session), (2, None))
    new = await scene.take(session, "work")
    same((new.fence, new.crashes, new.attempt), (3, 1, 0))
    same(await scene.settle(dying, old), wanted=False)
    holds(await scene.settle(session, new), "the new lease counts")


@case
async def a_call_that_crashed_more_often_than_its_limit_fails(scene: Scene) -> None:
    client = await scene.session("client")
    await scene.put("work", crash_limit=2, session=client)
    for crashes in (1, 2, 3):
        dying = await scene.session()
        await scene.take(dying, "work")
        await scene.crash(dying)
        seen = await scene.see("work")
        same((seen.crashes, seen.state), (crashes, State.FAILED if crashes == 3 else State.READY))
    seen = await scene.see("work")
    same((seen.fence, seen.attempt, seen.ended), (6, 0, scene.clock.now()))
    holds(seen.error is not None and b"TaskCrashed" in seen.error, "the error says TaskCrashed")
    (ended,) = (await scene.inbox(client)).ended
    same((ended.state, ended.error), (State.FAILED, seen.error))


@case
async def of_the_calls_that_crashed_twice_one_is_leased_at_a_time(scene: Scene) -> None:
    labels = [f"suspect {n}" for n in range(3)]
    for label in labels:
        await scene.put(label, "work", priority=1)
    for _ in range(2):
        dying = await scene.session()
        same(len(await scene.lease(dying, "work")), 3, "leases with fewer crashes")
        await scene.crash(dying)
    await scene.put("before", "work", priority=2)
    await scene.put("behind", "work")
    session = await scene.session()
    turn = Turn(room=10, lanes=(Lane(APP, "default", "work"),), suspects=False)
    leased = (await scene.store.turn(session, turn)).leased
    same([lease.id for lease in leased], scene.ids("before", "behind"), "a turn that takes no suspects")
    await scene.store.close_session(session)
    session = await scene.session()
    turn = msgspec.structs.replace(turn, suspects=True)
    leased = (await scene.store.turn(session, turn)).leased
    same([lease.id for lease in leased], scene.ids("before", labels[0], "behind"), "one, in its place")
    leased = (await scene.store.turn(session, turn)).leased
    same([lease.id for lease in leased], [scene.id(labels[1])], "the next one in the next turn")


@case
async def a_call_without_allowed_crashes_fails_at_the_first(scene: Scene) -> None:
    dying = await scene.session()
    await scene.start(dying, "work", crash_limit=0)
    await scene.crash(dying)
    seen = await scene.see("work")
    same((seen.state, seen.crashes, seen.session), (State.FAILED, 1, dying))


@case
async def a_call_of_a_dead_session_that_was_asked_to_cancel_is_cancelled(scene: Scene) -> None:
    dying = await scene.session()
    for label, limit in {"within the limit": 5, "beyond the limit": 0}.items():
        await scene.start(dying, label, crash_limit=limit)
        await scene.store.cancel(scene.ids(label))
    await scene.crash(dying)
    for label in ("within the limit", "beyond the limit"):
        seen = await scene.see(label)
        same((seen.state, seen.crashes, seen.fence), (State.CANCELLED, 1, 2))


@case
async def only_the_dead_sessions_calls_are_reaped(scene: Scene) -> None:
    dying, living = await scene.session(), await scene.session()
    await scene.start(dying, "lost")
    kept = await scene.start(living, "kept")
    await scene.crash(dying)
    same(await scene.states("lost", "kept"), [State.READY, State.LEASED])
    same(await scene.store.reap(), 0)
    same((await scene.see("lost")).crashes, 1)
    holds(await scene.settle(living, kept), "the living session's lease is untouched")


@case
async def who_is_known_to_be_dead_is_reaped_before_its_time_and_how_it_died_is_kept(scene: Scene) -> None:
    client, session, dying = await scene.session("client"), await scene.session(), await scene.session()
    how = {dying: "it was killed by SIGKILL", 1 << 40: "nobody knows it"}
    old = await scene.start(dying, "again")
    await scene.start(dying, "last", crash_limit=0)
    await scene.start(session, "other")
    same(await scene.store.wait(client, scene.ids("last")), [])
    same(await scene.store.reap(overdue=False, dead=how), 1)
    same(await scene.store.reap(overdue=False, dead=how), 0)
    same(await scene.states("again", "last", "other"), [State.READY, State.FAILED, State.LEASED])
    same(await scene.settle(dying, old), wanted=False)
    (run,), _ = await scene.store.runs(scene.ids("again", "last"))
    same((run.kind, run.session, run.host, run.pid), ("crashed", dying, "here", 1))
    told = b"its worker (pid 1 on here) died: it was killed by SIGKILL"
    holds(run.error is not None and told in run.error, "the run tells how its worker died")
    (end,) = (await scene.inbox(client)).ended
    told = b"allows 0; the last one was pid 1 on here: it was killed by SIGKILL"
    holds(end.error is not None and told in end.error, "the error tells how the last worker died")


@case
async def who_the_last_worker_was_is_told_of_a_call_that_crashed_too_often(scene: Scene) -> None:
    dying = await scene.session()
    await scene.start(dying, "again")
    await scene.start(dying, "last", crash_limit=0)
    await scene.crash(dying)
    (run,), _ = await scene.store.runs(scene.ids("again", "last"))
    same((run.host, run.pid, run.error), ("here", 1, None), "nobody saw how")
    error = (await scene.see("last")).error
    told = b'died with it 1 times; `crashes=0` allows 0; the last one was pid 1 on here"'
    holds(error is not None and told in error, "the error tells who the last worker was")


@case
async def a_late_worker_may_settle_until_it_is_reaped(scene: Scene) -> None:
    session = await scene.session(lease=SECOND)
    first, second = await scene.start(session, "first"), await scene.start(session, "second")
    scene.clock.advance(10)
    holds(await scene.settle(session, first), "nobody took the lease away")
    same(await scene.store.reap(), 1)
    same(await scene.settle(session, second), wanted=False)


@case
async def a_call_that_is_not_started_in_time_expires(scene: Scene) -> None:
    client, session = await scene.session("client"), await scene.session()
    await scene.put("first", session=client, callbacks=(scene.call("waiting", expires=SECOND),))
    await scene.put("ready", expires=SECOND, session=client)
    await scene.put("scheduled", expires=SECOND, delay=5 * SECOND, session=client)
    await scene.put("in time", expires=2 * SECOND, session=client)
    scene.clock.advance(0.999_999)
    await scene.lease(session, "nothing")
    same(await scene.states("waiting", "ready", "scheduled"), [State.WAITING, State.READY, State.SCHEDULED])
    scene.clock.advance(0.000_001)
    same(await scene.lease(session, "ready", "scheduled"), [])
    same(await scene.states("waiting", "ready", "scheduled"), [State.EXPIRED] * 3)
    for label in ("waiting", "ready", "scheduled"):
        seen = await scene.see(label)
        same((seen.fence, seen.attempt, seen.ended), (1, 0, scene.clock.now()))
        holds(seen.error is not None and b"TaskExpired" in seen.error, "the error says TaskExpired")
    same(await scene.told(client), ["ready", "scheduled", "waiting"])
    await scene.take(session, "in time")


@case
async def calls_expire_in_a_turn_for_other_lanes_and_without_room(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work", expires=SECOND)
    scene.clock.advance(1)
    await scene.lease(session, "other", room=0)
    same(await scene.state("work"), State.EXPIRED)


@case
async def a_call_that_was_due_and_expired_meanwhile_is_not_started(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work", delay=SECOND, expires=2 * SECOND)
    scene.clock.advance(3)
    same(await scene.lease(session, "work"), [])
    same(await scene.state("work"), State.EXPIRED)


@case
async def a_call_that_comes_back_too_late_expires(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work", expires=2 * SECOND)
    await scene.settle(session, lease, Event.RETRY, delay=SECOND)
    scene.clock.advance(3)
    same(await scene.lease(session, "work"), [])
    seen = await scene.see("work")
    same((seen.state, seen.attempt, seen.fence), (State.EXPIRED, 1, 3))
    same((await scene.store.cancel([lease.id]))[0].state, State.EXPIRED)
    late = Turn(outcomes=[Outcome(lease.id, seen.fence, Event.SUCCEED)])
    same((await scene.store.turn(session, late)).settled, [False])
