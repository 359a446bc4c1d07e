"""History: how each lease of a call ended, as far as it is kept."""

from __future__ import annotations

from everloop._core.calls import Event, State
from everloop._core.records import Leased
from everloop._core.runs import RunKind, RunRecord, left_out
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import SECOND, Scene


async def _runs(scene: Scene, label: str) -> list[RunRecord]:
    (runs,) = await scene.store.runs(scene.ids(label))
    return runs


async def _fail(scene: Scene, session: int, label: str, error: bytes = b"jerror") -> Leased:
    """Lease a call and let its body raise."""
    lease = await scene.take(session, label)
    holds(await scene.settle(session, lease, Event.RETRY, error=error), "it was settled")
    return lease


@case
async def a_call_that_has_not_run_has_no_runs(scene: Scene) -> None:
    await scene.put("ready")
    await scene.put("cancelled")
    await scene.store.cancel(scene.ids("cancelled"))
    session = await scene.session()
    await scene.start(session, "leased")
    ids = scene.ids("ready", "cancelled", "leased", "nobody")
    same(await scene.store.runs(ids), [[], [], [], []])
    same(await scene.store.runs([]), [])


@case
async def the_run_that_was_the_outcome_is_told_by_it(scene: Scene) -> None:
    session = await scene.session()
    kinds: dict[Event, RunKind] = {
        Event.SUCCEED: "succeeded",
        Event.FAIL: "failed",
        Event.CANCEL: "cancelled",
    }
    for event, kind in kinds.items():
        lease = await scene.start(session, kind)
        began = scene.clock.now()
        scene.clock.advance(2)
        error = None if event is Event.SUCCEED else b"jerror"
        await scene.settle(session, lease, event, value=b"jvalue", error=error)
        same(
            await _runs(scene, kind),
            [RunRecord(1, 1, kind, session, began, began + 2 * SECOND, error, "here", 1)],
        )


@case
async def each_attempt_is_kept_with_its_error(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work")
    began = scene.clock.now()
    await _fail(scene, session, "work", b"jfirst")
    scene.clock.advance(1)
    await _fail(scene, session, "work", b"jsecond")
    await scene.settle(session, await scene.take(session, "work"))
    same(
        [(run.fence, run.number, run.kind, run.error) for run in await _runs(scene, "work")],
        [(1, 1, "failed", b"jfirst"), (3, 2, "failed", b"jsecond"), (5, 3, "succeeded", None)],
    )
    same([run.started for run in await _runs(scene, "work")], [began, began + SECOND, began + SECOND])


@case
async def crashes_and_releases_are_runs_that_do_not_count_as_attempts(scene: Scene) -> None:
    session, dying = await scene.session(), await scene.session()
    await scene.start(dying, "work")
    await scene.crash(dying)
    await scene.settle(session, await scene.take(session, "work"), Event.RELEASE)
    await _fail(scene, session, "work")
    await scene.settle(session, await scene.take(session, "work"), Event.FAIL, error=b"jlast")
    same(
        [(run.number, run.kind, run.session, run.error) for run in await _runs(scene, "work")],
        [
            (1, "crashed", dying, None),
            (1, "released", session, None),
            (1, "failed", session, b"jerror"),
            (2, "failed", session, b"jlast"),
        ],
    )


@case
async def the_crash_that_was_one_too_many_is_a_run_too(scene: Scene) -> None:
    dying = await scene.session()
    await scene.start(dying, "work", crash_limit=0)
    await scene.crash(dying)
    (run,) = await _runs(scene, "work")
    same((run.kind, run.session), ("crashed", dying))
    holds(b"TaskCrashed" in (run.error or b""), "the run says that it was one too many")
    same(await scene.state("work"), State.FAILED)


@case
async def leases_that_end_with_their_session_are_runs(scene: Scene) -> None:
    closing = await scene.session()
    await scene.start(closing, "closed")
    lease = await scene.start(closing, "asked to cancel")
    await scene.store.cancel([lease.id])
    await scene.store.close_session(closing)
    for label in ("closed", "asked to cancel"):
        (run,) = await _runs(scene, label)
        same((run.number, run.kind, run.session, run.host, run.pid), (1, "released", closing, "here", 1))
    same(await scene.states("closed", "asked to cancel"), [State.READY, State.CANCELLED])


@case
async def an_end_from_outside_adds_no_run(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work")
    await _fail(scene, session, "work")
    await scene.store.cancel(scene.ids("work"))
    same(await scene.state("work"), State.CANCELLED)
    same([(run.number, run.kind) for run in await _runs(scene, "work")], [(1, "failed")])


@case
async def where_a_run_was_is_known_when_its_session_is_over(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.settle(session, lease)
    await scene.store.close_session(session)
    (run,) = await _runs(scene, "work")
    same((run.session, run.host, run.pid), (session, "here", 1))


@case
async def the_first_attempts_and_crashes_and_the_last_ones_are_kept(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work", crash_limit=100)
    for n in range(1, 31):
        if n % 3:
            await _fail(scene, session, "work", b"j%d" % n)
        else:
            dying = await scene.session()
            await scene.take(dying, "work")
            await scene.store.renew(session, 3600 * SECOND)
            await scene.crash(dying)
    runs = await _runs(scene, "work")
    fences = [2 * n - 1 for n in range(1, 31)]
    same([run.fence for run in runs], fences[:5] + fences[-15:])
    same([run.error for run in runs if run.kind == "failed"][:4], [b"j1", b"j2", b"j4", b"j5"])
    seen = await scene.see("work")
    same((seen.attempt, seen.crashes, left_out(runs, seen.attempt, seen.crashes)), (20, 10, 10))


@case
async def releases_do_not_displace_attempts(scene: Scene) -> None:
    session = await scene.session()
    await scene.put("work")
    await _fail(scene, session, "work", b"jonce")
    for _ in range(30):
        await scene.settle(session, await scene.take(session, "work"), Event.RELEASE)
    await _fail(scene, session, "work", b"jagain")
    runs = await _runs(scene, "work")
    same(
        [(run.fence, run.kind) for run in runs],
        [(1, "failed"), (57, "released"), (59, "released"), (61, "released"), (63, "failed")],
    )


@case
async def a_second_outcome_of_a_lease_adds_no_run(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.settle(session, lease, Event.RETRY, error=b"jerror")
    holds(not await scene.settle(session, lease, Event.RETRY, error=b"jlate"), "it comes too late")
    same([run.error for run in await _runs(scene, "work")], [b"jerror"])
