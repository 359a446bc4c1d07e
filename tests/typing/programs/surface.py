"""Each way to schedule a call, and the type of what comes back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, assert_type

import everloop
from everloop import App, Call, Key, Retry, Run, SyncTask, Task, TaskFunction

app = App("surface", "memory://", raises=[KeyError], lease=timedelta(seconds=5))


@app.task
async def fetch(url: str) -> int:
    return len(url)


@app.task(name="name", queue="titles", retries=Retry(3, never=[KeyError]), timeout=None, run="loop")
async def title(url: str, *, lang: str = "en") -> str:
    return url + lang


@app.task
def parse(page: bytes) -> list[str]:
    return page.decode().split()


@app.task(run="thread", retries=2, crashes=1, tags=["cpu"])
def count(words: list[str]) -> dict[str, int]:
    return dict.fromkeys(words, 1)


@app.task
async def log_done(n: int, task: Task[int]) -> None:
    print(n, task.result(), everloop.current().attempt)


def done_here(future: asyncio.Future[int]) -> None:
    print(future.result())


async def calls() -> None:
    assert_type(fetch("a"), Call[int])
    assert_type(title("a", lang="de"), Call[str])
    assert_type(parse(b"a"), Call[list[str]])
    assert_type(count(["a"]), Call[dict[str, int]])
    assert_type(fetch("a").id, str)
    coroutine: Coroutine[Any, Any, int] = fetch("a")
    await coroutine


async def awaiting() -> None:
    assert_type(await fetch("a"), int)
    assert_type(await parse(b"a"), list[str])
    assert_type(await fetch.plain("a"), int)
    assert_type(await parse.plain(b"a"), list[str])
    assert_type(await asyncio.wait_for(fetch("a"), 1), int)
    assert_type(await asyncio.shield(fetch("a")), int)
    assert_type(await asyncio.gather(fetch("a"), title("a")), tuple[int, str])
    assert_type(await asyncio.gather(*[fetch(x) for x in "abc"]), list[int])
    assert_type(
        await asyncio.gather(fetch("a"), title("a"), return_exceptions=True),
        tuple[int | BaseException, str | BaseException],
    )
    for next_done in asyncio.as_completed([fetch("a"), fetch("b")]):
        assert_type(await next_done, int)


async def scheduling() -> None:
    assert_type(asyncio.create_task(fetch("a")), asyncio.Task[int])
    assert_type(asyncio.ensure_future(fetch("a")), asyncio.Task[int])
    assert_type(asyncio.get_running_loop().create_task(fetch("a")), asyncio.Task[int])
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(title("a")), asyncio.Task[str])
    async with asyncio.timeout(1):
        assert_type(await title("a"), str)
    done, pending = await asyncio.wait([asyncio.create_task(fetch("a"))])
    assert_type(done, set[asyncio.Task[int]])
    assert_type(pending, set[asyncio.Task[int]])
    ours, _ = await asyncio.wait([app.create_task(fetch("a"))], return_when=asyncio.FIRST_COMPLETED)
    assert_type(ours, set[Task[int]])


async def tasks() -> None:
    task = app.create_task(fetch("a"))
    assert_type(task, Task[int])
    future: asyncio.Future[int] = task
    future.add_done_callback(done_here)
    await task.stored()
    assert_type(await task, int)
    assert_type(task.result(), int)
    assert_type(task.exception(), BaseException | None)
    assert_type(task.id, str)
    assert_type(task.state, str)
    assert_type(task.attempts, int)
    assert_type(task.cancel("enough"), bool)
    await task.refresh()
    assert_type((await task.history())[0], Run)


async def from_the_app() -> None:
    assert_type(await app.submit(fetch("a")), Task[int])
    assert_type(await (await app.submit(title("a"))), str)
    assert_type(await app.submit_many(fetch(x) for x in "abc"), list[Task[int]])
    async for task in app.as_completed(fetch(x) for x in "abc"):
        assert_type(task, Task[int])
    assert_type(await app.get_task("0198c0de-0000-7000-8000-000000000001", fetch), Task[int])
    assert_type(await app.get_task("0198c0de-0000-7000-8000-000000000001"), Task[Any])
    assert_type(await app.cancel("0198c0de-0000-7000-8000-000000000001"), bool)
    assert_type(await app.retry("0198c0de-0000-7000-8000-000000000001"), Task[Any])
    assert_type(await app.counts(), dict[str, int])
    assert_type(await app.tasks(state="failed", limit=5), list[Task[Any]])


async def options() -> None:
    assert_type(await fetch.options(queue="slow", priority=5)("a"), int)
    assert_type(await fetch("a").options(delay=1, expires=timedelta(hours=1)), int)
    assert_type(await app.submit(fetch("a"), at=datetime.now(UTC), key=Key("a", among="done")), Task[int])
    assert_type(app.create_task(fetch("a"), timeout=3, total_timeout=None, fresh=True), Task[int])
    await app.submit(fetch("a"), on_done=log_done)
    await app.submit(fetch("a"), on_done=[partial(log_done, 2), log_done])
    await app.submit_many([fetch("a")], tags=["many"], retries=Retry(4, delay=0.5, cap=timedelta(minutes=1)))


async def inside() -> None:
    current = everloop.current()
    assert_type(current.id, str)
    assert_type(current.attempt, int)
    current.progress(1, 2, "half")
    current.heartbeat()
    if current.stopping == "shutdown":
        return
    async with app as client:
        assert_type(client, App)
    async with app.worker(concurrency=5, queues=["default"], grace=timedelta(seconds=1)) as serving:
        assert_type(serving, App)


def programs() -> None:
    assert_type(app.run(fetch("a")), int)
    assert_type(app.run(awaiting(), concurrency=5, on_interrupt="cancel"), None)
    assert_type(asyncio.run(fetch("a")), int)
    with asyncio.Runner() as runner:
        assert_type(runner.run(fetch("a")), int)
    assert_type(asyncio.new_event_loop().run_until_complete(fetch("a")), int)


def without_a_loop(connection: sqlite3.Connection) -> None:
    assert_type(app.sync.run(fetch("a"), timeout=5), int)
    task = app.sync.submit(fetch("a"), connection=connection, priority=1)
    assert_type(task, SyncTask[int])
    assert_type(task.result(timeout=timedelta(seconds=1)), int)
    assert_type(task.exception(), BaseException | None)
    assert_type(app.sync.submit_many([fetch("a")], tags=["many"]), list[SyncTask[int]])
    assert_type(app.sync.get_task(task.id, fetch), SyncTask[int])
    assert_type(app.sync.get_task(task.id), SyncTask[Any])
    assert_type(app.sync.cancel(task.id), bool)
    assert_type(app.sync.retry(task.id), SyncTask[Any])
    assert_type(app.sync.counts("mail"), dict[str, int])


@app.task(run="process", timeout=5)
def compute(n: int) -> list[int]:
    return [n]


assert_type(compute(1), Call[list[int]])

# A task function can be handed on with its parameters, or without.
TOOLS: dict[str, TaskFunction[..., int]] = {"fetch": fetch}
ONE: Callable[[str], Call[int]] = fetch
