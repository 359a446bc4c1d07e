"""Keeping: what goes when it is kept for too long, and what stays all the same."""

from __future__ import annotations

from typing import Any

from everloop._core.calls import Event, State
from everloop._core.keeping import Pruned, Pruning
from everloop._core.records import Added, CallFilter, KeyRule, Outcome, Parent, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import APP, MINUTE, SECOND, Scene

HOUR = 60 * MINUTE


async def _prune(scene: Scene, **limits: Any) -> Pruned:
    """Make a whole sweep; the answer counts all that went."""
    request: Pruning | None = Pruning(app=limits.pop("app", APP), **limits)
    calls = results = 0
    while request is not None:
        done = await scene.store.prune(request)
        calls, results, request = calls + done.calls, results + done.results, done.next
    return Pruned(calls, results)


async def _ended(scene: Scene, label: str, event: Event = Event.SUCCEED, **rest: Any) -> None:
    """Add a call, and let it end; long ago, once the hour has passed that `_pass` lets pass."""
    session = await scene.session()
    await scene.settle(session, await scene.start(session, label, **rest), event, value=b"jvalue")


def _all(**rest: Any) -> CallFilter:
    return CallFilter(app=APP, **rest)


def _pass(scene: Scene) -> None:
    scene.clock.advance(HOUR / SECOND)


@case
async def a_call_that_ended_too_long_ago_goes(scene: Scene) -> None:
    await _ended(scene, "old")
    scene.clock.advance(1)
    await _ended(scene, "young")
    scene.clock.advance(HOUR / SECOND - 1)
    same(await _prune(scene, calls=HOUR), Pruned(1))
    holds(await scene.missing("old"), "the old call is gone")
    same(await scene.state("young"), State.SUCCEEDED)
    same(await _prune(scene, calls=HOUR), Pruned(0))
    same([call.id for call in await scene.store.find(_all())], [scene.id("young")])
    same((await scene.store.counts(APP))["succeeded"], 1)


@case
async def calls_that_did_not_succeed_are_kept_as_long_as_they_are_to_be(scene: Scene) -> None:
    await _ended(scene, "succeeded")
    await _ended(scene, "failed", Event.FAIL)
    await _ended(scene, "cancelled", Event.CANCEL)
    await scene.put("expired", expires=SECOND)
    scene.clock.advance(1)
    await scene.lease(await scene.session(), "nothing")
    _pass(scene)
    same(await _prune(scene, calls=HOUR, failed=2 * HOUR), Pruned(1))
    same(await scene.states("failed", "expired"), [State.FAILED, State.EXPIRED])
    _pass(scene)
    same(await _prune(scene, calls=HOUR, failed=2 * HOUR), Pruned(3))


@case
async def without_a_limit_all_is_kept(scene: Scene) -> None:
    await _ended(scene, "succeeded")
    await _ended(scene, "failed", Event.FAIL)
    _pass(scene)
    same(await _prune(scene), Pruned())
    same(await _prune(scene, calls=HOUR), Pruned(1))
    same(await scene.state("failed"), State.FAILED)


@case
async def what_lives_stays(scene: Scene) -> None:
    session = await scene.session(lease=10 * HOUR)
    await scene.put("first")
    await scene.put("waiting", after=scene.id("first"))
    await scene.put("scheduled", delay=5 * HOUR)
    await scene.start(session, "leased")
    _pass(scene)
    same(await _prune(scene, calls=0, failed=0, count=0), Pruned())


@case
async def with_a_call_goes_all_that_belongs_to_it(scene: Scene) -> None:
    session = await scene.session()
    call = scene.call("work", key=KeyRule("k", "ever"), tags=("t",), policy=b"{}")
    await scene.add(call)
    lease = await scene.take(session, "work")
    await scene.settle(session, lease, Event.RETRY, error=b"jerror")
    await scene.settle(session, await scene.take(session, "work"), value=b"jvalue")
    _pass(scene)
    same(await _prune(scene, calls=HOUR), Pruned(1))
    same(await scene.store.runs([call.id]), [[]])
    same(await scene.store.wait(session, [call.id]), [call.id], "the ids that are not known")
    same(await scene.add(call), [Added(call.id)], "the same id, which is free")
    seen = await scene.see("work")
    same((seen.state, seen.attempt, seen.value, seen.created), (State.READY, 0, None, scene.clock.now()))
    same(await scene.store.runs([call.id]), [[]])


@case
async def a_key_is_free_once_its_call_is_gone(scene: Scene) -> None:
    for among in ("done", "ever"):
        rule = KeyRule(among, among, "raise")
        await _ended(scene, f"first {among}", fn=among, key=rule)
        again = scene.call(f"second {among}", among, key=rule)
        same(await scene.add(again), [Added(scene.id(f"first {among}"), "refused", "key")])
        _pass(scene)
        same(await _prune(scene, calls=HOUR), Pruned(1))
        same(await scene.add(again), [Added(again.id)])


@case
async def no_child_goes_before_its_root(scene: Scene) -> None:
    session = await scene.session(lease=10 * HOUR)
    root = await scene.start(session, "root")
    await scene.settle(session, await scene.start_child(session, root, "succeeded"), value=b"jvalue")
    child = await scene.start_child(session, root, "failed")
    await scene.settle(session, await scene.start_child(session, child, "grandchild"), value=b"jvalue")
    await scene.settle(session, child, Event.FAIL)
    _pass(scene)
    same(await _prune(scene, calls=0, failed=0, results=0, count=0), Pruned(), "while the root lives")
    same((await scene.see("succeeded")).value, b"jvalue")
    await scene.settle(session, root, Event.FAIL)
    _pass(scene)
    same(await _prune(scene, calls=HOUR), Pruned(), "while the root is kept")
    same(await _prune(scene, calls=HOUR, failed=HOUR), Pruned(4))


@case
async def a_child_may_be_kept_longer_than_its_root(scene: Scene) -> None:
    session = await scene.session()
    root = await scene.start(session, "root")
    await scene.settle(session, await scene.start_child(session, root, "child"), Event.FAIL)
    await scene.settle(session, root)
    _pass(scene)
    same((await scene.see("child")).parent, scene.id("root"))
    same(await _prune(scene, calls=HOUR, failed=2 * HOUR), Pruned(1))
    seen = await scene.see("child")
    same((seen.parent, seen.depth, seen.owned), (None, 1, True), "what is left of the parent")
    same(await scene.store.find(_all(parent=scene.id("root"))), [])
    _pass(scene)
    same(await _prune(scene, calls=HOUR, failed=2 * HOUR), Pruned(1))


@case
async def what_a_live_parent_may_ask_for_again_stays(scene: Scene) -> None:
    session = await scene.session(lease=10 * HOUR)
    root = await scene.start(session, "root")
    parent = await scene.start_child(session, root, "parent", owned=False)
    await scene.settle(session, root)
    lease = await scene.start_child(session, parent, "child", child_key="c")
    await scene.settle(session, lease, value=b"jvalue")
    _pass(scene)
    same(await _prune(scene, calls=0, results=0), Pruned(1), "the root alone")
    await scene.settle(session, parent, Event.RETRY)
    parent = await scene.take(session, "parent")
    again = scene.call(
        "again", "child", args=b"jchild", parent=Parent(parent.id, parent.fence), child_key="c"
    )
    same(await scene.add(again), [Added(scene.id("child"), "exists")])
    same((await scene.see("child")).value, b"jvalue")
    await scene.settle(session, parent)
    _pass(scene)
    same(await _prune(scene, calls=0), Pruned(2))


@case
async def a_call_stays_until_its_callbacks_have_ended(scene: Scene) -> None:
    session = await scene.session()
    await _ended(scene, "work", callbacks=(scene.call("callback"),))
    _pass(scene)
    same(await _prune(scene, calls=0, results=0), Pruned())
    same((await scene.see("work")).value, b"jvalue")
    await scene.end(session, "callback")
    same(await _prune(scene, calls=0), Pruned(2))
    late = scene.call("late", after=scene.id("work"))
    same(await scene.add(late), [Added(late.id, "refused", "after")])


@case
async def a_call_stays_until_who_waits_for_it_has_been_told(scene: Scene) -> None:
    client, worker = await scene.session("client", lease=10 * HOUR), await scene.session()
    lease = await scene.start(worker, "work", session=client)
    await scene.settle(worker, lease, value=b"jvalue")
    _pass(scene)
    same(await _prune(scene, calls=0, results=0), Pruned())
    (ended,) = (await scene.inbox(client)).ended
    same((ended.id, ended.value), (lease.id, b"jvalue"))
    same(await _prune(scene, calls=0), Pruned(1))


@case
async def of_too_many_the_oldest_go_but_none_that_has_just_ended(scene: Scene) -> None:
    await scene.put("live")
    for label in ("first", "second", "third"):
        await _ended(scene, label)
    same(await _prune(scene, count=1), Pruned())
    scene.clock.advance(60)
    same(await _prune(scene, count=1), Pruned(2))
    same(await scene.states("third", "live"), [State.SUCCEEDED, State.READY])
    same(await _prune(scene, count=1), Pruned())
    same(await _prune(scene, count=0), Pruned(1))


@case
async def values_may_go_earlier_than_their_calls(scene: Scene) -> None:
    await _ended(scene, "work")
    await _ended(scene, "failed", Event.FAIL)
    _pass(scene)
    same(await _prune(scene, results=HOUR, calls=2 * HOUR), Pruned(0, 2))
    seen = await scene.see("work")
    same((seen.state, seen.value, seen.args), (State.SUCCEEDED, None, b"jwork"))
    same(await _prune(scene, results=HOUR, calls=2 * HOUR), Pruned())


@case
async def calls_of_other_apps_stay(scene: Scene) -> None:
    await _ended(scene, "mine")
    await _ended(scene, "theirs", app="other app")
    _pass(scene)
    same(await _prune(scene, calls=0, count=0), Pruned(1))
    same(await scene.state("theirs"), State.SUCCEEDED)
    same(await _prune(scene, app="other app", count=0), Pruned(1))
    same(await _prune(scene, app="no app", calls=0), Pruned())


@case
async def a_sweep_is_not_begun_when_another_one_has_just_begun(scene: Scene) -> None:
    await _ended(scene, "work")
    _pass(scene)
    same(await _prune(scene, calls=2 * HOUR, every=MINUTE), Pruned())
    scene.clock.advance(59)
    same(await _prune(scene, calls=HOUR, every=MINUTE), Pruned())
    scene.clock.advance(1)
    same(await _prune(scene, calls=HOUR, every=MINUTE), Pruned(1))


@case
async def who_keeps_everything_begins_no_sweep_and_holds_up_nobody_elses(scene: Scene) -> None:
    await _ended(scene, "work")
    _pass(scene)
    same(await _prune(scene, every=MINUTE), Pruned())
    same(await scene.store.swept(APP), None)
    same(await _prune(scene, calls=HOUR, every=MINUTE), Pruned(1))
    same(await scene.store.swept(APP), scene.clock.now())


@case
async def thousands_go_page_by_page(scene: Scene) -> None:
    session = await scene.session(lease=10 * HOUR)
    labels = [f"call {i}" for i in range(1_300)]
    await scene.add(*(scene.call(label, "work") for label in labels))
    leased = await scene.lease(session, "work", room=1_300)
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased if lease is not leased[700]]
    await scene.store.turn(session, Turn(outcomes=outcomes))
    _pass(scene)
    same(await _prune(scene, calls=HOUR), Pruned(1_299))
    same(await scene.states("call 700"), [State.LEASED])
    same((await scene.store.counts(APP))["succeeded"], 0)
