"""What every test gets: a check that it leaves nothing running, and the choice of the event loop."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.helpers import seeds

#: How long a thread of ours may take to end after its test.
GRACE_S = 2.0

# A red run is the fault of a change: examples are drawn anew only for those who name a seed.
# No test is timed: a busy machine is no fault, and neither is one that measures the branches that are taken.
settings.register_profile(
    "everloop",
    deadline=None,
    derandomize=not seeds.chosen(),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("everloop")

# What a shell starts in the background ignores Ctrl-C, and so would every program that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """Run an async test on asyncio's loop, and on uvloop too where it is marked `both_loops`."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops"):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder, which is the current one during the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread of ours alive, or an asyncio task pending."""
    before = set(threading.enumerate())
    # Asked for first, so that it looks last, after the other fixtures have closed what is theirs.
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_no_pending_tasks")
    yield
    left = _wait_for_threads(before)

    assert not left, f"threads left alive: {', '.join(thread.name for thread in left)}"


@pytest.fixture
async def _no_pending_tasks() -> AsyncIterator[None]:
    yield
    left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    if left:
        # SQLAlchemy closes a connection whose user was cancelled in a task of its own.
        _, left = await asyncio.wait(left, timeout=GRACE_S)

    assert not left, f"asyncio tasks left pending: {list(left)}"


def _wait_for_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    deadline = time.monotonic() + GRACE_S
    while True:
        left = [t for t in threading.enumerate() if t not in before and t.name.startswith("everloop")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)
