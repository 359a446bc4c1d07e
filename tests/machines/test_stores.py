"""Every store in the machine: each verb, in any order, under every kind of failure, judged by the oracle."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.helpers import seeds
from tests.machines.places import Make, in_files, in_memory, on_mysql, on_postgresql
from tests.machines.store_machine import SqlMachine, StoreMachine

#: Steps on each store that `make test` makes at least. EVERLOOP_MACHINE_STEPS is their sum in `make soak`.
STEPS = {"memory": 86_400, "sqlite": 8_800, "postgresql": 2_400, "mysql": 2_400}
#: What they are together.
PROMISED = 100_000
#: Steps of one run of the machine, and runs between two looks at how many there were.
LENGTH, RUNS = 50, 25

#: Steps in which all of it is met.
ENOUGH = 10_000
#: A failing run is made smaller for up to five minutes; a soak takes its time.
LIMIT_S = 36_000 if "EVERLOOP_MACHINE_STEPS" in os.environ else 600

VERBS = ("add", "cancel", "close_session", "reap", "renew", "turn", "wait")
#: What runs that are worth anything have met; on the servers there are too few for all of it.
WORTH_MEETING = {
    *(f"{verb} {what}" for verb in VERBS for what in ("failed", "happened unheard", "again")),
    *("added", "exists", "lost", "refused id", "refused key", "refused after"),
    *("a parent cancelled", "a parent cancelled too late"),
    *(f"settled by {event}" for event in ("succeed", "fail", "cancel", "retry", "release")),
    *("asked to cancel", "awaited call ended", "cancelled", "expired", "fell due", "given back", "progress"),
    *("a worker died", "a worker died with calls", "late outcomes", "restarted", "wanted", "worker died"),
}
WORTH_MEETING_OF_USERS = {"the user committed", "the user rolled back"}
WORTH_MEETING_EVERYWHERE = {
    "turn failed",
    "turn happened unheard",
    "add failed",
    "lost",
    "exists",
    "worker died",
}


def share(store: str) -> int:
    """Return how many steps are made on a store."""
    wanted = int(os.environ.get("EVERLOOP_MACHINE_STEPS", "0"))
    return STEPS[store] * wanted // sum(STEPS.values()) if wanted else STEPS[store]


def drive(make: Make, store: str, base: type[StoreMachine] = SqlMachine) -> Counter[str]:
    """Let machines run until they have made the steps of a store; the same seed makes the same ones."""
    number = seeds.seed()
    loop, met = asyncio.new_event_loop(), Counter[str]()
    # The memory store waits for nothing: without a loop, its steps take less.
    run = by_hand if base is StoreMachine else loop.run_until_complete
    own = {"make": staticmethod(make), "run": staticmethod(run), "steps": 0, "met": met}
    machine = cast("type[StoreMachine]", type("Machine", (base,), own))
    config = settings(
        database=None,
        deadline=None,
        max_examples=RUNS,
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
        stateful_step_count=LENGTH,
        suppress_health_check=list(HealthCheck),
    )
    batch, wanted = 0, share(store)
    try:
        while machine.steps < wanted:
            run_state_machine_as_test(seed(f"{number}/{batch}")(machine), settings=config)
            batch += 1
    except BaseException as error:
        error.add_note(f"again: EVERLOOP_SEED={number} .venv/bin/pytest tests/machines -k {store}")
        raise
    finally:
        loop.close()
    print(f"{store}: {machine.steps:,} steps of {wanted:,}, after each of which everything held")
    assert machine.steps >= wanted > 0
    note(store, number, machine.steps, machine.met)
    return machine.met


def by_hand(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing, and at most lets others go first."""
    try:
        while True:
            awaited = work.send(None)
            assert awaited is None, f"it waits for {awaited!r}"
    except StopIteration:
        return


def note(store: str, number: int, steps: int, met: Counter[str]) -> None:
    """Write what was met, for the evidence of a soak."""
    folder = os.environ.get("EVERLOOP_EVIDENCE")
    if folder:
        found = {"seed": number, "steps": steps, "violations": 0, "met": dict(sorted(met.items()))}
        Path(folder, f"machines-{store}.json").write_text(json.dumps(found), encoding="utf-8")


def test_the_steps_on_all_stores_are_as_many_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERLOOP_MACHINE_STEPS", raising=False)

    assert sum(map(share, STEPS)) >= PROMISED


@pytest.mark.timeout(LIMIT_S)
def test_memory() -> None:
    with in_memory() as make:
        met = drive(make, "memory", StoreMachine)
    assert share("memory") < ENOUGH or met.keys() >= WORTH_MEETING


@pytest.mark.timeout(LIMIT_S)
def test_sqlite() -> None:
    with in_files() as make:
        met = drive(make, "sqlite")
    assert share("sqlite") < ENOUGH or met.keys() >= {*WORTH_MEETING, *WORTH_MEETING_OF_USERS}


@pytest.mark.server
@pytest.mark.timeout(LIMIT_S)
def test_postgresql(postgresql_kept: str) -> None:
    with on_postgresql(postgresql_kept) as make:
        assert drive(make, "postgresql").keys() >= WORTH_MEETING_EVERYWHERE


@pytest.mark.server
@pytest.mark.timeout(LIMIT_S)
def test_mysql(mariadb_kept: str) -> None:
    with on_mysql(mariadb_kept) as make:
        assert drive(make, "mysql").keys() >= WORTH_MEETING_EVERYWHERE
