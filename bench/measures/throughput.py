"""How many no-op calls per second, from submit to the typed result in the caller."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from bench import processes
from bench.figures import Figure, Plan, Rounds
from bench.limits import sqlite_rates
from bench.loops import loop_rate
from bench.processes import ProcessError, Running, client, worker

#: Slots of the worker: the most bodies that run at once, and so the most calls per lease.
CONCURRENCY = 500
#: Rows per transaction of the limits: what Everloop puts into one when it is busy.
BATCH = 1_000
THROUGH = "plain tasks and the same rows in SQLite, one after the other"


def calls(plan: Plan) -> list[Figure]:
    """Calls from one process to one worker process, awaited at once."""
    count = plan.amount(20_000, 4_000)
    store = plan.folder / "calls.db"
    rounds = Rounds()
    with worker(store, concurrency=CONCURRENCY) as served, client(store) as asking:
        asking.ask("gather", count=2_000)
        for _ in range(plan.rounds):
            _note_limits(plan, rounds)
            used = served.cpu
            answer = asking.ask("gather", count=count)
            rounds.note(rate=count / answer["seconds"], client=_us(answer["cpu"], count))
            rounds.note(worker=_us(served.cpu - used, count))
    how = f"{count:,} no-op calls, submit to typed result, worker of {CONCURRENCY} slots"
    return [
        Figure("calls", how, rounds["rate"], "/s", THROUGH, rounds["through"]),
        Figure(
            "calls.client_cpu",
            "client CPU per call, gather",
            rounds["client"],
            "us",
            "of a plain task",
            rounds["task"],
        ),
        Figure(
            "calls.worker_cpu",
            "worker CPU per call, gather",
            rounds["worker"],
            "us",
            "of a plain task",
            rounds["task"],
        ),
    ]


def many(plan: Plan) -> list[Figure]:
    """The same with `submit_many`, and then awaiting each task."""
    count = plan.amount(20_000, 4_000)
    store = plan.folder / "many.db"
    rounds = Rounds()
    with worker(store, concurrency=CONCURRENCY) as served, client(store) as asking:
        asking.ask("submit_many", count=2_000)
        for _ in range(plan.rounds):
            _note_limits(plan, rounds)
            used = served.cpu
            answer = asking.ask("submit_many", count=count)
            rounds.note(submit=count / answer["submitted"], rate=count / answer["seconds"])
            rounds.note(client=_us(answer["cpu"], count), worker=_us(served.cpu - used, count))
    inserts = "plain tasks and the same inserts in SQLite"
    return [
        Figure(
            "many.submit",
            f"submit_many of {count:,}, until durable",
            rounds["submit"],
            "/s",
            inserts,
            rounds["insert"],
        ),
        Figure("many", "submit_many, then await all", rounds["rate"], "/s", THROUGH, rounds["through"]),
        Figure(
            "many.client_cpu",
            "client CPU per call, submit_many",
            rounds["client"],
            "us",
            "of a plain task",
            rounds["task"],
        ),
        Figure(
            "many.worker_cpu",
            "worker CPU per call, submit_many",
            rounds["worker"],
            "us",
            "of a plain task",
            rounds["task"],
        ),
    ]


def embedded(plan: Plan) -> list[Figure]:
    """Calls within one process, that runs them itself."""
    count = plan.amount(20_000, 4_000)
    store = plan.folder / "embedded.db"
    rounds = Rounds()
    with client(store, embedded=CONCURRENCY) as asking:
        asking.ask("gather", count=2_000)
        for _ in range(plan.rounds):
            _note_limits(plan, rounds)
            answer = asking.ask("gather", count=count)
            rounds.note(rate=count / answer["seconds"], cpu=_us(answer["cpu"], count))
    return [
        Figure(
            "embedded",
            f"{count:,} calls, client and worker in one process",
            rounds["rate"],
            "/s",
            THROUGH,
            rounds["through"],
        ),
        Figure(
            "embedded.cpu", "CPU per call, embedded", rounds["cpu"], "us", "of a plain task", rounds["task"]
        ),
    ]


def drain(plan: Plan) -> list[Figure]:
    """A queue that is full before the worker starts: from its first lease to the last settlement."""
    count = plan.amount(20_000, 4_000)
    rounds = Rounds()
    for n in range(plan.rounds):
        store = plan.folder / f"drain-{n}.db"
        with client(store) as asking:
            asking.ask("fill", count=count)
        _note_limits(plan, rounds)
        served = processes.start_worker(store, concurrency=CONCURRENCY)
        try:
            seconds = _drained(served, store, count)
        finally:
            served.end()
        rounds.note(rate=count / seconds)
    what = f"draining {count:,} queued calls, worker of {CONCURRENCY} slots"
    return [Figure("drain", what, rounds["rate"], "/s", THROUGH, rounds["through"])]


def _drained(served: Running, store: Path, count: int) -> float:
    """Wait for the last outcome; return the seconds from the first lease to it, by the store's clock."""
    deadline = time.monotonic() + processes.LIMIT
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        while time.monotonic() < deadline:
            (ended, last) = connection.execute("SELECT count(*), max(ended) FROM ever_outcomes").fetchone()
            if ended == count:
                (first,) = connection.execute("SELECT min(started) FROM ever_calls").fetchone()
                return float(last - first) / 1e6
            time.sleep(0.1)
    finally:
        connection.close()
    raise ProcessError(f"the {served.name} did not drain {count:,} calls within {processes.LIMIT:.0f} s")


def _note_limits(plan: Plan, rounds: Rounds) -> None:
    """Measure the limits, now: what matters is their ratio to what comes next."""
    loop, rates = loop_rate(20_000), sqlite_rates(plan.folder, BATCH)
    rounds.note(
        task=1e6 / loop,
        through=1 / (1 / loop + 1 / rates.through),
        insert=1 / (1 / loop + 1 / rates.insert),
    )


def _us(seconds: float, count: int) -> float:
    return seconds / count * 1e6
