"""Durable callbacks: calls that start when another has ended, however it ended."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Added, KeyRule, Lane, Outcome, Parent, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import APP, SECOND, Scene


@case
async def callbacks_wait_for_their_call_and_start_when_it_succeeds_or_fails(scene: Scene) -> None:
    session = await scene.session()
    for event in (Event.SUCCEED, Event.FAIL, Event.CANCEL):
        lease = await scene.start(session, f"{event}", callbacks=(scene.call(f"after {event}"),))
        same(await scene.state(f"after {event}"), State.WAITING)
        await scene.settle(session, lease, event)
        same(await scene.state(f"after {event}"), State.READY)
        same((await scene.take(session, f"after {event}")).after, scene.id(f"{event}"))


@case
async def callbacks_start_when_their_call_is_cancelled_expires_or_crashes(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("cancelled", callbacks=(scene.call("after cancelled"),))
    await scene.store.cancel(scene.ids("cancelled"))
    same(await scene.state("after cancelled"), State.READY)

    await scene.put("expired", expires=SECOND, callbacks=(scene.call("after expired"),))
    scene.clock.advance(1)
    await scene.lease(session, "nothing")
    same(await scene.state("after expired"), State.READY)

    dying = await scene.session()
    await scene.start(dying, "crashed", crash_limit=0, callbacks=(scene.call("after crashed"),))
    await scene.crash(dying)
    same(await scene.states("crashed", "after crashed"), [State.FAILED, State.READY])


@case
async def callbacks_do_not_start_at_a_retry_a_release_or_a_crash(scene: Scene) -> None:
    session, dying = await scene.session(), await scene.session()
    lease = await scene.start(session, "work", callbacks=(scene.call("callback"),))
    await scene.settle(session, lease, Event.RETRY)
    await scene.settle(session, await scene.take(session, "work"), Event.RELEASE)
    await scene.take(dying, "work")
    await scene.crash(dying)
    same(await scene.states("work", "callback"), [State.READY, State.WAITING])


@case
async def callbacks_are_roots_of_their_own(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent", priority=5)
    scene.clock.advance(1)
    await scene.put_child(parent, "child", callbacks=(scene.call("callback"),))
    seen = await scene.see("callback")
    same((seen.parent, seen.depth, seen.priority, seen.owned), (None, 0, 0, False))
    same((seen.after, seen.due), (scene.id("child"), scene.clock.now()))


@case
async def callbacks_of_an_existing_call_are_added_after_it(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("first", "work", key=KeyRule("k"))
    again = scene.call("again", "work", key=KeyRule("k"), callbacks=(scene.call("on live"),))
    same(await scene.add(again), [Added(scene.id("first"), "exists")])
    same((await scene.see("on live")).after, scene.id("first"))
    same(await scene.state("on live"), State.WAITING)
    await scene.store.cancel(scene.ids("first"))
    same(await scene.state("on live"), State.READY)
    first = scene.call("first", "work", callbacks=(scene.call("on ended"),))
    same(await scene.add(first), [Added(first.id, "exists")])
    same(await scene.state("on ended"), State.READY)
    same((await scene.take(session, "on ended")).after, first.id)


@case
async def repeating_a_request_does_not_double_callbacks(scene: Scene) -> None:
    session = await scene.session()
    call = scene.call("work", callbacks=(scene.call("callback"),))
    await scene.add(call)
    await scene.add(call)
    await scene.end(session, "work")
    await scene.add(call)
    await scene.end(session, "callback")
    await scene.add(call)
    counts = await scene.store.counts(APP)
    same((counts["succeeded"], sum(counts.values())), (2, 2), "calls that succeeded, of all")


@case
async def callbacks_of_a_refused_or_lost_call_are_not_added(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("taken", "work", key=KeyRule("k"))
    lease = await scene.start(session, "parent")
    answers = await scene.add(
        scene.call("taken", "play", callbacks=(scene.call("one"),)),
        scene.call("dangling", after=scene.id("nobody"), callbacks=(scene.call("two"),)),
        scene.call("again", "work", key=KeyRule("k", on_conflict="raise"), callbacks=(scene.call("three"),)),
        scene.call("lost", parent=Parent(lease.id, lease.fence + 1), callbacks=(scene.call("four"),)),
    )
    same([answer.status for answer in answers], ["refused", "refused", "refused", "lost"])
    for label in ("one", "two", "three", "four"):
        holds(await scene.missing(label), f"callback {label!r} was not added")


@case
async def callbacks_may_have_callbacks(scene: Scene) -> None:
    session = await scene.session()
    third = scene.call("third")
    second = scene.call("second", callbacks=(third,))
    await scene.put("first", callbacks=(second,))
    same(await scene.states("second", "third"), [State.WAITING, State.WAITING])
    same((await scene.see("third")).after, second.id)
    await scene.end(session, "first")
    same(await scene.states("second", "third"), [State.READY, State.WAITING])
    await scene.end(session, "second")
    await scene.end(session, "third")


@case
async def a_callback_keeps_its_due_time(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("first", callbacks=(scene.call("reminder", delay=10 * SECOND),))
    due = (await scene.see("reminder")).due
    scene.clock.advance(1)
    await scene.end(session, "first")
    seen = await scene.see("reminder")
    same((seen.state, seen.due), (State.SCHEDULED, due))
    scene.clock.advance(9)
    await scene.take(session, "reminder")


@case
async def a_callback_that_was_due_long_ago_is_ready_when_woken(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("first", callbacks=(scene.call("reminder", delay=SECOND),))
    scene.clock.advance(5)
    await scene.lease(session, "nothing")
    same(await scene.state("reminder"), State.WAITING)
    await scene.end(session, "first")
    same(await scene.state("reminder"), State.READY)


@case
async def a_waiting_callback_can_be_cancelled_or_expire(scene: Scene) -> None:
    session = await scene.session()
    callbacks = scene.call("unwanted", callbacks=(scene.call("next"),)), scene.call("late", expires=SECOND)
    await scene.put("first", callbacks=callbacks)
    await scene.store.cancel(scene.ids("unwanted"))
    scene.clock.advance(1)
    await scene.lease(session, "nothing")
    same(await scene.states("unwanted", "late", "next"), [State.CANCELLED, State.EXPIRED, State.READY])
    await scene.end(session, "first")
    same(await scene.states("unwanted", "late"), [State.CANCELLED, State.EXPIRED])


@case
async def callbacks_obey_keys(scene: Scene) -> None:
    await scene.put("first", callbacks=(scene.call("report", "report", key=KeyRule("daily")),))
    await scene.put("second", callbacks=(scene.call("another report", "report", key=KeyRule("daily")),))
    same((await scene.see("report")).after, scene.id("first"))
    holds(await scene.missing("another report"), "its key joined the first report")


@case
async def a_callback_may_be_leased_in_the_turn_that_ends_its_call(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "first", callbacks=(scene.call("second"),))
    lane = Lane(APP, "default", "second")
    answer = await scene.store.turn(
        session, Turn(outcomes=[Outcome(lease.id, lease.fence, Event.SUCCEED)], room=1, lanes=(lane,))
    )
    same([leased.id for leased in answer.leased], scene.ids("second"))


@case
async def an_adding_session_is_told_of_a_callback_that_asks_for_it(scene: Scene) -> None:
    client, session = await scene.session("client"), await scene.session()
    callbacks = scene.call("told"), scene.call("untold", told=False)
    await scene.put("first", session=client, callbacks=callbacks)
    for label in ("first", "told", "untold"):
        await scene.end(session, label)
    same(await scene.told(client), ["first", "told"])
