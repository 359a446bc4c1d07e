"""Resources: opened once per process and loop, whoever asks; closed in reverse order, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from everloop._core.errors import ClosedError, FunctionError, UsageError, WouldDeadlock
from everloop.resources.resource import Resource, ResourcePool
from tests.helpers.processes import run_program


@pytest.fixture
def pool() -> ResourcePool:
    return ResourcePool()


@pytest.fixture
def log() -> list[str]:
    return []


def declare(pool: ResourcePool, log: list[str], name: str) -> Resource[object]:
    async def generator() -> AsyncIterator[object]:
        log.append(f"open {name}")
        await asyncio.sleep(0)
        yield object()
        await asyncio.sleep(0)
        log.append(f"close {name}")

    return pool.declare(generator, name=name)


# -- opening --------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_it_is_opened_once_and_stays_open_after_the_block(pool: ResourcePool, log: list[str]) -> None:
    http = declare(pool, log, "http")

    async def use() -> object:
        async with http() as session:
            return session

    sessions = await asyncio.gather(*[use() for _ in range(10)])
    sessions.append(await use())

    assert len(set(sessions)) == 1
    assert log == ["open http"]
    await pool.aclose()
    assert log == ["open http", "close http"]


async def test_a_failing_opening_fails_for_all_who_wait_and_is_tried_anew(pool: ResourcePool) -> None:
    tries = 0

    async def http() -> AsyncIterator[int]:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        if tries == 1:
            raise ConnectionError("refused")
        yield tries

    resource = pool.declare(http)
    first = await asyncio.gather(*[pool.get(resource) for _ in range(3)], return_exceptions=True)
    second = await asyncio.gather(*[pool.get(resource) for _ in range(3)])

    assert [repr(error) for error in first] == ["ConnectionError('refused')"] * 3
    assert second == [2, 2, 2]
    await pool.aclose()


async def test_the_opening_goes_on_when_who_asked_first_is_cancelled(pool: ResourcePool) -> None:
    going = asyncio.Event()

    async def http() -> AsyncIterator[str]:
        await going.wait()
        yield "open"

    resource = pool.declare(http)
    first, second = (asyncio.create_task(pool.get(resource)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    going.set()

    assert await second == "open"
    assert first.cancelled()
    await pool.aclose()


async def test_system_exit_in_an_opening_is_an_error_of_who_asked(pool: ResourcePool) -> None:
    async def http() -> AsyncIterator[None]:
        raise SystemExit(3)
        yield

    with pytest.raises(SystemExit):
        await pool.get(pool.declare(http))
    await pool.aclose()


async def test_what_asks_first_leaves_no_trace_in_it(pool: ResourcePool) -> None:
    current: ContextVar[str] = ContextVar("current", default="nobody")

    async def http() -> AsyncIterator[str]:
        yield current.get()

    current.set("somebody")

    assert await pool.get(pool.declare(http)) == "nobody"
    await pool.aclose()


async def test_one_task_enters_and_leaves_it(pool: ResourcePool) -> None:
    variable: ContextVar[int] = ContextVar("variable")
    tasks: list[object] = []

    async def background() -> None:
        await asyncio.Event().wait()

    async def http() -> AsyncIterator[None]:
        token = variable.set(1)
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(None), asyncio.TaskGroup() as group:
            member = group.create_task(background())
            yield
            member.cancel()
        tasks.append(asyncio.current_task())
        variable.reset(token)

    await pool.get(pool.declare(http))
    await pool.aclose()

    assert tasks[0] is tasks[1] is not asyncio.current_task()


async def test_a_resource_that_enters_another_closes_before_it(pool: ResourcePool, log: list[str]) -> None:
    http = declare(pool, log, "http")

    async def api() -> AsyncIterator[None]:
        async with http():
            log.append("open api")
            yield
            log.append("close api")

    await pool.get(pool.declare(api))
    await pool.aclose()

    assert log == ["open http", "open api", "close api", "close http"]


async def test_resources_that_need_each_other_are_refused(pool: ResourcePool) -> None:
    async def one() -> AsyncIterator[None]:
        async with resources[1]():
            yield

    async def two() -> AsyncIterator[None]:
        async with resources[0]():
            yield

    resources = [pool.declare(one), pool.declare(two)]

    with pytest.raises(WouldDeadlock) as caught:
        await pool.get(resources[0])
    assert str(caught.value) == (
        "the resource 'one' needs itself to be opened: one -> two -> one; take what both need out into a "
        "resource of its own"
    )
    await pool.aclose()


async def test_a_resource_yields_once(pool: ResourcePool, caplog: pytest.LogCaptureFixture) -> None:
    async def never() -> AsyncIterator[None]:
        for nothing in ():
            yield nothing

    async def twice() -> AsyncIterator[int]:
        yield 1
        yield 2

    with pytest.raises(
        FunctionError, match="the resource 'never' yields nothing; it has to yield the shared"
    ):
        await pool.get(pool.declare(never))
    assert await pool.get(pool.declare(twice)) == 1
    await pool.aclose()
    assert "the resource 'twice' yields more than once" in caplog.text


# -- closing --------------------------------------------------------------------------------------------


async def test_they_close_in_reverse_order_and_one_failure_spares_the_others(
    pool: ResourcePool, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> AsyncIterator[None]:
        yield
        raise OSError("the socket is gone")

    for resource in (declare(pool, log, "first"), pool.declare(failing), declare(pool, log, "last")):
        await pool.get(resource)
    with caplog.at_level(logging.ERROR, "everloop"):
        await pool.aclose()

    assert log == ["open first", "open last", "close last", "close first"]
    assert "closing the resource 'failing' failed" in caplog.text
    assert "the socket is gone" in caplog.text


async def test_nothing_is_opened_while_they_close(pool: ResourcePool, log: list[str]) -> None:
    late = declare(pool, log, "late")
    errors: list[str] = []

    async def http() -> AsyncIterator[None]:
        yield
        try:
            await pool.get(late)
        except ClosedError as error:
            errors.append(str(error))

    await pool.get(pool.declare(http))
    await pool.aclose()

    assert errors == ["the app is being closed: its resources cannot be used any more"]
    assert log == []


async def test_an_opening_under_way_is_given_up(pool: ResourcePool, log: list[str]) -> None:
    async def slow() -> AsyncIterator[None]:
        try:
            await asyncio.Event().wait()
            yield
        finally:
            log.append("given up")

    waiting = asyncio.create_task(pool.get(pool.declare(slow)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await pool.aclose()

    with pytest.raises(ClosedError, match="the app was closed while its resource 'slow' was being opened"):
        await waiting
    assert log == ["given up"]


async def test_closing_twice_at_once_closes_once_and_both_wait(pool: ResourcePool, log: list[str]) -> None:
    await pool.get(declare(pool, log, "http"))

    async def close() -> list[str]:
        await pool.aclose()
        return list(log)

    assert await asyncio.gather(close(), close()) == [["open http", "close http"]] * 2


async def test_closing_is_finished_when_it_is_cancelled(pool: ResourcePool, log: list[str]) -> None:
    await pool.get(declare(pool, log, "http"))
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)
    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await closing
    assert log == ["open http", "close http"]


async def test_after_closing_they_are_opened_anew(pool: ResourcePool, log: list[str]) -> None:
    http = declare(pool, log, "http")
    first = await pool.get(http)
    await pool.aclose()
    second = await pool.get(http)
    await pool.aclose()

    assert first is not second
    assert log == ["open http", "close http"] * 2


# -- loops and processes --------------------------------------------------------------------------------


def test_each_loop_has_its_own(pool: ResourcePool, log: list[str]) -> None:
    http = declare(pool, log, "http")

    async def main() -> object:
        return await pool.get(http)

    first, second = asyncio.run(main()), asyncio.run(main())

    assert first is not second
    assert log == ["open http", "close http"] * 2


def test_a_loop_that_ends_closes_them_after_its_tasks(pool: ResourcePool, log: list[str]) -> None:
    async def body(resources: list[Resource[object]]) -> None:
        for resource in resources:
            await pool.get(resource)
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            log.append("body ends")

    async def main() -> None:
        task = asyncio.create_task(body([declare(pool, log, name) for name in "ab"]))
        await waits.wait()
        assert asyncio.all_tasks() == {task, asyncio.current_task()}
        keep.append(task)

    keep: list[asyncio.Task[None]] = []
    waits = asyncio.Event()
    asyncio.run(main())

    assert log == ["open a", "open b", "body ends", "close b", "close a"]


def test_a_loop_that_is_closed_too_early_is_told_of(
    pool: ResourcePool, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    http = declare(pool, log, "http")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(pool.get(http))
    loop.close()

    async def main() -> None:
        await pool.get(http)

    asyncio.run(main())

    assert "a loop was closed while 'http' was open on it; close the app first" in caplog.text
    assert log == ["open http", "open http", "close http"]


def test_without_a_loop_the_error_says_where_they_belong(pool: ResourcePool) -> None:
    with pytest.raises(UsageError, match="belong to a running event loop: use them inside `async def`"):
        pool.here()


def test_a_program_that_closes_nothing_closes_them_at_its_exit(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio\n"
        "from everloop.resources.resource import ResourcePool\n"
        "pool = ResourcePool()\n"
        "async def http():\n"
        "    yield 'open'\n"
        "    await asyncio.sleep(0)\n"
        "    print('closed')\n"
        "loop = asyncio.new_event_loop()\n"
        "print(loop.run_until_complete(pool.get(pool.declare(http))))\n"
    )

    assert run_program(program, folder=tmp_path).checked().lines == ["open", "closed"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone(
    pool: ResourcePool, tmp_path: Path
) -> None:
    told = tmp_path / "told"

    async def http() -> AsyncIterator[int]:
        tell(f"open in {os.getpid() == parent}")
        yield os.getpid()
        tell(f"close in {os.getpid() == parent}")

    def tell(what: str) -> None:
        with told.open("a") as file:
            file.write(what + "\n")

    async def use() -> int:
        return await pool.get(resource)

    async def main() -> None:
        assert await use() == parent
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.events._set_running_loop(None)
                loop = asyncio.new_event_loop()
                code = int(loop.run_until_complete(use()) != os.getpid())
                loop.run_until_complete(pool.aclose())
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert await use() == parent
        await pool.aclose()

    parent = os.getpid()
    resource = pool.declare(http)
    asyncio.run(main())

    assert told.read_text().splitlines() == [
        "open in True",
        "open in False",
        "close in False",
        "close in True",
    ]


# -- declaring ------------------------------------------------------------------------------------------


def refusal(pool: ResourcePool, fn: Callable[..., Any], name: str = "") -> str:
    with pytest.raises(FunctionError) as caught:
        pool.declare(fn, name=name)
    return str(caught.value)


def test_what_is_no_asynchronous_generator_function_is_refused(pool: ResourcePool) -> None:
    async def http() -> None: ...

    @asynccontextmanager
    async def managed() -> AsyncIterator[None]:
        yield

    assert refusal(pool, http) == (
        "the resource 'http' has to be an asynchronous generator function that yields once:\n"
        "    async def http() -> AsyncIterator[...]:\n"
        "        async with ... as it:\n"
        "            yield it"
    )
    assert "'managed' has to be an asynchronous generator function" in refusal(pool, managed)


def test_parameters_and_a_second_of_a_name_are_refused(pool: ResourcePool) -> None:
    async def http(url: str) -> AsyncIterator[str]:
        yield url

    async def one() -> AsyncIterator[None]:
        yield

    async def other() -> AsyncIterator[None]:
        yield

    assert refusal(pool, http) == (
        "the resource 'http' takes parameters, but it is opened without any: let it read its settings "
        "itself, or enter another resource in it with `async with other() as it:`"
    )
    pool.declare(one)
    assert refusal(pool, other, name="one") == (
        f"there is a resource 'one' already ({__file__}:{one.__code__.co_firstlineno}); give this function "
        f"({__file__}:{other.__code__.co_firstlineno}) another name"
    )
    assert pool.declare(one).name == "one"
    assert repr(pool.declare(other)) == "<everloop.Resource other>"
