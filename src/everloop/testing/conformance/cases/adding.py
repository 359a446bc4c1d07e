"""Adding: calls enter once each, whatever is repeated."""

from __future__ import annotations

from everloop._core.calls import State
from everloop._core.records import Added, KeyRule, Lane, Snapshot, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import APP, SECOND, Scene

#: Payloads as codecs may make them: a letter, then anything.
PAYLOADS = {
    "text": 'j"quoted" \\back\\slash \n line, ünïcode, 😀'.encode(),
    "zero bytes": b"j\x00\x00zero\x00",
    "not text": b"z" + bytes(range(256)),
    "one byte": b"j",
    "large": b"j" + b"0123456789abcdef" * 65_536,
    "looks like null": b"null",
    "looks like a number": b"1",
}


@case
async def an_added_call_is_stored_whole(scene: Scene) -> None:
    now = scene.clock.now()
    call = scene.call(
        "whole",
        "send",
        queue="mail",
        policy=b'{"timeout":3}',
        priority=-7,
        expires=90 * SECOND,
        key=KeyRule("k"),
        tags=("a", "ünï"),
        retry_of=scene.id("an earlier one"),
    )
    same(await scene.add(call), [Added(call.id)])
    same(
        await scene.see("whole"),
        Snapshot(
            id=call.id,
            lane=Lane(APP, "mail", "send"),
            state=State.READY,
            args=b"jwhole",
            policy=b'{"timeout":3}',
            priority=-7,
            due=now,
            created=now,
            started=None,
            ended=None,
            expires=now + 90 * SECOND,
            fence=0,
            attempt=0,
            crashes=0,
            crash_limit=5,
            depth=0,
            session=None,
            parent=None,
            owned=False,
            after=None,
            key="k",
            tags=("a", "ünï"),
            retry_of=scene.id("an earlier one"),
            cancel_asked=None,
            value=None,
            error=None,
            progress=None,
        ),
    )


@case
async def payloads_come_back_byte_for_byte(scene: Scene) -> None:
    session = await scene.session()
    for label, payload in PAYLOADS.items():
        await scene.put(label, args=payload, policy=payload)
        seen = await scene.see(label)
        holds((seen.args, seen.policy) == (payload, payload), f"{label}: stored as given")
        lease = await scene.take(session, label)
        holds((lease.args, lease.policy) == (payload, payload), f"{label}: leased as given")
        await scene.settle(session, lease, value=payload, error=payload)
        seen = await scene.see(label)
        holds((seen.value, seen.error) == (payload, payload), f"{label}: the outcome as given")


@case
async def a_call_waits_for_its_due_instant_or_delay(scene: Scene) -> None:
    now = scene.clock.now()
    await scene.put("due", due=now + SECOND)
    await scene.put("delayed", delay=2 * SECOND)
    await scene.put("overdue", due=now - SECOND)
    await scene.put("due now", due=now)
    same([(await scene.see(label)).due - now for label in ("due", "delayed")], [SECOND, 2 * SECOND])
    same(await scene.states("due", "delayed"), [State.SCHEDULED, State.SCHEDULED])
    same(await scene.states("overdue", "due now"), [State.READY, State.READY])
    same((await scene.see("overdue")).due, now - SECOND)


@case
async def adding_twice_is_adding_once(scene: Scene) -> None:
    call = scene.call("same", delay=SECOND)
    same(await scene.add(call), [Added(call.id)])
    before = await scene.see("same")
    scene.clock.advance(5)
    same(await scene.add(call), [Added(call.id, "exists")])
    same(await scene.see("same"), before)


@case
async def adding_a_leased_or_finished_call_again_changes_nothing(scene: Scene) -> None:
    session = await scene.session()
    call = scene.call("same")
    await scene.add(call)
    lease = await scene.take(session, "same")
    before = await scene.see("same")
    same(await scene.add(call), [Added(call.id, "exists")])
    same(await scene.see("same"), before)
    await scene.settle(session, lease)
    before = await scene.see("same")
    same(await scene.add(call), [Added(call.id, "exists")])
    same(await scene.see("same"), before)


@case
async def an_id_of_another_function_app_or_arguments_is_refused(scene: Scene) -> None:
    id = await scene.put("first", "work")
    before = await scene.see("first")
    for other in (
        scene.call("first", "play"),
        scene.call("first", "work", app="other app"),
        scene.call("first", "work", args=b"jother"),
    ):
        same(await scene.add(other), [Added(id, "refused", "id")])
    same(await scene.see("first"), before)


@case
async def an_id_in_another_queue_with_other_options_is_the_same_call(scene: Scene) -> None:
    id = await scene.put("first", "work")
    before = await scene.see("first")
    same(await scene.add(scene.call("first", "work", queue="slow", priority=9)), [Added(id, "exists")])
    same(await scene.see("first"), before)


@case
async def ids_are_judged_within_one_request_too(scene: Scene) -> None:
    first, again = scene.call("x", "work"), scene.call("x", "work")
    other, neighbour = scene.call("x", "play"), scene.call("y")
    same(
        await scene.add(first, again, other, neighbour),
        [Added(first.id), Added(first.id, "exists"), Added(first.id, "refused", "id"), Added(neighbour.id)],
    )
    same((await scene.see("x")).lane.fn, "work")


@case
async def a_refused_call_does_not_fail_its_neighbours(scene: Scene) -> None:
    await scene.put("taken", "work")
    answers = await scene.add(
        scene.call("before"),
        scene.call("taken", "play"),
        scene.call("dangling", after=scene.id("nobody")),
        scene.call("behind", tags=("t",)),
    )
    same([answer.status for answer in answers], ["added", "refused", "refused", "added"])
    same(await scene.states("before", "behind"), [State.READY, State.READY])


@case
async def adding_nothing_answers_nothing(scene: Scene) -> None:
    same(await scene.add(), [])


@case
async def adding_in_a_turn_is_adding(scene: Scene) -> None:
    session = await scene.session()
    call, other = scene.call("same", "work"), scene.call("same", "play")
    answer = await scene.store.turn(session, Turn(adds=[call, call, other]))
    same([added.status for added in answer.added], ["added", "exists", "refused"])
    answer = await scene.store.turn(session, Turn(adds=[call]))
    same(answer.added, [Added(call.id, "exists")])
    same(await scene.add(call, session=session), [Added(call.id, "exists")])


@case
async def a_call_can_be_leased_in_the_turn_that_adds_it(scene: Scene) -> None:
    session = await scene.session()
    call = scene.call("quick")
    answer = await scene.store.turn(session, Turn(adds=[call], room=1, lanes=(call.lane,)))
    same([(lease.id, lease.fence) for lease in answer.leased], [(call.id, 1)])


@case
async def a_session_that_is_gone_may_still_add(scene: Scene) -> None:
    session, worker = await scene.session(), await scene.session()
    await scene.crash(session)
    call, other = scene.call("in a turn"), scene.call("apart")
    same((await scene.store.turn(session, Turn(adds=[call]))).added, [Added(call.id)])
    same(await scene.add(other, session=session), [Added(other.id)])
    await scene.end(worker, "in a turn")
    await scene.end(worker, "apart")


@case
async def thousands_of_calls_are_added_in_order(scene: Scene) -> None:
    session = await scene.session()
    labels = [f"call {i}" for i in range(3_000)]
    answers = await scene.add(*(scene.call(label, "work") for label in labels))
    same({answer.status for answer in answers}, {"added"})
    leased = await scene.lease(session, "work", room=5_000)
    same([scene.label(lease.id) for lease in leased[:20]], labels[:20])
    same(len(leased), 3_000)


@case
async def a_call_after_an_unknown_one_is_refused(scene: Scene) -> None:
    call = scene.call("dangling", after=scene.id("nobody"))
    same(await scene.add(call), [Added(call.id, "refused", "after")])
    holds(await scene.missing("dangling"), "nothing is stored of a refused call")


@case
async def a_call_after_a_live_one_waits_and_after_a_finished_one_does_not(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("first")
    await scene.put("second", after=scene.id("first"))
    await scene.put("later", after=scene.id("first"), delay=60 * SECOND)
    same(await scene.states("second", "later"), [State.WAITING, State.WAITING])
    await scene.end(session, "first")
    same(await scene.states("second", "later"), [State.READY, State.SCHEDULED])
    await scene.put("third", after=scene.id("first"))
    await scene.put("fourth", after=scene.id("first"), delay=SECOND)
    same(await scene.states("third", "fourth"), [State.READY, State.SCHEDULED])
    same((await scene.see("third")).after, scene.id("first"))
    same((await scene.take(session, "third")).after, scene.id("first"))


@case
async def a_call_may_come_after_one_of_the_same_request(scene: Scene) -> None:
    first, second = scene.call("first"), scene.call("second", after=scene.id("first"))
    same([answer.status for answer in await scene.add(first, second)], ["added", "added"])
    same(await scene.states("first", "second"), [State.READY, State.WAITING])
