"""Cancelling a tree of calls: down from process to process, and up again when every body has unwound."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from bench.figures import Figure, Plan, Rounds
from bench.limits import relay
from bench.processes import client, worker

#: Calls in the tree, and children of each: five generations.
SIZE, CHILDREN, GENERATIONS = 100, 3, 5
#: Workers, and slots of each: 67 leaves need all of them.
WORKERS, CONCURRENCY = 3, 30


class RoundTrip(Protocol):
    """The cheapest durable answer of another process."""

    def milliseconds(self, count: int, pause: float) -> float: ...


def tree(plan: Plan) -> list[Figure]:
    """Cancel it on SQLite."""
    store = plan.folder / "tree.db"
    with relay(plan.folder) as bare:
        limit = "two fsyncs and two datagrams between two bare processes"
        return [cancelled(plan, store, f"sqlite:///{store}", bare, limit)]


def cancelled(
    plan: Plan, place: Path, url: str, bare: RoundTrip, limit: str, prefix: str = "", where: str = ""
) -> Figure:
    """Cancel the root; until the caller gets `CancelledError`, when every `finally` of the tree has run.

    Args:
        plan: How much is measured.
        place: Where the processes put their logs.
        url: The store.
        bare: The round trip that each generation is compared with.
        limit: That in words.
        prefix: Begins the figure's name.
        where: Begins what it is.
    """
    rounds = Rounds()
    with ExitStack() as stack:
        for n in range(WORKERS):
            one = place.with_name(f"{place.name}-{n}")
            stack.enter_context(worker(one, concurrency=CONCURRENCY, url=url))
        asking = stack.enter_context(client(place, url=url))
        asking.ask("cancel_tree", size=SIZE, children=CHILDREN)
        for _ in range(plan.rounds):
            trip = bare.milliseconds(plan.amount(20, 8), 0.1)
            answer = asking.ask("cancel_tree", size=SIZE, children=CHILDREN)
            rounds.note(seconds=answer["seconds"], trips=GENERATIONS * trip / 1e3)
    what = f"{where}cancelling a tree of {SIZE} calls over {WORKERS} workers, until the caller knows"
    against = f"{GENERATIONS} times {limit}"
    return Figure(f"{prefix}cancel", what, rounds["seconds"], "s", against, rounds["trips"])
