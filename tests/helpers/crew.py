"""An app whose tasks write a log, for tests in one process or several.

A worker of another process serves `tests.helpers.crew:app` when `CREW_LOG` names the log's file. The store is
that of EVERLOOP_STORE; settings of the app come in `CREW_SETTINGS`, as JSON.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import everloop
from everloop import App, Call, Task, TaskFunction
from tests.helpers.waiting import until

#: Longer than any test waits.
LONG = 600.0


class Log:
    """A file of lines that several processes append to."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def note(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    @property
    def lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []

    async def until(self, *lines: str, seconds: float = 20.0) -> None:
        """Wait until each of these lines is there."""
        await until(lambda: all(line in self.lines for line in lines), seconds, f"{lines} in the log")


@dataclass(frozen=True)
class Crew:
    """The app, its log, and its functions."""

    app: App
    log: Log
    add: TaskFunction[[int, int], int]
    fail: TaskFunction[[str], int]
    sleep: TaskFunction[..., str]
    nap: TaskFunction[..., str]
    stubborn: TaskFunction[[str], str]
    tidy: TaskFunction[[str, float], str]
    block: TaskFunction[[str], str]
    chain: TaskFunction[[str, int], str]
    parent: TaskFunction[[str, str], str]
    act: TaskFunction[[str, str, str], str]
    note: TaskFunction[..., None]

    @classmethod
    def on(cls, store: str, log: str | Path, **settings: Any) -> Crew:
        """Return a crew on this store that writes this log."""
        return make_crew(App("crew", store, **settings), Log(log))


def make_crew(app: App, log: Log) -> Crew:  # noqa: C901, PLR0915 - a list, not a logic
    """Declare the functions."""

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task
    async def fail(why: str) -> int:
        raise ValueError(why)

    async def sleep(name: str, seconds: float = LONG) -> str:
        log.note(f"{name} begins")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError as error:
            log.note(f"{name} stops: {everloop.current().stopping}{''.join(f' ({a})' for a in error.args)}")
            raise
        finally:
            log.note(f"{name} cleans up")
        log.note(f"{name} ends")
        return name

    @app.task
    async def stubborn(name: str) -> str:
        """Make something of a cancellation."""
        log.note(f"{name} begins")
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            return f"{name} did it all the same"
        return name

    @app.task
    async def tidy(name: str, seconds: float) -> str:
        """Take a while to stop."""
        log.note(f"{name} begins")
        try:
            await asyncio.sleep(LONG)
        finally:
            log.note(f"{name} is asked to stop")
            await asyncio.sleep(seconds)
            log.note(f"{name} has stopped")
        return name

    @app.task
    def block(name: str) -> str:
        """Look, from a thread, whether to go on."""
        log.note(f"{name} begins")
        current = everloop.current()
        while current.stopping is None:
            threading.Event().wait(0.01)
        log.note(f"{name} stops: {current.stopping}")
        return name

    @app.task
    async def chain(name: str, length: int) -> str:
        """Wait for a chain of calls, the last of which sleeps."""
        link = f"{name}{length}"
        if length == 0:
            return await sleeping(link)
        try:
            return await chain(name, length - 1)
        except asyncio.CancelledError:
            log.note(f"{link} stops: {everloop.current().stopping}")
            raise

    @app.task
    async def parent(name: str, how: str) -> str:
        """Wait for a child in one of the ways of `WAITS`."""
        log.note(f"{name} begins")
        try:
            return await WAITS[how](naps(f"{name}'s child"))
        except TimeoutError:
            return f"{name} has waited enough"
        except ExceptionGroup as group:
            return f"{name} saw {group.exceptions[0]}"
        except asyncio.CancelledError:
            log.note(f"{name} stops: {everloop.current().stopping}")
            raise

    @app.task
    async def note(word: str, task: Task[Any]) -> None:
        """Be a durable callback."""
        end = "cancelled" if task.cancelled() else task.exception() or task.result()
        log.note(f"{word}: {task.state} {end}")

    @app.task(queue="acts")
    async def act(action: str, name: str, target: str) -> str:
        """Do one of `ACTIONS` inside a task."""
        return await ACTIONS[action](crew, name, target)

    sleeping = app.task(sleep)
    naps = app.task(name="nap", queue="naps")(sleep)
    app.task(name="watched", queue="naps", on_done=functools.partial(note, "durable of watched"))(sleep)
    crew = Crew(app, log, add, fail, sleeping, naps, stubborn, tidy, block, chain, parent, act, note)
    return crew


# -- ways to wait for a call --------------------------------------------------------------------------------


async def wait_plainly(call: Call[str]) -> str:
    return await call


async def wait_with_wait_for(call: Call[str]) -> str:
    return await asyncio.wait_for(call, 0.3)


async def wait_with_timeout(call: Call[str]) -> str:
    async with asyncio.timeout(0.3):
        return await call


async def wait_in_a_group_that_fails(call: Call[str]) -> str:
    async def fail_soon() -> None:
        await asyncio.sleep(0.3)
        raise ValueError("the group failed")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
        group.create_task(fail_soon())
    return task.result()


async def wait_and_cancel(call: Call[str]) -> str:
    task = asyncio.create_task(call)
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait([task])
    return "cancelled" if task.cancelled() else "not cancelled"


WAITS: dict[str, Callable[[Call[str]], Coroutine[Any, Any, str]]] = {
    "plainly": wait_plainly,
    "with wait_for": wait_with_wait_for,
    "with timeout": wait_with_timeout,
    "in a group that fails": wait_in_a_group_that_fails,
    "and cancel": wait_and_cancel,
}


# -- what a client, a task, or an embedded program can do with a call of another process --------------------


async def submit(crew: Crew, name: str, _: str) -> str:
    return (await crew.app.submit(crew.nap(name, 0.1))).id


async def await_(crew: Crew, name: str, _: str) -> str:
    return await crew.nap(name, 0.1)


async def cancel(crew: Crew, _: str, target: str) -> str:
    return "asked" if await crew.app.cancel(target, "from afar") else "too late"


async def callback(crew: Crew, name: str, _: str) -> str:
    called = asyncio.get_running_loop().create_future()
    task = await crew.app.submit(
        crew.nap(name, 0.1), on_done=functools.partial(crew.note, f"durable of {name}")
    )
    task.add_done_callback(functools.partial(called.set_result))
    return f"local: {(await called).result()}"


async def get_task(crew: Crew, _: str, target: str) -> str:
    task = await crew.app.get_task(target, crew.nap)
    return f"{await task} has {task.state}"


ACTIONS: dict[str, Callable[[Crew, str, str], Coroutine[Any, Any, str]]] = {
    "submit": submit,
    "await": await_,
    "cancel": cancel,
    "callback": callback,
    "get_task": get_task,
}


if "CREW_LOG" in os.environ:
    app = Crew.on(
        os.environ["EVERLOOP_STORE"],
        os.environ["CREW_LOG"],
        **json.loads(os.environ.get("CREW_SETTINGS", "{}")),
    ).app
