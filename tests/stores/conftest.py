"""The stores under test: each by name, with a factory of fresh, unopened ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from everloop._core.clock import Clock, ManualClock
from everloop.store.memory import MemoryStore
from everloop.store.protocol import Store
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance import Factory, Fault, FaultyFactory


def _memory(_folder: Path, clock: Clock, _fault: Fault | None) -> Store:
    return MemoryStore(clock)


def _sqlite(folder: Path, clock: Clock, fault: Fault | None) -> Store:
    return SqliteStore(folder / f"{next(_numbers)}.db", clock=clock, fault=fault)


_numbers = count()

#: Every store that Everloop has, by the scheme of its URL.
STORES: dict[str, Callable[[Path, Clock, Fault | None], Store]] = {"memory": _memory, "sqlite": _sqlite}


@pytest.fixture(params=sorted(STORES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def faulty_factory(kind: str, tmp_path: Path) -> FaultyFactory:
    return lambda clock, fault: STORES[kind](tmp_path, clock, fault)


@pytest.fixture
def factory(kind: str, tmp_path: Path) -> Factory:
    return lambda clock: STORES[kind](tmp_path, clock, None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(factory: Factory, clock: ManualClock) -> AsyncIterator[Store]:
    """An open store, whose clock stands still until the test moves it."""
    store = factory(clock)
    await store.open()
    yield store
    await store.close()
