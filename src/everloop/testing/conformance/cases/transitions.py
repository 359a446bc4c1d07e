"""The transition table, pair by pair: what it allows happens, what it does not changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from everloop._core.calls import TRANSITIONS, Event, State
from everloop._core.records import Leased, Outcome, Turn
from everloop.testing.conformance.case import CASES, Case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import SECOND, Scene

HOUR = 3600 * SECOND


@dataclass
class Stage:
    """A call `x` in some state, with all that an event may need.

    Attributes:
        first: The lease of the call that `x` comes after.
        keeper: A session that lives on.
        holder: The session that leases `x`, and that dies when it is reaped.
    """

    scene: Scene
    first: Leased
    keeper: int
    holder: int


async def _reach(scene: Scene, state: State) -> Stage:
    """Bring `x` into `state`, by verbs."""
    keeper, holder = await scene.session(lease=10 * HOUR), await scene.session(lease=10 * HOUR)
    first = await scene.start(keeper, "first")
    due = scene.clock.now() + (10 * SECOND if state is State.SCHEDULED else 0)
    await scene.put("x", after=first.id, due=due, expires=HOUR)
    stage = Stage(scene, first, keeper, holder)
    if state is not State.WAITING:
        await scene.settle(keeper, first)
    match state:
        case State.WAITING | State.SCHEDULED | State.READY:
            pass
        case State.LEASED:
            await scene.take(holder, "x")
        case State.SUCCEEDED:
            await scene.settle(holder, await scene.take(holder, "x"))
        case State.FAILED:
            await scene.settle(holder, await scene.take(holder, "x"), Event.FAIL)
        case State.CANCELLED:
            await scene.store.cancel(scene.ids("x"))
        case State.EXPIRED:
            scene.clock.advance(3600)
            await scene.lease(keeper, "nothing")
    same(await scene.state("x"), state, "the state to begin with")
    return stage


async def _happen(stage: Stage, state: State, event: Event) -> bool | None:
    """Try to make `event` happen to `x`; a settlement's answer is returned."""
    scene = stage.scene
    seen = await scene.see("x")
    match event:
        case Event.WAKE:
            await scene.settle(stage.keeper, stage.first)
        case Event.DUE:
            scene.clock.advance(10)
            await scene.lease(stage.keeper, "nothing", room=0)
        case Event.LEASE:
            await scene.lease(stage.keeper, "x")
        case Event.EXPIRE:
            scene.clock.advance(3600)
            await scene.lease(stage.keeper, "nothing", room=0)
        case Event.REAP:
            await scene.crash(stage.holder)
        case Event.CANCEL if state is not State.LEASED:
            await scene.store.cancel([seen.id])
        case Event.SUCCEED | Event.FAIL | Event.RETRY | Event.RELEASE | Event.CANCEL:
            outcome = Outcome(seen.id, seen.fence, event, delay=SECOND)
            return (await scene.store.turn(stage.keeper, Turn(outcomes=[outcome]))).settled[0]
    return None


async def _pair(scene: Scene, state: State, event: Event) -> None:
    stage = await _reach(scene, state)
    before = await scene.see("x")
    answer = await _happen(stage, state, event)
    after = await scene.see("x")
    wanted = TRANSITIONS[state].get(event)
    if wanted is None:
        same(after, before, f"what is stored of a {state} call that cannot {event}")
        holds(not answer, f"settling a {state} call by {event} is answered False")
    else:
        same(after.state, wanted, f"the state after {event} of a {state} call")
        holds(after.fence >= before.fence, "the fence does not shrink")
        holds(answer is not False, f"settling a {state} call by {event} is answered True")


CASES.extend(
    Case(
        "transitions",
        f"a {state} call and {event}: {TRANSITIONS[state].get(event, 'nothing happens')}",
        partial(_pair, state=state, event=event),
    )
    for state in State
    for event in Event
)
