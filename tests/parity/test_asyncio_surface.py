"""Each door of asyncio takes a call as it takes a coroutine, and gives the same back."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from everloop import App, Call

#: What makes a coroutine, or a call, of one number: negative ones raise.
Make = Callable[[int], Coroutine[Any, Any, str]]
Way = Callable[[Make], Awaitable[object]]


async def plain(x: int) -> str:
    if x < 0:
        raise ValueError(f"{x} is negative")
    await asyncio.sleep(x / 100)
    return f"done {x}"


# -- ways to run some, inside a loop ------------------------------------------------------------------------


async def awaited(make: Make) -> object:
    return await make(1)


async def awaited_fails(make: Make) -> object:
    return await make(-1)


async def create_task(make: Make) -> object:
    task = asyncio.create_task(make(1), name="named")
    return task.get_name(), await task, task.result(), task.exception(), task.cancelled()


async def create_task_fails(make: Make) -> object:
    task = asyncio.create_task(make(-1))
    await asyncio.wait([task])
    return task.done(), task.cancelled(), tell(task.exception())


async def loop_create_task(make: Make) -> object:
    return await asyncio.get_running_loop().create_task(make(1))


async def ensure_future(make: Make) -> object:
    task = asyncio.ensure_future(make(1))
    return isinstance(task, asyncio.Task), await task


async def gather(make: Make) -> object:
    return await asyncio.gather(make(3), make(1), make(2))


async def gather_fails(make: Make) -> object:
    tasks = [asyncio.ensure_future(make(x)) for x in (10, -1)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        left = not tasks[0].done()
        await asyncio.wait(tasks)
        assert left and tasks[0].result() == "done 10"


async def gather_with_exceptions(make: Make) -> object:
    return [tell(each) for each in await asyncio.gather(make(1), make(-1), make(0), return_exceptions=True)]


async def wait(make: Make) -> object:
    tasks = [asyncio.create_task(make(x)) for x in (1, -2, 3)]
    done, pending = await asyncio.wait(tasks)
    return [tell(t.exception() or t.result()) for t in tasks], len(done), len(pending)


async def wait_first_completed(make: Make) -> object:
    tasks = [asyncio.create_task(make(x)) for x in (500, 1)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    return [task in done for task in tasks], [task.cancelled() for task in tasks]


async def wait_first_exception(make: Make) -> object:
    tasks = [asyncio.create_task(make(x)) for x in (500, 0, -1)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    return tasks[2] in done, tasks[0] in done


async def wait_timeout(make: Make) -> object:
    tasks = [asyncio.create_task(make(500))]
    done, pending = await asyncio.wait(tasks, timeout=0.05)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    return len(done), len(pending), tasks[0].cancelled()


async def wait_for(make: Make) -> object:
    return await asyncio.wait_for(make(1), 30)


async def wait_for_too_long(make: Make) -> object:
    return await asyncio.wait_for(make(500), 0.05)


async def wait_for_fails(make: Make) -> object:
    return await asyncio.wait_for(make(-1), 30)


async def as_completed(make: Make) -> object:
    return [await each for each in asyncio.as_completed([make(60), make(1), make(30)])]


async def as_completed_too_long(make: Make) -> object:
    tasks = [asyncio.create_task(make(x)) for x in (500, 1)]
    seen: list[str] = []
    try:
        for each in asyncio.as_completed(tasks, timeout=0.3):
            seen.append(await each)  # noqa: PERF401 - it ends with an exception
    except TimeoutError as error:
        seen.append(type(error).__name__)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    return seen


async def shield(make: Make) -> object:
    return await asyncio.shield(make(1))


async def shield_holds(make: Make) -> object:
    inner = asyncio.ensure_future(make(20))
    outer = asyncio.create_task(await_it(asyncio.shield(inner)))
    await asyncio.sleep(0.01)
    outer.cancel()
    await asyncio.wait([outer])
    return outer.cancelled(), inner.done(), await inner


async def await_it(awaitable: Awaitable[str]) -> str:
    return await awaitable


async def task_group(make: Make) -> object:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(make(x)) for x in (2, 1)]
    return [task.result() for task in tasks]


async def task_group_fails(make: Make) -> object:
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(make(500))
        group.create_task(make(-1))
    return slow


async def timeout(make: Make) -> object:
    async with asyncio.timeout(30) as scope:
        result = await make(1)
    return result, scope.expired()


async def timeout_too_long(make: Make) -> object:
    async with asyncio.timeout(0.05):
        await make(500)


async def cancelled(make: Make) -> object:
    task = asyncio.create_task(make(500))
    await asyncio.sleep(0.05)
    asked = task.cancel("enough")
    try:
        await task
    except asyncio.CancelledError as error:
        return asked, error.args, task.cancelled()
    return "not cancelled"


async def cancelled_before_it_starts(make: Make) -> object:
    task = asyncio.create_task(make(500))
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def done_callback(make: Make) -> object:
    seen: list[object] = []
    task = asyncio.create_task(make(1))
    task.add_done_callback(lambda done: seen.append(done is task))
    task.add_done_callback(lambda done: seen.append(done.result()))
    await task
    await asyncio.sleep(0)
    return seen


async def nested_coroutine(make: Make) -> object:
    async def around() -> str:
        return "around " + await make(1)

    return await asyncio.create_task(around())


async def closed_before_it_starts(make: Make) -> object:
    coroutine = make(1)
    coroutine.close()
    try:
        await coroutine
    except RuntimeError:
        return "cannot be awaited"
    return "awaited"


async def awaited_twice(make: Make) -> object:
    coroutine = make(1)
    await coroutine
    try:
        await coroutine
    except RuntimeError:
        return "cannot be awaited twice"
    return "awaited twice"


async def is_a_coroutine(make: Make) -> object:
    coroutine = make(1)
    seen = (
        asyncio.iscoroutine(coroutine),
        inspect.isawaitable(coroutine),
        isinstance(coroutine, Coroutine),
        isinstance(coroutine, Awaitable),
    )
    coroutine.close()
    return seen


WAYS: list[Way] = [
    awaited, awaited_fails, create_task, create_task_fails, loop_create_task, ensure_future, gather,
    gather_fails, gather_with_exceptions, wait, wait_first_completed, wait_first_exception, wait_timeout,
    wait_for, wait_for_too_long, wait_for_fails, as_completed, as_completed_too_long, shield, shield_holds,
    task_group, task_group_fails, timeout, timeout_too_long, cancelled, cancelled_before_it_starts,
    done_callback, nested_coroutine, closed_before_it_starts, awaited_twice, is_a_coroutine,
]  # fmt: skip


def tell(end: object) -> str:
    """Say what came back, by the class that was raised and its text."""
    if isinstance(end, BaseExceptionGroup):
        return f"group of {sorted(map(tell, end.exceptions))}"
    for cls in (ValueError, TimeoutError, asyncio.CancelledError):
        if isinstance(end, cls):
            return f"{cls.__name__}: {end}"
    return repr(end)


async def result_of(way: Way, make: Make) -> str:
    try:
        return tell(await way(make))
    except BaseException as error:
        return tell(error)


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Callable[[int], Call[str]]]:
    app = App("surface", f"sqlite:///{tmp_path}/store.db")
    function = app.task(plain)
    async with app.worker():
        yield function


@pytest.mark.both_loops
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_call_goes_where_a_coroutine_goes(way: Way, calls: Callable[[int], Call[str]]) -> None:
    assert await result_of(way, calls) == await result_of(way, plain)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_also_inside_a_task(way: Way, tmp_path: Path) -> None:
    app = App("surface", f"sqlite:///{tmp_path}/store.db")
    calls = app.task(plain)

    @app.task
    async def inside() -> str:
        return await result_of(way, calls)

    async with app.worker():
        assert await inside() == await result_of(way, plain)


# -- ways to run a loop -------------------------------------------------------------------------------------


def run(make: Make, x: int, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> str:
    with policy(new_loop):
        return asyncio.run(make(x))


def runner(make: Make, x: int, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> str:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        first = runner.run(make(1))
        return first + runner.run(make(x))


def run_until_complete(make: Make, x: int, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> str:
    loop = new_loop()
    try:
        first = loop.run_until_complete(make(1))
        return first + loop.run_until_complete(make(x))
    finally:
        loop.close()


def run_until_complete_of_a_task(
    make: Make, x: int, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> str:
    loop = new_loop()
    try:
        task = loop.create_task(make(x))
        return loop.run_until_complete(asyncio.gather(task, loop.create_task(make(2))))[0]
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@contextmanager
def policy(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[None]:
    """Let `asyncio.run` make loops of this kind: on Python 3.11 it takes no factory."""
    before = asyncio.new_event_loop
    asyncio.runners.events.new_event_loop = new_loop  # type: ignore[attr-defined]  # where `Runner` looks it up
    try:
        yield
    finally:
        asyncio.runners.events.new_event_loop = before  # type: ignore[attr-defined]  # (the same)


@pytest.mark.parametrize("x", [1, -1])
@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@pytest.mark.parametrize(
    "door", [run, runner, run_until_complete, run_until_complete_of_a_task], ids=lambda door: door.__name__
)
def test_a_loop_runs_a_call_as_it_runs_a_coroutine(
    door: Callable[[Make, int, Callable[[], asyncio.AbstractEventLoop]], str],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    x: int,
    tmp_path: Path,
) -> None:
    app = App("doors", f"sqlite:///{tmp_path}/store.db")
    calls = app.task(plain)

    def end(make: Make) -> str:
        try:
            return door(make, x, new_loop)
        except ValueError as error:
            return tell(error)

    assert end(calls) == end(plain)


@pytest.mark.parametrize("x", [1, -1])
def test_app_run_runs_it_too(x: int, tmp_path: Path) -> None:
    app = App("doors", f"sqlite:///{tmp_path}/store.db")
    calls = app.task(plain)

    def end(run: Callable[[Coroutine[Any, Any, str]], str], make: Make) -> str:
        try:
            return run(make(x))
        except ValueError as error:
            return tell(error)

    assert end(app.run, calls) == end(asyncio.run, plain)
