"""`--health`: /healthz and /readyz of a worker, and of several."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click
import pytest

from everloop.cli import supervisor
from everloop.cli.control import READY, Report
from everloop.cli.health import Address, read_address
from everloop.cli.supervisor import Supervisor
from tests.cli.conftest import Shop
from tests.cli.test_supervisor import all_ready, submit
from tests.helpers.processes import Running, started


def ask(running: Running, path: str) -> tuple[int, dict[str, Any]]:
    running.until("health at http://")
    match = re.search(r"health at (http://\S+)/healthz", running.err)
    assert match is not None
    try:
        with urllib.request.urlopen(match[1] + path, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def wait_for(running: Running, path: str, wanted: tuple[int, dict[str, Any]]) -> None:
    deadline = time.monotonic() + 20
    while (said := ask(running, path)) != wanted:
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


GREEN = (200, {"ready": True})
ALIVE = (200, {"alive": True})


def test_a_worker_is_ready_until_it_drains(shop: Shop) -> None:
    with shop.worker("--health", "0") as running:
        assert "everloop: health at http://127.0.0.1:" in running.err
        assert (ask(running, "/readyz"), ask(running, "/healthz")) == (GREEN, ALIVE)
        submit(shop, "hold")
        shop.wait_until_begun()
        running.signal(signal.SIGTERM)
        wait_for(running, "/readyz", (503, {"ready": False, "why": "it is draining"}))
        assert ask(running, "/healthz") == ALIVE
        shop.gate().touch()
        assert running.ended().code == 0


def test_several_answer_as_one(shop: Shop) -> None:
    with shop.worker("--processes", "2", "--health", "127.0.0.1:0") as running:
        first, _ = all_ready(running, 2)
        wait_for(running, "/readyz", GREEN)
        os.kill(first, signal.SIGKILL)
        assert ask(running, "/readyz") == GREEN
        assert ask(running, "/healthz") == ALIVE
        running.until("another is started")


def test_an_address_that_is_taken(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ("-m", "everloop", "worker", "shop:app", "--health", str(port))
        with started(*arguments, folder=shop.folder, env=shop.env) as running:
            ran = running.ended()
    assert ran.code == 2
    assert f"--health cannot listen on 127.0.0.1:{port}: " in ran.err


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8080", Address("127.0.0.1", 8080)),
        (":8080", Address("127.0.0.1", 8080)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:80", Address("localhost", 80)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert read_address(click.Context(click.Command("worker")), click.Option(["--health"]), text) == address


@pytest.mark.parametrize("text", ["http", "localhost:", "::1:80", "1.2.3.4:99999", "a b:80"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is no address; write 127\.0\.0\.1:8080, or 8080"):
        read_address(click.Context(click.Command("worker")), click.Option(["--health"]), text)


async def test_why_no_worker_takes_calls_is_said_of_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])

    class Process:
        returncode: int | None = None

    watcher = Supervisor(2, [])
    for member in watcher.members:
        member.process = Process()  # type: ignore[assignment]  # as much of one as is looked at
    assert watcher.why_not() == "worker 1: it is starting; worker 2: it is starting"
    now[0] = 100.0
    assert watcher.dying() == ""  # imports take what they take
    first, second = watcher.members
    first.heard(Report("the store does not answer"))
    second.heard(Report(READY))
    assert watcher.why_not() == ""
    now[0] += supervisor.FRESH + 1
    assert (
        watcher.dying()
        == watcher.why_not()
        == ("worker 1: it has said nothing for 11 s; worker 2: it has said nothing for 11 s")
    )
    first.heard(Report(READY))
    assert watcher.dying() == watcher.why_not() == ""
    watcher._came(signal.SIGTERM)
    assert watcher.why_not() == "it is draining"
