"""The conformance suite on every store, case by case."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop._core.calls import TRANSITIONS
from everloop.store.memory import MemoryStore
from everloop.store.url import KNOWN
from everloop.testing import check_store
from everloop.testing.conformance import CASES, Case, Factory, check_at_once, walk
from tests.stores.conftest import STORES

#: What the random walks must have met, so that their silence means something.
WORTH_MEETING = {
    "added",
    "exists",
    "lost",
    "refused id",
    "refused key",
    "refused after",
    "asked again",
    "settled by succeed",
    "settled by fail",
    "settled by cancel",
    "settled by retry",
    "settled by release",
    "asked to cancel",
    "a run cancelled",
    "a run crashed",
    "a run failed",
    "a run released",
    "a run succeeded",
    "a parent cancelled",
    "a parent cancelled too late",
    "awaited call ended",
    "cancelled",
    "expired",
    "fell due",
    "given back",
    "progress",
    "pruned",
    "value pruned",
    "wanted",
    "worker died",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.name}")
async def test_case(case: Case, factory: Factory) -> None:
    await case.check(factory)


@pytest.mark.parametrize("seed", range(8))
async def test_random_walk(seed: int, factory: Factory) -> None:
    await walk(factory, seed, steps=200)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,  # the factory makes a fresh store each time
        HealthCheck.too_slow,
    ],
)
@given(random=st.randoms(use_true_random=False), steps=st.integers(1, 40))
def test_random_walk_that_can_be_shrunk(random: Random, steps: int, factory: Factory) -> None:
    asyncio.run(walk(factory, random, steps))


@pytest.mark.parametrize("seed", range(3))
async def test_workers_at_once(seed: int, factory: Factory) -> None:
    await check_at_once(factory, seed=seed)


async def test_the_whole_suite_in_one_call() -> None:
    await check_store(MemoryStore, seeds=[100], steps=30)


async def test_random_walks_meet_everything_worth_meeting() -> None:
    met: Counter[str] = Counter()
    for seed in range(8):
        met += await walk(MemoryStore, seed, steps=200)

    assert met.keys() >= WORTH_MEETING


def test_no_store_is_left_out_and_no_case_is_skipped() -> None:
    assert set(STORES) == set(KNOWN)
    assert len(CASES) > 150
    assert len({(case.group, case.name) for case in CASES}) == len(CASES)
    pairs = [case for case in CASES if case.group == "transitions"]
    assert len(pairs) == len(TRANSITIONS) * len(
        {event for events in TRANSITIONS.values() for event in events}
    )
