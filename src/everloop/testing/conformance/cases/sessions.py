"""Sessions: open, renew, serve, close."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Lane, Outcome, SessionInfo, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import APP, MINUTE, SECOND, Scene

MAIL = Lane(APP, "default", "mail")
REPORT = Lane(APP, "slow", "report")


@case
async def session_numbers_are_never_reused(scene: Scene) -> None:
    first, second = await scene.session(), await scene.session()
    await scene.store.close_session(second)
    third = await scene.session()
    await scene.crash(third)
    fourth = await scene.session()
    same(len({first, second, third, fourth}), 4, "different numbers")


@case
async def a_renewed_session_outlives_its_first_lease(scene: Scene) -> None:
    session = await scene.session(lease=10 * SECOND)
    scene.clock.advance(6)
    same(await scene.store.renew(session, 10 * SECOND), wanted=True)
    scene.clock.advance(6)
    same(await scene.store.reap(), 0)
    same(await scene.store.renew(session, SECOND), wanted=True)


@case
async def a_session_is_over_at_the_end_of_its_time_and_not_before(scene: Scene) -> None:
    await scene.session(lease=10 * SECOND)
    scene.clock.advance(9.999_999)
    same(await scene.store.reap(), 0)
    scene.clock.advance(0.000_001)
    same(await scene.store.reap(), 1)


@case
async def a_late_session_that_nobody_reaped_is_renewed(scene: Scene) -> None:
    session = await scene.session(lease=SECOND)
    lease = await scene.start(session, "kept")
    scene.clock.advance(100)
    same(await scene.store.renew(session, SECOND), wanted=True)
    same(await scene.store.reap(), 0)
    holds(await scene.settle(session, lease), "the lease is still its own")


@case
async def renewing_an_unknown_closed_or_reaped_session_answers_false(scene: Scene) -> None:
    closed, reaped = await scene.session(), await scene.session()
    await scene.store.close_session(closed)
    await scene.crash(reaped)
    for session in (closed, reaped, reaped + 1000):
        same(await scene.store.renew(session, SECOND), wanted=False)


@case
async def every_dead_session_is_reaped_once(scene: Scene) -> None:
    await scene.session(lease=SECOND)
    await scene.session(lease=2 * SECOND)
    await scene.session(lease=MINUTE)
    scene.clock.advance(2)
    same(await scene.store.reap(), 2)
    same(await scene.store.reap(), 0)


@case
async def closing_gives_leases_back_unharmed(scene: Scene) -> None:
    leaving, staying = await scene.session(), await scene.session()
    await scene.start(leaving, "given back")
    kept = await scene.start(staying, "kept")
    await scene.store.close_session(leaving)
    seen = await scene.see("given back")
    same(seen.state, State.READY)
    same((seen.fence, seen.attempt, seen.crashes, seen.session), (2, 0, 0, None))
    again = await scene.take(staying, "given back")
    same(again.fence, 3)
    holds(await scene.settle(staying, kept), "the other session's lease is untouched")


@case
async def closing_cancels_a_leased_call_whose_cancellation_was_asked(scene: Scene) -> None:
    session = await scene.session()
    await scene.start(session, "asked")
    await scene.store.cancel(scene.ids("asked"), "enough")
    await scene.store.close_session(session)
    seen = await scene.see("asked")
    same((seen.state, seen.fence, seen.crashes, seen.attempt), (State.CANCELLED, 2, 0, 0))


@case
async def closing_twice_or_an_unknown_session_changes_nothing(scene: Scene) -> None:
    session = await scene.session()
    await scene.start(session, "work")
    await scene.store.close_session(session)
    before = await scene.see("work")
    await scene.store.close_session(session)
    await scene.store.close_session(session + 1000)
    same(await scene.see("work"), before)


@case
async def a_session_that_is_gone_is_told_nothing(scene: Scene) -> None:
    closed, reaped, worker = await scene.session(), await scene.session(), await scene.session()
    await scene.put("one", session=closed)
    await scene.put("two", session=reaped)
    await scene.crash(reaped)
    await scene.store.close_session(closed)
    await scene.end(worker, "one")
    await scene.end(worker, "two")
    for session in (closed, reaped):
        same(await scene.told(session), [])
        same(await scene.store.wait(session, scene.ids("one")), [])
        same(await scene.told(session), [])


@case
async def a_session_that_is_gone_leases_nothing(scene: Scene) -> None:
    closed, reaped, worker = await scene.session(), await scene.session(), await scene.session()
    await scene.store.close_session(closed)
    await scene.crash(reaped)
    await scene.put("work")
    for session in (closed, reaped, reaped + 1000):
        same(await scene.lease(session, "work"), [], "leases of a session that cannot be reaped any more")
    await scene.take(worker, "work")


@case
async def serving_lists_what_living_workers_of_the_app_serve(scene: Scene) -> None:
    same(await scene.store.serving(APP), [])
    first = await scene.session(lanes=[MAIL, REPORT])
    await scene.session(lanes=[MAIL, Lane("other app", "default", "mail")])
    await scene.session("client", lanes=[Lane(APP, "default", "not served by a client")])
    same(sorted(await scene.store.serving(APP)), [("default", "mail"), ("slow", "report")])
    await scene.store.close_session(first)
    same(await scene.store.serving(APP), [("default", "mail")])
    same(await scene.store.serving("unknown"), [])


@case
async def a_worker_whose_time_is_over_serves_nothing(scene: Scene) -> None:
    session = await scene.session(lease=SECOND, lanes=[MAIL])
    scene.clock.advance(1)
    same(await scene.store.serving(APP), [])
    await scene.store.renew(session, SECOND)
    same(await scene.store.serving(APP), [("default", "mail")])


@case
async def serving_again_replaces_the_lanes_and_the_kind(scene: Scene) -> None:
    session = await scene.session("client")
    worker = SessionInfo(app=APP, kind="worker", host="here", pid=1, lanes=(MAIL,))
    for _ in range(2):
        await scene.store.serve(session, worker)
        same(await scene.store.serving(APP), [("default", "mail")])
    await scene.store.serve(session, SessionInfo(app=APP, kind="worker", host="here", pid=1, lanes=(REPORT,)))
    same(await scene.store.serving(APP), [("slow", "report")])
    await scene.store.serve(session, SessionInfo(app=APP, kind="client", host="here", pid=1))
    same(await scene.store.serving(APP), [])


@case
async def a_session_that_is_gone_serves_nothing(scene: Scene) -> None:
    session = await scene.session()
    await scene.store.close_session(session)
    await scene.store.serve(session, SessionInfo(app=APP, kind="worker", host="here", pid=1, lanes=(MAIL,)))
    same(await scene.store.serving(APP), [])


@case
async def a_twin_sees_and_changes_the_same_state(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "running")
    await scene.put("queued", session=session)
    twin = scene.store.twin()
    await twin.open()
    same(
        await twin.get(scene.ids("running", "queued")),
        [await scene.see("running"), await scene.see("queued")],
    )
    same(await twin.renew(session, MINUTE), wanted=True)
    outcome = Outcome(lease.id, lease.fence, Event.SUCCEED)
    same((await twin.turn(session, Turn(outcomes=[outcome]))).settled, [True])
    await twin.close()
    await twin.close()
    same(await scene.state("running"), State.SUCCEEDED)
    await scene.take(session, "queued")


@case
async def tending_changes_nothing(scene: Scene) -> None:
    session = await scene.session()
    await scene.start(session, "running")
    before = await scene.see("running")
    await scene.store.tend()
    await scene.store.tend()
    same(await scene.see("running"), before)


@case
async def listening_is_a_hint_and_can_be_stopped(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    stops = [scene.store.listen(client, lambda: None), scene.store.listen(worker, lambda: None)]
    await scene.put("work", session=client)
    await scene.end(worker, "work")
    for stop in stops:
        stop()
    same(await scene.told(client), ["work"])
