"""Cancelling: at once if a call waits, by asking its worker if it runs."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Cancel, Cancelled, Parent, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import same
from everloop.testing.conformance.scene import SECOND, Scene


@case
async def a_call_that_waits_is_cancelled_at_once(scene: Scene) -> None:
    client = await scene.session("client")
    await scene.put("ready", session=client, callbacks=(scene.call("waiting"),))
    await scene.put("scheduled", session=client, delay=SECOND)
    for label in ("waiting", "scheduled", "ready"):
        same(
            await scene.store.cancel([scene.id(label)], "enough"),
            [Cancelled(scene.id(label), State.CANCELLED, asked=False)],
        )
        seen = await scene.see(label)
        same((seen.state, seen.ended, seen.session), (State.CANCELLED, scene.clock.now(), None))
        same((seen.fence, seen.attempt, seen.value), (1, 0, None))
    same(await scene.told(client), ["ready", "scheduled", "waiting"])


@case
async def the_worker_of_a_running_call_is_asked(scene: Scene) -> None:
    session, other = await scene.session(), await scene.session()
    lease = await scene.start(session, "work")
    same(await scene.store.cancel([lease.id], "enough"), [Cancelled(lease.id, State.LEASED, asked=True)])
    seen = await scene.see("work")
    same((seen.state, seen.fence, seen.cancel_asked), (State.LEASED, 1, "enough"))
    same((await scene.inbox(other)).cancels, [])
    same((await scene.inbox(session)).cancels, [Cancel(lease.id, lease.fence, "enough")])
    same((await scene.inbox(session)).cancels, [], "asked once")


@case
async def cancelling_again_asks_nothing_more(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.store.cancel([lease.id], "first")
    await scene.inbox(session)
    same(await scene.store.cancel([lease.id], "second"), [Cancelled(lease.id, State.LEASED, asked=True)])
    same((await scene.inbox(session)).cancels, [])
    same((await scene.see("work")).cancel_asked, "first")


@case
async def an_empty_message_asks_too(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.store.cancel([lease.id])
    same((await scene.inbox(session)).cancels, [Cancel(lease.id, lease.fence, "")])
    same((await scene.see("work")).cancel_asked, "")
    await scene.settle(session, lease, Event.RELEASE)
    same(await scene.state("work"), State.CANCELLED)


@case
async def a_final_call_stays_as_it_is(scene: Scene) -> None:
    session = await scene.session()
    for event in (Event.SUCCEED, Event.FAIL, Event.CANCEL):
        await scene.settle(session, await scene.start(session, event), event)
        before = await scene.see(event)
        same(await scene.store.cancel([before.id]), [Cancelled(before.id, before.state, asked=False)])
        same(await scene.see(event), before)


@case
async def each_id_is_answered_in_order_also_unknown_and_repeated_ones(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("ready")
    lease = await scene.start(session, "leased")
    ready, nobody = scene.ids("ready", "nobody")
    same(
        await scene.store.cancel([lease.id, nobody, ready, ready, lease.id]),
        [
            Cancelled(lease.id, State.LEASED, asked=True),
            Cancelled(nobody, None, asked=False),
            Cancelled(ready, State.CANCELLED, asked=False),
            Cancelled(ready, State.CANCELLED, asked=False),
            Cancelled(lease.id, State.LEASED, asked=True),
        ],
    )
    same(await scene.store.cancel([]), [])


@case
async def a_call_and_its_child_cancelled_at_once_each_get_the_users_message(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    child = await scene.start_child(session, parent, "child")
    await scene.settle(session, parent, Event.RELEASE)
    same(
        await scene.store.cancel([parent.id, child.id], "enough"),
        [Cancelled(parent.id, State.CANCELLED, asked=False), Cancelled(child.id, State.LEASED, asked=True)],
    )
    same((await scene.inbox(session)).cancels, [Cancel(child.id, child.fence, "enough")])


@case
async def a_cancellation_of_a_lease_that_has_ended_is_not_told(scene: Scene) -> None:
    session = await scene.session()
    settled, released = await scene.start(session, "settled"), await scene.start(session, "released")
    other = await scene.session()
    await scene.store.cancel([settled.id, released.id])
    await scene.settle(other, settled)
    await scene.settle(other, released, Event.RELEASE)
    same((await scene.inbox(session)).cancels, [])


@case
async def a_cancelled_call_is_not_leased(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("ready", "work")
    await scene.put("scheduled", "work", delay=SECOND)
    await scene.store.cancel(scene.ids("ready", "scheduled"))
    scene.clock.advance(2)
    same(await scene.lease(session, "work"), [])


@case
async def cancelling_a_running_call_leaves_its_children_to_its_body(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    await scene.put_child(parent, "child")
    await scene.store.cancel([parent.id])
    same(await scene.state("child"), State.READY)
    answer = await scene.store.turn(session, Turn())
    same([cancel.id for cancel in answer.cancels], [parent.id])


@case
async def a_parent_cancels_its_children_under_its_lease(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    running = await scene.start_child(session, parent, "running")
    await scene.put_child(parent, "waiting")
    under = Parent(parent.id, parent.fence)
    same(
        await scene.store.cancel([running.id, scene.id("waiting")], "enough", [under, under]),
        [
            Cancelled(running.id, State.LEASED, asked=True),
            Cancelled(scene.id("waiting"), State.CANCELLED, asked=False),
        ],
    )
    same((await scene.inbox(session)).cancels, [Cancel(running.id, running.fence, "enough")])


@case
async def a_worker_that_has_lost_a_parent_cancels_nothing_that_the_next_run_awaits(scene: Scene) -> None:
    stopped, session = await scene.session(), await scene.session()
    parent = await scene.start(stopped, "parent")
    running = await scene.start_child(session, parent, "running", child_key="running")
    await scene.put_child(parent, "waiting", child_key="waiting")
    late = Parent(parent.id, parent.fence)
    await scene.crash(stopped)
    ids = scene.ids("running", "waiting")
    lost = [
        Cancelled(running.id, State.LEASED, asked=False, lost=True),
        Cancelled(scene.id("waiting"), State.READY, asked=False, lost=True),
    ]
    before = await scene.store.get(ids)
    same(await scene.store.cancel(ids, "too late", [late, late]), lost, "before the next run")
    again = await scene.take(session, "parent")
    same(await scene.store.cancel(ids, "too late", [late, late]), lost, "during the next run")
    same(await scene.store.get(ids), before)
    same((await scene.inbox(session)).cancels, [])
    under = Parent(again.id, again.fence)
    same([answer.lost for answer in await scene.store.cancel(ids, "enough", [under, late])], [False, True])


@case
async def a_parent_that_gave_its_lease_back_leaves_its_children_to_its_next_run(scene: Scene) -> None:
    session = await scene.session()
    for event in (Event.RETRY, Event.RELEASE):
        parent = await scene.start(session, event)
        child = await scene.put_child(parent, f"child of {event}")
        await scene.settle(session, parent, event)
        same(
            await scene.store.cancel([child], "too late", [Parent(parent.id, parent.fence)]),
            [Cancelled(child, State.READY, asked=False, lost=True)],
        )
        same(await scene.state(f"child of {event}"), State.READY)


@case
async def what_a_parent_cancels_may_come_after_the_end_of_its_body(scene: Scene) -> None:
    session = await scene.session()
    for event in (Event.SUCCEED, Event.FAIL, Event.CANCEL):
        parent = await scene.start(session, event)
        child = await scene.put_child(parent, f"child of {event}")
        await scene.settle(session, parent, event)
        same(await scene.state(f"child of {event}"), State.READY)
        same(
            await scene.store.cancel([child], "enough", [Parent(parent.id, parent.fence)]),
            [Cancelled(child, State.CANCELLED, asked=False)],
        )


@case
async def each_cancellation_is_judged_by_its_own_parent(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    right, nobody = Parent(parent.id, parent.fence), Parent(scene.id("nobody"), 1)
    late, early = Parent(parent.id, parent.fence - 1), Parent(parent.id, parent.fence + 1)
    for label in ("a", "b", "c", "d", "e"):
        await scene.put_child(parent, label)
    a, b, c, d, e = scene.ids("a", "b", "c", "d", "e")
    same(
        await scene.store.cancel(
            [a, b, c, d, e, e, scene.id("unknown")], "enough", [right, late, early, nobody, late, None, late]
        ),
        [
            Cancelled(a, State.CANCELLED, asked=False),
            *(Cancelled(id, State.READY, asked=False, lost=True) for id in (b, c, d, e)),
            Cancelled(e, State.CANCELLED, asked=False),
            Cancelled(scene.id("unknown"), None, asked=False),
        ],
    )
    ready, cancelled = State.READY, State.CANCELLED
    same(await scene.states("a", "b", "c", "d", "e"), [cancelled, ready, ready, ready, cancelled])
