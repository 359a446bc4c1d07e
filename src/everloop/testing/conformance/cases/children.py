"""Children: added under their parent's lease, re-used by its next run, cancelled with it."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Added, KeyRule, Leased, Outcome, Parent, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import SECOND, Scene


async def _again(scene: Scene, session: int, parent: Leased) -> Leased:
    """Give the parent back and lease it again: its next run."""
    await scene.settle(session, parent, Event.RELEASE)
    return await scene.take(session, scene.label(parent.id))


@case
async def a_child_needs_its_parents_current_fence(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("idle")
    lease = await scene.start(session, "parent")
    other = await scene.start(session, "ended")
    await scene.settle(session, other)
    for label, parent in {
        "stale": Parent(lease.id, lease.fence - 1),
        "early": Parent(lease.id, lease.fence + 1),
        "unknown": Parent(scene.id("nobody"), 1),
        "not running": Parent(scene.id("idle"), 0),
        "over": Parent(other.id, other.fence),
    }.items():
        child = scene.call(label, parent=parent, owned=True)
        same(await scene.add(child), [Added(child.id, "lost")], f"a child of a parent that is {label}")
        holds(await scene.missing(label), "a lost child is not stored")
    await scene.put_child(lease, "child")


@case
async def repeating_a_child_under_a_lost_lease_is_lost(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "parent")
    child = scene.call("child", parent=Parent(lease.id, lease.fence), owned=True)
    await scene.add(child)
    await _again(scene, session, lease)
    same(await scene.add(child), [Added(child.id, "lost")])
    same(await scene.state("child"), State.READY)


@case
async def a_child_inherits_priority_and_counts_its_depth(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent", priority=3)
    child = await scene.start_child(session, parent, "child")
    await scene.put_child(child, "grandchild")
    await scene.put_child(child, "modest grandchild", priority=0)
    await scene.put_child(child, "detached grandchild", owned=False)
    seen = [await scene.see(f"{kind}grandchild") for kind in ("", "modest ", "detached ")]
    same([(s.priority, s.depth, s.owned) for s in seen], [(3, 2, True), (0, 2, True), (3, 2, False)])
    same({s.parent for s in seen}, {child.id})
    same((child.priority, child.depth), (3, 1))


@case
async def a_rerun_parent_gets_the_child_that_succeeded(scene: Scene) -> None:
    session, client = await scene.session(), await scene.session()
    parent = await scene.start(session, "parent")
    child = await scene.start_child(session, parent, "child", child_key="c")
    await scene.settle(session, child, value=b"jvalue")
    parent = await _again(scene, session, parent)
    again = scene.call("again", "child", parent=Parent(parent.id, parent.fence), owned=True, child_key="c")
    same(await scene.add(again, session=client), [Added(child.id, "exists")])
    (ended,) = (await scene.inbox(client)).ended
    same((ended.id, ended.state, ended.value), (child.id, State.SUCCEEDED, b"jvalue"))
    holds(await scene.missing("again"), "no second child is stored")


@case
async def a_child_that_is_used_again_keeps_its_callbacks_and_gets_no_others(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "parent")
    for run, label in enumerate(("first", "second", "third"), 1):
        parent = Parent(lease.id, lease.fence)
        callback = scene.call(f"after {label}")
        child = scene.call(label, "work", parent=parent, child_key="a", callbacks=(callback,))
        answer = Added(scene.id("first"), "added" if run == 1 else "exists")
        same(await scene.add(child), [answer], f"run {run}")
        if run == 2:
            await scene.end(session, "first")
        lease = await _again(scene, session, lease)
    same(await scene.state("after first"), State.READY)
    for label in ("after second", "after third"):
        holds(await scene.missing(label), f"{label} is not stored")


@case
async def a_rerun_parent_attaches_to_the_child_that_lives(scene: Scene) -> None:
    session, client = await scene.session(), await scene.session()
    parent = await scene.start(session, "parent")
    await scene.put_child(parent, "queued", child_key="q")
    running = await scene.start_child(session, parent, "running", child_key="r")
    parent = await _again(scene, session, parent)
    under = Parent(parent.id, parent.fence)
    answers = await scene.add(
        scene.call("queued again", "queued", parent=under, owned=True, child_key="q"),
        scene.call("running again", "running", parent=under, owned=True, child_key="r"),
        session=client,
    )
    same(answers, [Added(scene.id("queued"), "exists"), Added(scene.id("running"), "exists")])
    await scene.settle(session, running)
    same(await scene.told(client), ["running"])


@case
async def a_rerun_parent_gets_a_new_child_for_one_that_did_not_succeed(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    for key in ("failed", "cancelled", "expired"):
        await scene.put_child(
            parent, f"{key} child", child_key=key, expires=SECOND if key == "expired" else None
        )
    await scene.settle(session, await scene.take(session, "failed child"), Event.FAIL)
    await scene.store.cancel(scene.ids("cancelled child"))
    scene.clock.advance(1)
    parent = await _again(scene, session, parent)
    for key in ("failed", "cancelled", "expired"):
        same(await scene.state(f"{key} child"), State(key))
        await scene.put_child(parent, f"{key} again", child_key=key)


@case
async def a_rerun_parent_gets_a_new_child_for_one_that_was_asked_to_cancel(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    slow = await scene.start_child(session, parent, "slow", child_key="c")
    deaf = await scene.start_child(session, parent, "deaf", child_key="d")
    asked = [Parent(parent.id, parent.fence)] * 2
    for answer in await scene.store.cancel([slow.id, deaf.id], "", asked):
        holds(answer.asked and not answer.lost, "its worker is asked")
    holds(await scene.settle(session, deaf, value=b"jvalue"), "it succeeds all the same")
    parent = await _again(scene, session, parent)
    await scene.put_child(parent, "new", child_key="c")
    call = scene.call("heard", "deaf", parent=Parent(parent.id, parent.fence), owned=True, child_key="d")
    same(await scene.add(call), [Added(deaf.id, "exists")], "its value is there, and is used again")
    await scene.settle(session, slow, Event.CANCEL)
    same(await scene.states("slow", "new"), [State.CANCELLED, State.READY])
    await scene.settle(session, parent)
    same(await scene.state("new"), State.READY, "its last run has asked for it")


@case
async def the_newest_generation_of_a_child_counts(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    await scene.settle(session, await scene.start_child(session, parent, "old", child_key="c"), Event.FAIL)
    parent = await _again(scene, session, parent)
    await scene.put_child(parent, "new", child_key="c")
    await scene.end(session, "new")
    parent = await _again(scene, session, parent)
    call = scene.call("third", parent=Parent(parent.id, parent.fence), child_key="c")
    same(await scene.add(call), [Added(scene.id("new"), "exists")])


@case
async def children_of_other_parents_or_without_identity_are_never_reused(scene: Scene) -> None:
    session = await scene.session()
    one = await scene.start(session, "one")
    await scene.put_child(one, "child of one", child_key="c")
    await scene.put_child(one, "fresh")
    one = await _again(scene, session, one)
    two = await _again(scene, session, await scene.start(session, "two"))
    await scene.put_child(two, "child of two", child_key="c")
    await scene.put_child(one, "fresh again")


@case
async def children_that_the_last_run_did_not_ask_for_are_cancelled_when_it_ends(scene: Scene) -> None:
    session = await scene.session()
    for event in (Event.SUCCEED, Event.FAIL, Event.CANCEL):
        parent = await scene.start(session, f"{event}")
        await scene.put_child(parent, f"{event} kept", child_key="kept")
        await scene.put_child(parent, f"{event} dropped", child_key="dropped")
        await scene.put_child(parent, f"{event} detached", child_key="detached", owned=False)
        parent = await _again(scene, session, parent)
        kept = scene.call("x", parent=Parent(parent.id, parent.fence), owned=True, child_key="kept")
        same(await scene.add(kept), [Added(scene.id(f"{event} kept"), "exists")])
        await scene.put_child(parent, f"{event} new")
        await scene.settle(session, parent, event)
        labels = [f"{event} {kind}" for kind in ("kept", "new", "detached", "dropped")]
        same(await scene.states(*labels), [State.READY, State.READY, State.READY, State.CANCELLED])


@case
async def children_of_an_only_run_live_on_when_it_ends(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    await scene.put_child(parent, "child")
    await scene.settle(session, parent)
    same(await scene.state("child"), State.READY)
    await scene.end(session, "child")


@case
async def children_that_come_with_the_end_of_their_parent_are_added_and_live_on(scene: Scene) -> None:
    session = await scene.session()
    for event in (Event.SUCCEED, Event.FAIL, Event.RETRY):
        parent = await scene.start(session, event)
        child = scene.call(
            f"child of {event}", parent=Parent(parent.id, parent.fence), owned=True, child_key="c"
        )
        outcome = Outcome(parent.id, parent.fence, event)
        answer = await scene.store.turn(session, Turn(outcomes=[outcome], adds=[child]))
        same((answer.added, answer.settled), ([Added(child.id)], [True]))
        same(await scene.state(f"child of {event}"), State.READY)


@case
async def a_child_that_is_asked_for_by_id_or_key_again_is_kept(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    await scene.put_child(parent, "by id")
    await scene.put_child(parent, "by key", "keyed", key=KeyRule("k"))
    await scene.put_child(parent, "dropped")
    parent = await _again(scene, session, parent)
    under = Parent(parent.id, parent.fence)
    answers = await scene.add(
        scene.call("by id", parent=under, owned=True),
        scene.call("by key again", "keyed", parent=under, owned=True, key=KeyRule("k")),
    )
    same([answer.status for answer in answers], ["exists", "exists"])
    await scene.settle(session, parent)
    same(await scene.states("by id", "by key", "dropped"), [State.READY, State.READY, State.CANCELLED])


@case
async def asking_for_a_strangers_child_does_not_adopt_it(scene: Scene) -> None:
    session = await scene.session()
    stranger = await scene.start(session, "stranger")
    await scene.put_child(stranger, "child", "keyed", key=KeyRule("k"))
    stranger = await _again(scene, session, stranger)
    parent = await scene.start(session, "parent")
    parent = await _again(scene, session, parent)
    parent = await _again(scene, session, parent)
    joining = scene.call("x", "keyed", parent=Parent(parent.id, parent.fence), owned=True, key=KeyRule("k"))
    same(await scene.add(joining), [Added(scene.id("child"), "exists")])
    await scene.settle(session, stranger)
    same(await scene.state("child"), State.CANCELLED)


@case
async def a_running_child_that_nobody_asks_for_is_asked_to_cancel(scene: Scene) -> None:
    session, other = await scene.session(), await scene.session()
    parent = await scene.start(session, "parent")
    child = await scene.start_child(other, parent, "child")
    parent = await _again(scene, session, parent)
    await scene.settle(session, parent)
    same(await scene.state("child"), State.LEASED)
    same([(c.id, c.fence) for c in (await scene.inbox(other)).cancels], [(child.id, child.fence)])


@case
async def children_of_a_call_that_is_cancelled_while_it_waits_are_cancelled(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    child = await scene.start_child(session, parent, "child")
    await scene.put_child(child, "grandchild")
    await scene.put_child(child, "detached", owned=False)
    await scene.settle(session, child, Event.RELEASE)
    await scene.settle(session, parent, Event.RELEASE)
    await scene.store.cancel(scene.ids("parent"))
    same(await scene.states("parent", "child", "grandchild"), [State.CANCELLED] * 3)
    same(await scene.state("detached"), State.READY)
    same((await scene.see("grandchild")).fence, 1)


@case
async def children_of_a_call_that_expires_or_crashes_are_cancelled(scene: Scene) -> None:
    session, dying = await scene.session(), await scene.session()
    expiring = await scene.start(session, "expiring", expires=10 * SECOND)
    await scene.put_child(expiring, "child of expiring")
    await scene.settle(session, expiring, Event.RELEASE)
    crashing = await scene.start(dying, "crashing", crash_limit=0)
    await scene.put_child(crashing, "child of crashing")
    asked = await scene.start(dying, "asked")
    await scene.put_child(asked, "child of asked")
    await scene.store.cancel([asked.id])
    await scene.crash(dying)
    scene.clock.advance(9)
    await scene.lease(session, "nothing")
    same(await scene.states("expiring", "crashing", "asked"), [State.EXPIRED, State.FAILED, State.CANCELLED])
    same(
        await scene.states(*(f"child of {x}" for x in ("expiring", "crashing", "asked"))),
        [State.CANCELLED] * 3,
    )


@case
async def children_of_a_call_that_is_given_back_after_it_was_asked_to_cancel_are_cancelled(
    scene: Scene,
) -> None:
    session, leaving = await scene.session(), await scene.session()
    for label, holder in (("released", session), ("closed", leaving)):
        parent = await scene.start(holder, label)
        await scene.put_child(parent, f"child of {label}")
        await scene.store.cancel([parent.id])
        if holder == session:
            await scene.settle(session, parent, Event.RELEASE)
    await scene.store.close_session(leaving)
    same(await scene.states("released", "closed"), [State.CANCELLED] * 2)
    same(await scene.states("child of released", "child of closed"), [State.CANCELLED] * 2)


@case
async def a_body_that_raises_after_it_was_asked_to_cancel_keeps_what_it_asked_for(scene: Scene) -> None:
    session = await scene.session()
    parent = await scene.start(session, "parent")
    await scene.put_child(parent, "dropped")
    parent = await _again(scene, session, parent)
    await scene.put_child(parent, "kept")
    await scene.store.cancel([parent.id])
    await scene.settle(session, parent, Event.RETRY)
    same(await scene.states("parent", "kept", "dropped"), [State.CANCELLED, State.READY, State.CANCELLED])


@case
async def the_end_of_a_cancelled_child_is_told_and_starts_its_callbacks(scene: Scene) -> None:
    session, client = await scene.session(), await scene.session()
    parent = await scene.start(session, "parent")
    child = scene.call(
        "child", parent=Parent(parent.id, parent.fence), owned=True, callbacks=(scene.call("next"),)
    )
    await scene.add(child, session=client)
    await scene.settle(session, parent, Event.RELEASE)
    await scene.store.cancel([parent.id])
    same(await scene.told(client), ["child"])
    same(await scene.state("next"), State.READY)


@case
async def a_chain_of_hundreds_of_generations_is_cancelled_at_once(scene: Scene) -> None:
    session = await scene.session()
    leases = [await scene.start(session, "0")]
    for depth in range(1, 400):
        leases.append(await scene.start_child(session, leases[-1], f"{depth}"))
    same(leases[-1].depth, 399)
    await scene.store.close_session(session)
    await scene.store.cancel(scene.ids("0"))
    counts = await scene.store.counts()
    same(counts["cancelled"], 400)
