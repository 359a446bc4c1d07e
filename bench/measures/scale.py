"""A full table: calls that nobody can run now must not slow down those that somebody can."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, Plan, Rounds
from bench.processes import ProcessError, client, worker
from everloop._core.calls import State
from everloop._core.ids import new_id
from everloop._core.records import CallFilter, Lane, NewCall, SessionInfo, Turn
from everloop.store.protocol import Store
from everloop.store.url import store_from_url

YEAR = 365 * 86_400.0
LANE = Lane("bench", "default", "noop")
#: Calls claimed per round, and per transaction.
CLAIMED, BATCH = 4_000, 200
LEASE = 3_600_000_000


def due(plan: Plan) -> list[Figure]:
    """Claims beside a million calls that are due in a year."""
    return _beside(plan, "due", "calls due in a year", "fill_later", delay=YEAR)


def strangers(plan: Plan) -> list[Figure]:
    """Claims behind a million ready calls of a name that no worker knows."""
    return _beside(plan, "strangers", "ready calls of an unknown name", "fill_strangers")


def _beside(plan: Plan, name: str, which: str, request: str, **arguments: float) -> list[Figure]:
    count = plan.amount(1_000_000, 100_000)
    full, empty = plan.folder / f"{name}-full.db", plan.folder / f"{name}-empty.db"
    urls = f"sqlite:///{full}", f"sqlite:///{empty}"
    with client(full) as asking:
        seconds = asking.ask(request, count=count, **arguments)["seconds"]
    plan.say(f"{count:,} {which} stored in {seconds:.0f} s")
    rounds = Rounds()
    for _ in range(plan.rounds):
        rounds.note(full=asyncio.run(claim_rate(urls[0])), empty=asyncio.run(claim_rate(urls[1])))
    memory = Rounds()
    for _ in range(plan.rounds):
        memory.note(full=_worker_megabytes(full), empty=_worker_megabytes(empty))
    many = f"{count:,} {which}"
    return [
        Figure(
            name, f"claims of known calls beside {many}", rounds["full"], "/s", "empty table", rounds["empty"]
        ),
        Figure(
            f"{name}.memory",
            f"memory of a worker beside {many}",
            memory["full"],
            "MB",
            "empty table",
            memory["empty"],
        ),
    ]


async def claim_rate(url: str) -> float:
    """Add known calls, claim them in batches by the store's own verb, and return how many per second."""
    store = store_from_url(url)
    await store.open()
    try:
        info = SessionInfo(app=LANE.app, kind="worker", host="bench", pid=0, lanes=(LANE,))
        session = await store.open_session(info, LEASE)
        await store.turn(session, Turn(adds=[_call(n) for n in range(CLAIMED)]))
        times: list[float] = []
        for _ in range(CLAIMED // BATCH):
            started = time.perf_counter()
            answer = await store.turn(session, Turn(room=BATCH, lanes=(LANE,)))
            times.append(time.perf_counter() - started)
            if len(answer.leased) != BATCH:
                raise ProcessError(f"claimed {len(answer.leased)} calls of {BATCH} that are ready")
        await _forget(store, session)
        return BATCH / statistics.median(times)
    finally:
        await store.close()


def _call(number: int) -> NewCall:
    return NewCall(id=new_id(), lane=LANE, args=b"j1[[%d],{}]" % number)


async def _forget(store: Store, session: int) -> None:
    """Release what was claimed, and cancel it: the next round starts from the same table."""
    await store.close_session(session)
    ready = await store.find(CallFilter(fn=LANE.fn, states=(State.READY,), limit=CLAIMED))
    await store.cancel([call.id for call in ready])


def _worker_megabytes(store: Path) -> float:
    """Return the memory of a worker after its first calls."""
    with ExitStack() as stack:
        served = stack.enter_context(worker(store, concurrency=100))
        asking = stack.enter_context(client(store))
        asking.ask("gather", count=1_000)
        return served.megabytes
