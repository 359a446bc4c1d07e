"""Everloop used wrongly, or in unusual places: what is said, and that nothing is lost by it."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import everloop
from everloop import AlreadyAwaited, App, ClosedError, NoCurrentCall, OptionError, TaskNotFound, UsageError
from everloop import _notices as notices
from everloop import _sessions as sessions
from everloop.cli.worker import _ready
from tests.engine.conftest import make, until_counted, worker_of
from tests.helpers.servers.emptying import emptied
from tests.helpers.waiting import until

CLOSED = (
    "the app is closed: its `async with` block on this loop has ended. Keep the block open around everything "
    "that uses the app"
)
IN_A_LOOP = (
    "app.run() was called while an event loop runs in this thread; there, write\n"
    "    async with app.worker():\n        await main()"
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The one-line notices, which come at once instead of after three seconds."""
    lines: list[str] = []
    monkeypatch.setattr(notices, "show", lines.append)
    monkeypatch.setattr(notices, "_said", set())
    monkeypatch.setattr(sessions, "PATIENCE", 0.01)
    return lines


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Collect before and after, so that a warning belongs to the test that caused it."""
    gc.collect()
    yield
    gc.collect()


def with_echo(app: App) -> Any:
    @app.task
    async def echo(value: int) -> int:
        return value

    return echo


# -- names that no worker knows -----------------------------------------------------------------------------


async def test_a_call_that_no_worker_knows_waits_is_seen_and_runs_when_one_does(
    store: str, said: list[str]
) -> None:
    client = App("shop", "memory://shop-unknown" if store.startswith("memory") else store, embed=False)
    other = App("shop", client.store_url, embed=False)
    echo = with_echo(client)

    @other.task
    async def unrelated() -> str:
        return "unrelated"

    async with client, other.worker():
        task = await client.submit(echo(7))
        await until(lambda: bool(said))
        (seen,) = await client.tasks(state="ready")
        assert await unrelated() == "unrelated"
        assert said == [
            f"everloop: no worker serves queue 'default' of 'shop' with 'echo': run {client.worker_command()}"
        ]
        assert (seen.id, seen.name) == (task.id, "echo")
        async with client.worker():
            assert "function echo" in _ready(client, worker_of(client))
            assert await task == 7


def test_of_a_queue_that_no_function_names_it_is_said_how_to_serve_it(sqlite: str, said: list[str]) -> None:
    app, other = App("shop", sqlite), App("shop", sqlite)
    echo = with_echo(app)
    with_echo(other)

    async def main() -> int:
        assert await echo(1) == 1  # by a worker in this process, which serves the queues that functions name
        task = await app.submit(echo(2), queue="reports")
        await until(lambda: len(said) == 2)
        async with other.worker(queues=["reports"]):
            return await task

    assert asyncio.run(main()) == 2
    assert said[1] == (
        "everloop: no worker serves queue 'reports' of 'shop' with 'echo': run "
        f"{app.worker_command().removesuffix('`')} --queues reports`"
    )


@pytest.mark.server
@pytest.mark.parametrize("embed", [None, True])
def test_on_a_server_a_client_runs_no_worker_by_itself(
    postgresql_kept: str, said: list[str], embed: bool | None
) -> None:
    app = App("shop", emptied(postgresql_kept), embed=embed)
    echo = with_echo(app)

    async def main() -> None:
        task = app.create_task(echo(1))
        await until(lambda: bool(said))
        if embed:
            assert await task == 1
        else:
            assert (await app.counts())["ready"] == 1

    asyncio.run(main())
    assert said == [
        "everloop: no worker was running, so this process runs its tasks itself; to run them apart: "
        f"{app.worker_command()}"
        if embed
        else f"everloop: no worker serves queue 'default' of 'shop' with 'echo': run {app.worker_command()}"
    ]


async def test_a_call_of_a_forgotten_name_stays_in_the_store(sqlite: str, said: list[str]) -> None:
    first = make(sqlite)
    async with first:
        await first.submit(with_echo(first)(1))
    renamed = make(sqlite)

    @renamed.task
    async def shout(value: int) -> int:
        return value

    async with renamed.worker():
        assert await shout(2) == 2
        assert (await renamed.counts())["ready"] == 1

    again = make(sqlite)

    @again.task(name="shout", aliases=["echo"])
    async def shout_again(value: int) -> int:
        return value

    async with again.worker():
        await until_counted(again, "succeeded", 2)


# -- awaiting -----------------------------------------------------------------------------------------------


async def test_a_call_is_awaited_once(app: App) -> None:
    call = with_echo(app)(1)
    async with app.worker():
        assert await call == 1
        for again in (call, app.submit(call)):
            with pytest.raises(AlreadyAwaited) as caught:
                await again
            assert str(caught.value) == (
                f"<everloop.Call echo {call.id}> was scheduled before: a call runs once, like a coroutine. "
                "Keep its task (task = app.create_task(echo(...))) to await it twice, or call "
                "echo(...) again "
                "for another run"
            )
        with pytest.raises(AlreadyAwaited):
            app.create_task(call)
        assert (await app.counts())["succeeded"] == 1


def test_a_call_is_awaited_on_one_of_two_loops(app: App) -> None:
    call = with_echo(app)(1)

    async def main() -> int:
        async with app.worker():
            value: int = await call
            return value

    assert asyncio.run(main()) == 1
    with pytest.raises(AlreadyAwaited, match="was scheduled before: a call runs once, like a coroutine"):
        asyncio.run(main())


@pytest.mark.usefixtures("no_garbage")
def test_a_call_that_is_never_awaited_warns(app: App) -> None:
    echo = with_echo(app)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        echo(1)
        gc.collect()

    assert [(w.category, str(w.message)) for w in caught] == [
        (
            RuntimeWarning,
            (
                "call of 'echo' was never awaited: nothing was submitted. Await it, or "
                "`await app.submit(echo(...))`"
            ),
        )
    ]


# -- running ------------------------------------------------------------------------------------------------


async def test_app_run_inside_a_running_loop_says_what_to_write(app: App) -> None:
    echo = with_echo(app)
    with pytest.raises(UsageError) as caught:
        app.run(echo(1))

    assert str(caught.value) == IN_A_LOOP


def test_app_run_takes_a_coroutine(app: App) -> None:
    run: Any = app.run

    async def main() -> None: ...

    with pytest.raises(UsageError) as function:
        run(main)
    with pytest.raises(UsageError) as number:
        run(5)

    assert str(function.value).startswith("app.run() takes a coroutine or a call, not <function ")
    assert str(function.value).endswith("; did you mean app.run(main()), with parentheses?")
    assert str(number.value) == "app.run() takes a coroutine or a call, not 5"


@pytest.mark.usefixtures("no_garbage")
async def test_a_closed_app_refuses_everything(app: App) -> None:
    echo = with_echo(app)
    async with app.worker():
        done = await app.submit(echo(1))
        await done
    uses: list[Any] = [echo(2), app.submit(echo(3)), app.get_task(done.id), app.counts(), app.tasks()]
    for use in uses:
        with pytest.raises(ClosedError) as caught:
            await use
        assert str(caught.value) == CLOSED

    async with app:  # an app may be opened again
        assert (await app.counts())["succeeded"] == 1


def test_there_is_no_current_call_outside_of_a_task() -> None:
    with pytest.raises(NoCurrentCall) as caught:
        everloop.current()

    assert str(caught.value) == (
        "`everloop.current()` was called outside a task: it is known only in the body of a task function "
        "that a worker runs (`fetch.plain(...)` runs it without a call)"
    )


async def test_what_is_no_call_is_not_submitted(app: App) -> None:
    anything: Any = app

    async def fetch() -> None: ...

    coroutine = fetch()
    async with app:
        uses: list[Any] = [anything.submit(coroutine), anything.submit(5), anything.submit_many([5])]
        uses.append(anext(anything.as_completed([5])))
        for use in uses:
            with pytest.raises(
                UsageError,
                match=r"^a call is wanted, not (5|<coroutine object .*); "
                "decorate",
            ):
                await use
        with pytest.raises(UsageError) as caught:
            anything.create_task(coroutine)
        assert str(caught.value).endswith(
            "; decorate the function with @app.task and call it: app.submit(fetch(url))"
        )
        assert sum((await app.counts()).values()) == 0
    await coroutine  # it was not touched


async def test_ids_and_states_that_do_not_exist(app: App) -> None:
    missing = "no call has the id 'nope' (an id looks like 0198c0de-0000-7000-8000-000000000001)"
    async with app:
        for use in (app.get_task("nope"), app.cancel("nope"), app.retry("nope")):
            with pytest.raises(TaskNotFound) as caught:
                await use
            assert str(caught.value) == missing
        with pytest.raises(OptionError, match=r"^unknown state 'faild'; did you mean 'failed'\?; the states"):
            await app.tasks(state="faild")
        with pytest.raises(OptionError, match=r"^`limit` is a whole number, 1 or more, not 0$"):
            await app.tasks(limit=0)


# -- loops, threads, forks ----------------------------------------------------------------------------------


def test_two_loops_one_after_the_other(sqlite: str) -> None:
    app = App("test", sqlite)
    echo = with_echo(app)

    async def main(value: int) -> int:
        got: int = await echo(value)
        return got

    assert [asyncio.run(main(1)), asyncio.run(main(2)), app.run(main(3))] == [1, 2, 3]


def test_threads_with_a_loop_each(store: str) -> None:
    app = App("test", store)
    echo = with_echo(app)
    got: dict[int, list[int]] = {}

    async def main(number: int) -> None:
        async with app.worker():
            got[number] = await asyncio.gather(*[echo(number * 100 + n) for n in range(20)])

    threads = [threading.Thread(target=lambda n=n: asyncio.run(main(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert got == {number: [number * 100 + n for n in range(20)] for number in range(4)}


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
async def test_a_forked_child_uses_the_app_anew_and_leaves_the_parent_alone(
    sqlite: str, workdir: Path
) -> None:
    app = App("test", sqlite)
    echo = with_echo(app)
    async with app.worker():
        assert await echo(1) == 1
        child = os.fork()
        if child == 0:
            _in_the_child(app, echo, workdir / "child")
        status = await asyncio.to_thread(os.waitpid, child, 0)
        assert (workdir / "child").read_text() == "2"
        assert status[1] == 0
        assert await echo(3) == 3
        assert (await app.counts())["succeeded"] == 3


def _in_the_child(app: App, echo: Any, told: Path) -> None:
    """Run a call in a loop of this process, and end without the parent's pytest."""
    code = 1
    try:
        asyncio.events._set_running_loop(None)  # the parent's loop is not run here

        async def main() -> int:
            async with app.worker():
                got: int = await echo(2)
                return got

        told.write_text(str(asyncio.run(main())))
        code = 0
    except BaseException as error:
        told.write_text(repr(error))
        raise
    finally:
        os._exit(code)
