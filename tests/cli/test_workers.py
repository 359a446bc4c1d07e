"""`workers`: who runs calls, and how they are."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

from everloop._core.clock import SECOND
from everloop._core.looks import Gauges, SessionLook
from everloop.cli.workers import summary
from tests.cli.conftest import Shop

FIELDS = [
    "session", "app", "host", "pid", "started", "alive", "queues", "calls", "running", "slots", "memory",
    "memory_limit", "lag",
]  # fmt: skip


def the_worker(shop: Shop) -> dict[str, Any]:
    """Wait until the only worker has told of itself."""
    deadline = time.monotonic() + 30
    while True:
        (worker,) = json.loads(shop.run("workers", "shop:app", "-o", "json").checked().out)
        if worker["memory_limit"] is not None:
            told: dict[str, Any] = worker
            return told
        assert time.monotonic() < deadline, "it has told nothing within 30 s"
        time.sleep(0.05)


def test_a_worker_is_listed_with_what_it_tells_of_itself(shop: Shop) -> None:
    with shop.worker("--concurrency", "7", "--max-memory", "2GB") as running:
        watched = re.search(r"worker ready: .* pid (\d+)\n", running.err)
        worker = the_worker(shop)
        assert list(worker) == FIELDS
        assert (worker["host"], worker["app"]) == (socket.gethostname(), "shop")
        assert watched is not None and worker["pid"] == int(watched[1])
        assert (worker["queues"], worker["running"], worker["slots"]) == (["default", "mail"], 0, 7)
        assert (worker["alive"], worker["calls"], worker["memory_limit"]) == (True, 0, 2_000_000_000)
        assert 10_000_000 < worker["memory"] < 2_000_000_000
        title, line = shop.run("workers", "--db", shop.store).checked().lines
        assert re.fullmatch("SESSION +HOST +PID +SINCE +QUEUES +CALLS +SLOTS +MEMORY +LAG", title)
        assert re.search(r"  default,mail +0 +0/7 +\d+ MB +[\d.]+ m?s$", line)
        (jsonl,) = shop.run("workers", "shop:app", "-o", "jsonl").checked().lines
        assert json.loads(jsonl)["session"] == worker["session"]
        looked = [json.loads(each) for each in shop.run("doctor", "shop:app", "-o", "jsonl").lines]
        assert "gauges" in {each["where"] for each in looked}


def test_no_worker_at_all(shop: Shop) -> None:
    shop.run("submit", "shop:app", "add", "[1]").checked()
    ran = shop.run("workers", "shop:app").checked()
    assert (ran.out, ran.err) == ("", "everloop: no worker is running\n")
    assert shop.run("workers", "shop:app", "-o", "json").checked().out == "[]\n"


def test_what_is_not_known_is_null() -> None:
    worker = SessionLook(7, "shop", "worker", "here", 42, SECOND, 5 * SECOND, 3)
    told = summary(worker, 5 * SECOND)
    assert {name for name, value in told.items() if value is None} == set(FIELDS[8:])
    assert told["alive"] is False
    still = worker._replace(gauges=Gauges(memory=1, lag=0, running=0, slots=1))
    assert [summary(still, SECOND)[name] for name in FIELDS[8:]] == [0, 1, 1, None, 0.0]
