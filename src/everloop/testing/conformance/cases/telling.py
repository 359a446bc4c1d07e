"""Telling: the inbox, where every session that waits for an end finds it, once."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Ended, Outcome, Turn
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import Scene


@case
async def the_adding_session_is_told_of_the_end_once(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    await scene.put("apart", session=client)
    in_turn = scene.call("in a turn")
    await scene.store.turn(client, Turn(adds=[in_turn]))
    same(await scene.told(client), [], "nothing has ended yet")
    await scene.end(worker, "apart")
    await scene.end(worker, "in a turn")
    same(await scene.told(worker), [])
    same(await scene.told(client), ["apart", "in a turn"])
    same(await scene.told(client), [])


@case
async def what_is_told_is_the_stored_outcome(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    lease = await scene.start(worker, "work", session=client)
    await scene.settle(worker, lease, Event.RETRY)
    lease = await scene.take(worker, "work")
    await scene.settle(worker, lease, Event.FAIL, value=b"jpart", error=b"jerror")
    (ended,) = (await scene.inbox(client)).ended
    same(ended, Ended(lease.id, State.FAILED, b"jpart", b"jerror", 2))


@case
async def a_session_that_does_not_want_to_be_told_is_not(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    await scene.put("untold", session=client, told=False)
    await scene.put("nobody's")
    await scene.end(worker, "untold")
    await scene.end(worker, "nobody's")
    same(await scene.told(client), [])


@case
async def a_session_is_told_of_what_it_settles_itself(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work", session=session)
    answer = await scene.store.turn(session, Turn(outcomes=[Outcome(lease.id, lease.fence, Event.SUCCEED)]))
    told = [ended.id for ended in answer.ended + (await scene.inbox(session)).ended]
    same(told, [lease.id], "told in this turn or in the next, once")


@case
async def a_session_is_told_once_however_often_it_asked(scene: Scene) -> None:
    session, worker = await scene.session(), await scene.session()
    call = scene.call("work")
    await scene.add(call, session=session)
    await scene.add(call, session=session)
    same(await scene.store.wait(session, [call.id, call.id]), [])
    same(await scene.store.wait(session, [call.id]), [])
    await scene.end(worker, "work")
    same(await scene.told(session), ["work"])
    same(await scene.told(session), [])


@case
async def a_session_is_told_once_of_its_own_settlement_however_often_it_asked(scene: Scene) -> None:
    session = await scene.session()
    call = scene.call("work")
    await scene.add(call, session=session)
    await scene.store.wait(session, [call.id])
    lease = await scene.take(session, "work")
    answer = await scene.store.turn(session, Turn(outcomes=[Outcome(lease.id, lease.fence, Event.SUCCEED)]))
    told = [ended.id for ended in answer.ended + (await scene.inbox(session)).ended]
    same(told, [call.id])


@case
async def every_waiting_session_is_told(scene: Scene) -> None:
    sessions = [await scene.session() for _ in range(3)]
    worker = await scene.session()
    await scene.put("work", session=sessions[0])
    same(await scene.store.wait(sessions[1], scene.ids("work")), [])
    await scene.add(scene.call("work"), session=sessions[2])
    await scene.end(worker, "work")
    for session in sessions:
        same(await scene.told(session), ["work"])


@case
async def waiting_for_a_call_that_has_ended_tells_at_once(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    await scene.put("work")
    await scene.end(worker, "work")
    same(await scene.store.wait(client, scene.ids("work")), [])
    same(await scene.told(client), ["work"])
    same(await scene.told(client), [])
    await scene.store.wait(client, scene.ids("work"))
    same(await scene.told(client), ["work"], "asked again, told again")


@case
async def waiting_answers_the_unknown_ids(scene: Scene) -> None:
    client = await scene.session("client")
    await scene.put("work")
    work, nobody, other = scene.ids("work", "nobody", "other")
    same(await scene.store.wait(client, [nobody, work, other]), [nobody, other])
    same(await scene.store.wait(client, []), [])


@case
async def adding_a_call_that_has_ended_tells_of_it(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    call = scene.call("work")
    await scene.add(call)
    await scene.end(worker, "work")
    answer = await scene.store.turn(client, Turn(adds=[call]))
    told = [ended.id for ended in answer.ended + (await scene.inbox(client)).ended]
    same(told, [call.id], "told in this turn or in the next, once")
    await scene.add(call, session=client)
    same(await scene.told(client), ["work"])
    await scene.add(scene.call("work", told=False), session=client)
    same(await scene.told(client), [])


@case
async def a_long_inbox_comes_in_parts(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    calls = [scene.call(f"{i}", "work") for i in range(2_500)]
    await scene.add(*calls, session=client)
    leased = await scene.lease(worker, "work", room=2_500)
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]
    same(set((await scene.store.turn(worker, Turn(outcomes=outcomes))).settled), {True})
    first = await scene.inbox(client)
    holds(len(first.ended) <= 2_000, "an answer holds at most 2,000 ends")
    holds(first.more, "the first answer says that there is more")
    told = [ended.id for ended in first.ended]
    while first.more:
        first = await scene.inbox(client)
        told += [ended.id for ended in first.ended]
    same(sorted(told), sorted(call.id for call in calls), "every end once")


@case
async def an_end_is_told_only_after_it_is_stored(scene: Scene) -> None:
    client, worker = await scene.session("client"), await scene.session()
    await scene.put("first", session=client, callbacks=(scene.call("second"),))
    await scene.end(worker, "first")
    (ended,) = (await scene.inbox(client)).ended
    same((ended.state, await scene.state("first")), (State.SUCCEEDED, State.SUCCEEDED))


@case
async def an_end_beside_a_cancellation_is_told_wherever_a_part_of_the_inbox_ends(scene: Scene) -> None:
    session, worker = await scene.session(), await scene.session()
    await scene.add(*(scene.call(f"{i}", "work") for i in range(2_000)), session=session)
    leased = await scene.lease(session, "work", room=2_000)
    await scene.store.cancel([leased[-1].id])
    outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]
    await scene.store.turn(worker, Turn(outcomes=outcomes))
    told = [ended.id for _ in range(3) for ended in (await scene.inbox(session)).ended]
    same(sorted(told), sorted(lease.id for lease in leased), "every end once")
