"""Keys: names of which only one call may exist among the live, the done, or all."""

from __future__ import annotations

import asyncio

from everloop._core.calls import Event, State
from everloop._core.records import Added, KeyRule
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import Scene

JOIN = KeyRule("k")
RAISE = KeyRule("k", on_conflict="raise")
REPLACE = KeyRule("k", on_conflict="replace")


async def _finish(scene: Scene, label: str, event: Event, key: KeyRule = JOIN) -> None:
    session = await scene.session()
    await scene.settle(session, await scene.start(session, label, fn="work", key=key), event)


@case
async def a_key_joins_the_live_call(scene: Scene) -> None:
    await scene.put("first", "work", key=JOIN)
    again = scene.call("again", "work", key=JOIN, args=b"jother arguments")
    same(await scene.add(again), [Added(scene.id("first"), "exists")])
    holds(await scene.missing("again"), "a joining call is not stored")
    session = await scene.session()
    await scene.take(session, "first")
    same(await scene.add(again), [Added(scene.id("first"), "exists")])


@case
async def a_joining_session_is_told(scene: Scene) -> None:
    first, second, worker = [await scene.session() for _ in range(3)]
    await scene.put("first", "work", key=JOIN, session=first)
    await scene.add(scene.call("again", "work", key=JOIN), session=second)
    await scene.end(worker, "first")
    same(await scene.told(first), ["first"])
    same(await scene.told(second), ["first"])


@case
async def a_key_can_refuse_instead(scene: Scene) -> None:
    await scene.put("first", "work", key=JOIN)
    (answer,) = await scene.add(scene.call("again", "work", key=RAISE))
    same(answer, Added(scene.id("first"), "refused", "key"))
    holds(await scene.missing("again"), "a refused call is not stored")


@case
async def a_replaced_call_is_cancelled_if_it_waits(scene: Scene) -> None:
    client = await scene.session("client")
    await scene.put("first", "work", key=JOIN, session=client)
    await scene.put("second", "work", key=REPLACE)
    same(await scene.states("first", "second"), [State.CANCELLED, State.READY])
    same(await scene.told(client), ["first"])


@case
async def a_replaced_call_is_asked_to_cancel_if_it_runs(scene: Scene) -> None:
    worker = await scene.session()
    lease = await scene.start(worker, "first", fn="work", key=JOIN)
    await scene.put("second", "work", key=REPLACE)
    same(await scene.states("first", "second"), [State.LEASED, State.READY])
    asked = [(cancel.id, cancel.fence) for cancel in (await scene.inbox(worker)).cancels]
    same(asked, [(lease.id, lease.fence)])
    (answer,) = await scene.add(scene.call("third", "work", key=JOIN))
    same(answer, Added(scene.id("second"), "exists"), "the newest is joined")


@case
async def the_session_that_replaces_is_told_of_the_replaced_call(scene: Scene) -> None:
    client = await scene.session("client")
    await scene.put("first", "work", key=JOIN, session=client)
    await scene.put("second", "work", key=REPLACE, session=client)
    same(await scene.told(client), ["first"])


@case
async def a_live_key_is_free_when_its_call_has_ended(scene: Scene) -> None:
    for event in (Event.SUCCEED, Event.FAIL, Event.CANCEL):
        await _finish(scene, f"{event}", event)
    await scene.put("again", "work", key=RAISE)


@case
async def a_done_key_joins_what_succeeded_and_repeats_what_did_not(scene: Scene) -> None:
    for event in (Event.FAIL, Event.CANCEL):
        await _finish(scene, f"{event}", event, KeyRule("k", "done"))
    await _finish(scene, "done", Event.SUCCEED, KeyRule("k", "done"))
    client = await scene.session("client")
    again = scene.call("again", "work", key=KeyRule("k", "done"))
    same(await scene.add(again, session=client), [Added(scene.id("done"), "exists")])
    same(await scene.told(client), ["done"])
    (answer,) = await scene.add(scene.call("raised", "work", key=KeyRule("k", "done", "raise")))
    same((answer.status, answer.reason), ("refused", "key"))
    await scene.put("replacing", "work", key=KeyRule("k", "done", "replace"))
    same(await scene.states("done", "replacing"), [State.SUCCEEDED, State.READY])


@case
async def an_ever_key_joins_whatever_is_kept(scene: Scene) -> None:
    await _finish(scene, "failed", Event.FAIL)
    again = scene.call("again", "work", key=KeyRule("k", "ever"))
    same(await scene.add(again), [Added(scene.id("failed"), "exists")])
    same(await scene.add(scene.call("new", "work", key=JOIN)), [Added(scene.id("new"))])
    same(await scene.add(again), [Added(scene.id("new"), "exists")])


@case
async def a_key_is_of_one_app_and_function_in_all_queues(scene: Scene) -> None:
    await scene.put("first", "work", key=RAISE)
    await scene.put("other function", "play", key=RAISE)
    await scene.put("other app", "work", app="other app", key=RAISE)
    await scene.put("other key", "work", key=KeyRule("K", on_conflict="raise"))
    await scene.put("accented key", "work", key=KeyRule("k\u0301", on_conflict="raise"))
    await scene.put("spaced key", "work", key=KeyRule("k ", on_conflict="raise"))
    await scene.put("no key", "work")
    (answer,) = await scene.add(scene.call("other queue", "work", queue="slow", key=RAISE))
    same(answer.status, "refused")


@case
async def keys_are_judged_within_one_request_too(scene: Scene) -> None:
    answers = await scene.add(
        scene.call("first", "work", key=JOIN),
        scene.call("joining", "work", key=JOIN),
        scene.call("refused", "work", key=RAISE),
        scene.call("replacing", "work", key=REPLACE),
        scene.call("joining too", "work", key=JOIN),
    )
    same([answer.status for answer in answers], ["added", "exists", "refused", "added", "exists"])
    same(answers[4].id, scene.id("replacing"))
    same(await scene.states("first", "replacing"), [State.CANCELLED, State.READY])


@case
async def the_same_id_is_the_same_call_before_any_key_is_judged(scene: Scene) -> None:
    call = scene.call("first", "work", key=RAISE)
    await scene.add(call)
    same(await scene.add(call), [Added(call.id, "exists")])
    replacing = scene.call("second", "work", key=REPLACE)
    await scene.add(replacing)
    same(await scene.add(replacing), [Added(replacing.id, "exists")])
    same(await scene.state("second"), State.READY)


@case
async def requests_at_once_add_one_call_per_key(scene: Scene) -> None:
    calls = [scene.call(f"call {i}", "work", key=JOIN) for i in range(20)]
    answers = await asyncio.gather(*(scene.add(call) for call in calls))
    same(sorted(status for ((_, status, _),) in answers), ["added"] + ["exists"] * 19)
    same(len({id for ((id, _, _),) in answers}), 1, "the number of ids that were answered")
