"""Logging: what runs have logged is stored apart from everything else, in order, once."""

from __future__ import annotations

from everloop._core.calls import Event
from everloop._core.keeping import Pruning
from everloop._core.logs import LogChunk, LogRecord
from everloop.testing.conformance.case import case
from everloop.testing.conformance.expect import same
from everloop.testing.conformance.scene import MINUTE, Scene


def _chunk(scene: Scene, label: str, fence: int, n: int, *texts: str, attempt: int = 1) -> LogChunk:
    at = scene.clock.now()
    return LogChunk(
        scene.id(label), fence, n, attempt, tuple(LogRecord(at, "INFO", "shop", text) for text in texts)
    )


@case
async def what_runs_have_logged_comes_back_in_order(scene: Scene) -> None:
    session = await scene.session()
    lease = await scene.start(session, "work")
    await scene.put("other")
    first = _chunk(scene, "work", 1, 0, "one", 'ünï\x00 \\ "two" 😀')
    await scene.store.log([_chunk(scene, "work", 1, 2, "three"), first])
    await scene.settle(session, lease, Event.RETRY)
    await scene.take(session, "work")
    second = _chunk(scene, "work", 3, 0, "again", attempt=2)
    await scene.store.log([second])
    chunks = [first, _chunk(scene, "work", 1, 2, "three"), second]
    same(await scene.store.logs(scene.id("work")), chunks)
    same(await scene.store.logs(scene.id("work"), (1, 0)), chunks[1:])
    same(await scene.store.logs(scene.id("work"), (1, 2)), chunks[2:])
    same(await scene.store.logs(scene.id("work"), most=1), chunks[:1])
    same(await scene.store.logs(scene.id("other")), [])
    same(await scene.store.logs(scene.id("nobody")), [])


@case
async def logging_the_same_twice_is_logging_it_once(scene: Scene) -> None:
    await scene.start(await scene.session(), "work")
    chunk = _chunk(scene, "work", 1, 0, "one")
    await scene.store.log([chunk])
    await scene.store.log([chunk, _chunk(scene, "work", 1, 1, "two")])
    same([c.records[0].text for c in await scene.store.logs(scene.id("work"))], ["one", "two"])


@case
async def what_a_finished_call_logs_late_is_kept_and_what_an_unknown_one_logs_is_not(scene: Scene) -> None:
    session = await scene.session()
    await scene.settle(session, await scene.start(session, "work"))
    await scene.store.log([_chunk(scene, "nobody", 1, 0, "lost"), _chunk(scene, "work", 1, 0, "late")])
    await scene.store.log([_chunk(scene, "work", 3, 0, "of a lease that there never was")])
    await scene.store.log([_chunk(scene, "work", 1, 5)])
    await scene.store.log([])
    same([c.records[0].text for c in await scene.store.logs(scene.id("work"))], ["late"])
    same(await scene.store.logs(scene.id("nobody")), [])


@case
async def logs_go_with_their_call_or_earlier(scene: Scene) -> None:
    session = await scene.session(lease=100 * MINUTE)
    await scene.settle(session, await scene.start(session, "ended"))
    await scene.start(session, "running")
    for label in ("ended", "running"):
        await scene.store.log([_chunk(scene, label, 1, 0, "old")])
    scene.clock.advance(60)
    for label in ("ended", "running"):
        await scene.store.log([_chunk(scene, label, 1, 1, "young")])
    scene.clock.advance(60)
    await scene.store.prune(Pruning("conformance", logs=2 * MINUTE - 1))
    for label in ("ended", "running"):
        same([c.records[0].text for c in await scene.store.logs(scene.id(label))], ["young"])
    await scene.store.prune(Pruning("conformance", calls=MINUTE))
    same(await scene.store.logs(scene.id("ended")), [])
    call = scene.call("ended")
    await scene.add(call)
    same(await scene.store.logs(call.id), [], "of the call that has its id now")
