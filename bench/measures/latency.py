"""One call at a time, each after everybody has slept; and what sleeping costs."""

from __future__ import annotations

import statistics
import time

from bench.figures import Figure, Plan, Rounds
from bench.limits import relay
from bench.processes import Running, client, worker

#: Slots of the worker: the default.
CONCURRENCY = 100
RELAY = "two fsyncs and two datagrams between two bare processes"


def across(plan: Plan) -> list[Figure]:
    """Submit to result between two processes; then the same worker, left alone."""
    store = plan.folder / "latency.db"
    rounds = Rounds()
    with (
        worker(store, concurrency=CONCURRENCY) as served,
        client(store) as asking,
        relay(plan.folder) as bare,
    ):
        for n in range(plan.rounds):
            rounds.note(relay=bare.milliseconds(plan.amount(20, 8), 0.1))
            used = served.cpu
            sample(asking, rounds, n, plan.amount(40, 12))
            rounds.note(wake=(served.cpu - used) / plan.amount(40, 12) * 1e6)
        figures = [
            Figure(
                "latency",
                "one call at a time, submit to result, p50",
                rounds["p50"],
                "ms",
                RELAY,
                rounds["relay"],
            ),
            Figure("latency.p95", "one call at a time, p95", rounds["p95"], "ms", RELAY, rounds["relay"]),
            Figure("latency.wake", "worker CPU per call, when it is woken up for each", rounds["wake"], "us"),
        ]
        return figures + idle(plan, served)


def within(plan: Plan) -> list[Figure]:
    """Submit to result in one process that runs its calls itself."""
    store = plan.folder / "within.db"
    rounds = Rounds()
    with client(store, embedded=CONCURRENCY) as asking, relay(plan.folder) as bare:
        for n in range(plan.rounds):
            rounds.note(relay=bare.milliseconds(plan.amount(20, 8), 0.1))
            sample(asking, rounds, n, plan.amount(40, 12))
    return [
        Figure("within", "one call at a time, embedded, p50", rounds["p50"], "ms", RELAY, rounds["relay"]),
        Figure(
            "within.p95", "one call at a time, embedded, p95", rounds["p95"], "ms", RELAY, rounds["relay"]
        ),
    ]


def sample(asking: Running, rounds: Rounds, seed: int, count: int) -> None:
    """Note the p50 and p95 of calls that are made one at a time."""
    samples = sorted(asking.ask("one_at_a_time", count=count, seed=seed)["ms"])
    rounds.note(p50=statistics.median(samples), p95=samples[round(len(samples) * 0.95) - 1])


def idle(plan: Plan, served: Running, prefix: str = "", where: str = "") -> list[Figure]:
    """Leave a worker alone and look at it; `prefix` begins the figures' names, `where` what they are."""
    seconds = plan.amount(10, 3)
    rounds = Rounds()
    time.sleep(1)
    for _ in range(plan.rounds):
        used, switches = served.cpu, served.switches
        time.sleep(seconds)
        spent, woken = served.cpu - used, served.switches - switches
        rounds.note(share=spent / seconds * 100, wakes=woken / seconds, megabytes=served.megabytes)
    return [
        Figure(f"{prefix}idle", f"{where}CPU of a worker that idles, over {seconds} s", rounds["share"], "%"),
        Figure(
            f"{prefix}idle.wakes", f"{where}how often an idle worker's threads wake up", rounds["wakes"], "/s"
        ),
        Figure(f"{prefix}idle.memory", f"{where}memory of an idle worker", rounds["megabytes"], "MB"),
    ]
