"""Cancelling: at once if a call waits, by asking its worker if it runs."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Cancel, Cancelled, Turn
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
