"""Several server processes, each with a worker: forks of one that has made the app, and uvicorn's own."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.helpers.processes import Running, importing_from, run_program, started
from tests.helpers.waiting import until

PROGRAMS = Path(__file__).parent / "programs"


def settings(folder: Path) -> dict[str, str]:
    return {"EVERLOOP_STORE": f"sqlite:///{folder}/shop.db", **importing_from(PROGRAMS)}


def ask(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


async def until_found(running: Running, pattern: str, count: int) -> list[Any]:
    """Wait until the program has printed this so many times."""

    def found() -> list[Any]:
        return re.findall(pattern, running.out + running.err)

    await until(lambda: len(found()) >= count or running.process.poll() is not None, what=pattern)
    assert len(found()) == count, f"{running.out}\n{running.err}"
    return found()


# Once it is closed, uvicorn ends itself by the signal that it was sent.
@pytest.mark.parametrize(("kind", "code"), [("aiohttp", 0), ("uvicorn", -15)])
async def test_an_app_made_before_the_fork_works_in_each_child_and_in_the_parent(
    tmp_path: Path, kind: str, code: int
) -> None:
    with started(PROGRAMS / "forks.py", kind, folder=tmp_path, env=settings(tmp_path)) as running:
        said = await until_found(running, r"(\d+) serves on port (\d+)", 2)
        children = [(int(pid), port) for pid, port in said]
        answers = [
            (pid, ask(f"http://127.0.0.1:{port}/orders/{pid}-{n}"))
            for n in range(5)
            for pid, port in children
        ]
        for pid, _ in children:
            os.kill(pid, signal.SIGTERM)
        ran = running.ended().checked()

    assert [answer["pid"] for _, answer in answers] == [pid for pid, _ in answers]
    assert [answer["orders"] for _, answer in answers] == list(range(1, 11))
    # The worker of either process may have run it.
    assert {answer["booked_by"] for _, answer in answers} <= {pid for pid, _ in children}
    assert ran.lines[-2:] == [f"the children ended with [{code}, {code}]", "the parent goes on"]
    assert not ran.err


async def test_the_processes_of_uvicorn_share_the_work(tmp_path: Path) -> None:
    env = settings(tmp_path)
    run_program("-c", "import asyncio, shop; asyncio.run(shop.create())", folder=tmp_path, env=env).checked()
    options = ["--workers", "2", "--port", "0", "--no-access-log"]
    with started("-m", "uvicorn", "shop:api", *options, folder=tmp_path, env=env) as running:
        await until_found(running, "Application startup complete", 2)
        (url,) = re.findall(r"running on (http://\S+)", running.err)
        answers = [ask(f"{url}/orders/{n}") for n in range(5)]
        running.signal(signal.SIGTERM)
        running.ended()

    assert [answer["orders"] for answer in answers] == [1, 2, 3, 4, 5]
