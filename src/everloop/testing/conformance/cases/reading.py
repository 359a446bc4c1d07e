"""Reading: get, find and count."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.keeping import Pruning
from everloop._core.looks import Backlog, Gauges, SessionLook
from everloop._core.records import CallFilter, Lane, Parent
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import same
from everloop.testing.conformance.scene import APP, MINUTE, SECOND, Scene


async def _found(scene: Scene, filter: CallFilter) -> list[str]:
    return [scene.label(snapshot.id) for snapshot in await scene.store.find(filter)]


async def _some_of_everything(scene: Scene) -> int:
    session = await scene.session()
    parent = await scene.start(session, "leased", tags=("a",))
    await scene.put("ready", "work", queue="slow", tags=("a", "b"), parent=Parent(parent.id, parent.fence))
    await scene.put("scheduled", "work", delay=SECOND, callbacks=(scene.call("waiting", tags=("ab",)),))
    await scene.put("cancelled", app="other app")
    await scene.store.cancel(scene.ids("cancelled"))
    for event in (Event.SUCCEED, Event.FAIL):
        await scene.settle(session, await scene.start(session, event), event)
    return session


@case
async def get_answers_in_the_order_of_the_ids_and_none_for_unknown_ones(scene: Scene) -> None:
    await scene.put("a")
    await scene.put("b")
    a, b, nobody = scene.ids("a", "b", "nobody")
    got = await scene.store.get([b, nobody, a, b])
    same([snapshot and snapshot.id for snapshot in got], [b, None, a, b])
    same(await scene.store.get([]), [])


@case
async def find_shows_the_newest_first(scene: Scene) -> None:
    same(await scene.store.find(CallFilter()), [])
    for label in ("first", "second", "third"):
        await scene.put(label)
    same(await _found(scene, CallFilter()), ["third", "second", "first"])
    same(await scene.store.find(CallFilter(limit=1)), [await scene.see("third")])


@case
async def find_filters_by_everything_at_once(scene: Scene) -> None:
    await _some_of_everything(scene)
    parent = scene.id("leased")
    for filter, wanted in (
        (CallFilter(app="other app"), ["cancelled"]),
        (CallFilter(app=APP, limit=2), ["fail", "succeed"]),
        (CallFilter(states=(State.WAITING, State.SCHEDULED)), ["waiting", "scheduled"]),
        (CallFilter(states=(State.EXPIRED,)), []),
        (CallFilter(queue="slow"), ["ready"]),
        (CallFilter(fn="work"), ["scheduled", "ready"]),
        (CallFilter(tag="a"), ["ready", "leased"]),
        (CallFilter(tag="ab"), ["waiting"]),
        (CallFilter(tag="c"), []),
        (CallFilter(parent=parent), ["ready"]),
        (CallFilter(parent=scene.id("nobody")), []),
        (
            CallFilter(app=APP, states=(State.READY,), queue="slow", fn="work", tag="b", parent=parent),
            ["ready"],
        ),
        (CallFilter(app=APP, states=(State.READY,), queue="default"), []),
    ):
        same(await _found(scene, filter), wanted, f"calls found by {filter}")


@case
async def find_goes_on_after_the_last_one_shown(scene: Scene) -> None:
    for i in range(5):
        await scene.put(f"{i}", "work" if i % 2 == 0 else "play")
    shown: list[str] = []
    before = None
    while page := await scene.store.find(CallFilter(fn="work", limit=2, before=before)):
        shown += [scene.label(snapshot.id) for snapshot in page]
        before = page[-1].id
        await scene.put(f"new {len(shown)}", "work")
    same(shown, ["4", "2", "0"])
    same(await _found(scene, CallFilter(before=scene.id("nobody"))), [])


@case
async def counts_has_every_state_as_a_key(scene: Scene) -> None:
    nothing = {state.value: 0 for state in State}
    same(await scene.store.counts(), nothing)
    await _some_of_everything(scene)
    one_each = {**{state.value: 1 for state in State}, "expired": 0}
    same(await scene.store.counts(), one_each)
    same(await scene.store.counts(APP), {**one_each, "cancelled": 0})
    same(await scene.store.counts(APP, "slow"), {**nothing, "ready": 1})
    same(await scene.store.counts(queue="default"), {**one_each, "ready": 0})
    same(await scene.store.counts("unknown"), nothing)


@case
async def reading_changes_nothing(scene: Scene) -> None:
    session = await _some_of_everything(scene)
    await scene.store.wait(session, scene.ids("succeed"))
    scene.clock.advance(100)
    before = await scene.store.find(CallFilter())
    await scene.store.get([snapshot.id for snapshot in before])
    await scene.store.counts()
    await scene.store.serving(APP)
    same(await scene.store.find(CallFilter()), before)
    same(await scene.told(session), ["succeed"])


@case
async def what_is_ready_is_counted_lane_by_lane(scene: Scene) -> None:
    session = await scene.session()
    same(await scene.store.backlog(), [])
    now = scene.clock.now()
    await scene.put("first", "work", due=now - SECOND)
    await scene.put("second", "work")
    await scene.put("mail", "send", queue="mail")
    await scene.put("other", "work", app="other app")
    await scene.put("scheduled", "later", delay=SECOND)
    await scene.start(session, "leased")
    mine = [
        Backlog(Lane(APP, "default", "work"), 2, now - SECOND),
        Backlog(Lane(APP, "mail", "send"), 1, now),
    ]
    same(await scene.store.backlog(APP), mine)
    same(await scene.store.backlog(), [*mine, Backlog(Lane("other app", "default", "work"), 1, now)])


@case
async def sessions_are_shown_until_they_are_reaped(scene: Scene) -> None:
    now = scene.clock.now()
    client, worker = await scene.session("client"), await scene.session(lease=SECOND)
    await scene.start(worker, "work")
    scene.clock.advance(2)
    shown = [
        SessionLook(client, APP, "client", "here", 1, now, now + MINUTE, 0),
        SessionLook(worker, APP, "worker", "here", 1, now, now + SECOND, 1),
    ]
    same(await scene.store.sessions(APP), shown)
    same(await scene.store.sessions(), shown)
    same(await scene.store.sessions("other app"), [])
    await scene.store.reap()
    same(await scene.store.sessions(), shown[:1])


@case
async def what_a_worker_tells_of_itself_is_kept_until_the_next_renewal(scene: Scene) -> None:
    lanes = [Lane(APP, "mail", "send"), Lane(APP, "default", "work"), Lane(APP, "mail", "sort")]
    await scene.session("client")
    worker = await scene.session(lanes=lanes)

    async def told() -> tuple[tuple[str, ...], Gauges | None]:
        _, look = await scene.store.sessions(APP)
        return look.queues, look.gauges

    same(await told(), (("default", "mail"), None), "it has told nothing yet")
    for gauges in (
        Gauges(memory=1 << 50, lag=1, running=2, slots=3),
        Gauges(memory=5, memory_limit=6, lag=1 << 40, running=0, slots=100_000),
        None,
    ):
        same(await scene.store.renew(worker, MINUTE, gauges), wanted=True)
        same(await told(), (("default", "mail"), gauges))


@case
async def the_last_sweep_is_remembered(scene: Scene) -> None:
    same(await scene.store.swept(APP), None)
    await scene.store.prune(Pruning(APP, calls=MINUTE))
    same((await scene.store.swept(APP), await scene.store.swept("other app")), (scene.clock.now(), None))
