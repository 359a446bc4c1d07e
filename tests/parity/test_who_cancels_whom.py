"""Who cancels whom: each row of the table, where the awaited call runs here, and where it runs elsewhere."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from everloop import Task
from tests.helpers.crew import WAITS
from tests.helpers.stage import Stage
from tests.helpers.waiting import until


@pytest.fixture(params=["here", "elsewhere"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    """Serve the crew in this process, or in another."""
    stage = Stage.make(tmp_path)
    elsewhere = request.param == "elsewhere"
    with stage.worker() if elsewhere else nullcontext():
        async with stage.crew.app if elsewhere else stage.crew.app.worker():
            yield stage


@pytest.fixture
async def apart(tmp_path: Path) -> AsyncIterator[Stage]:
    """Be a client; tests start the workers that they want."""
    stage = Stage.make(tmp_path)
    async with stage.crew.app:
        yield stage


# -- a cancellation, a timeout, a group that fails: cancelled, down the tree --------------------------------

ways_to_give_up = pytest.mark.parametrize("how", [way for way in WAITS if way != "plainly"])


@ways_to_give_up
async def test_a_client_that_gives_up_cancels_what_it_awaits(stage: Stage, how: str) -> None:
    call = stage.crew.sleep("child")
    with pytest.raises(TimeoutError) if how in ("with wait_for", "with timeout") else nullcontext():
        try:
            assert await WAITS[how](call) == "cancelled"
        except ExceptionGroup as group:
            assert str(group.exceptions[0]) == "the group failed"

    assert stage.crew.log.lines == ["child begins", "child stops: cancelled", "child cleans up"]
    assert await stage.state(await stage.child("sleep")) == "cancelled"


@ways_to_give_up
async def test_a_body_that_gives_up_cancels_what_it_awaits(stage: Stage, how: str) -> None:
    said = await stage.crew.parent("body", how)

    assert said in ("body has waited enough", "body saw the group failed", "cancelled")
    assert stage.crew.log.lines[1:] == [
        "body's child begins",
        "body's child stops: cancelled",
        "body's child cleans up",
    ]
    assert await stage.state(await stage.child()) == "cancelled"


async def test_a_body_that_runs_into_its_timeout_cancels_what_it_awaits(stage: Stage) -> None:
    with pytest.raises(TimeoutError, match=r"0\.3 s"):
        await stage.crew.parent.options(timeout=0.3)("body", "plainly")

    why = "the attempt took longer than 0.3 s"
    await stage.crew.log.until("body stops: timeout", f"body's child stops: cancelled ({why})")
    assert await stage.state(await stage.child()) == "cancelled"


async def test_cancelling_a_task_goes_down_the_tree_and_up_again(stage: Stage) -> None:
    task = stage.crew.app.create_task(stage.crew.chain("link", 3))
    await stage.crew.log.until("link0 begins")
    assert task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task

    stops = [line for line in stage.crew.log.lines if "stops" in line]
    assert stops == ["link0 stops: cancelled (enough)", *(f"link{n} stops: cancelled" for n in (1, 2, 3))]
    assert [await stage.state(each) for each in await stage.crew.app.tasks()] == ["cancelled"] * 5


async def test_the_body_is_told_why(stage: Stage) -> None:
    task = await stage.crew.app.submit(stage.crew.sleep("child"))
    await stage.crew.log.until("child begins")
    task.cancel("the user pressed stop")
    with pytest.raises(asyncio.CancelledError, match="the user pressed stop"):
        await task

    assert "child stops: cancelled (the user pressed stop)" in stage.crew.log.lines


async def test_a_thread_is_told_and_its_end_is_awaited(stage: Stage) -> None:
    task = stage.crew.app.create_task(stage.crew.block("thread"))
    await stage.crew.log.until("thread begins")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert stage.crew.log.lines[-1] == "thread stops: cancelled"


async def test_app_cancel_stops_a_call_by_its_id(stage: Stage) -> None:
    task = stage.crew.app.create_task(stage.crew.sleep("child"))
    await stage.crew.log.until("child begins")
    assert await stage.crew.app.cancel(task.id, "by id")
    with pytest.raises(asyncio.CancelledError):
        await task

    assert "child stops: cancelled (by id)" in stage.crew.log.lines
    assert not await stage.crew.app.cancel(task.id), "it has ended"


async def test_a_call_that_waits_is_cancelled_before_it_runs(apart: Stage) -> None:
    task = await apart.crew.app.submit(apart.crew.sleep("child"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await apart.state(task) == "cancelled"
    assert apart.crew.log.lines == []


async def test_a_coroutine_task_cancelled_before_its_first_step_submits_nothing(stage: Stage) -> None:
    task = asyncio.create_task(stage.crew.sleep("child"))
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert await stage.crew.app.tasks() == []


# -- what the caller sees -----------------------------------------------------------------------------------


async def test_whatever_the_remote_end_made_of_it_the_caller_sees_a_cancellation(stage: Stage) -> None:
    task = stage.crew.app.create_task(stage.crew.stubborn("child"))
    await stage.crew.log.until("child begins")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    stored = await stage.crew.app.get_task(task.id, stage.crew.stubborn)
    assert (stored.state, await stored) == ("succeeded", "child did it all the same")


async def test_the_remote_end_is_awaited(stage: Stage) -> None:
    task = stage.crew.app.create_task(stage.crew.tidy("child", 0.3))
    await stage.crew.log.until("child begins")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert stage.crew.log.lines == ["child begins", "child is asked to stop", "child has stopped"]


async def test_a_second_cancel_waits_no_longer(stage: Stage) -> None:
    task = stage.crew.app.create_task(stage.crew.tidy("child", 1.0))
    await stage.crew.log.until("child begins")
    assert task.cancel()
    await stage.crew.log.until("child is asked to stop")
    assert not task.done()
    assert task.cancel()
    assert task.cancelled()
    assert "child has stopped" not in stage.crew.log.lines

    await stage.crew.log.until("child has stopped")
    await stage.until_state(task, "cancelled")


async def test_the_wait_for_the_remote_end_is_bounded(tmp_path: Path) -> None:
    stage = Stage.make(tmp_path, cancel_wait=0.2)
    with stage.worker():
        async with stage.crew.app:
            task = stage.crew.app.create_task(stage.crew.tidy("child", 1.0))
            await stage.crew.log.until("child begins")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(task), 0.9)

            assert "child has stopped" not in stage.crew.log.lines
            await stage.until_state(task, "cancelled")


# -- detached: who awaits it only observes ------------------------------------------------------------------


async def await_it(task: Task[Any]) -> Any:
    return await task


async def await_with_gather(task: Task[Any]) -> Any:
    return await asyncio.gather(task, asyncio.sleep(0))


async def await_with_wait_for(task: Task[Any]) -> Any:
    return await asyncio.wait_for(task, 600)


@pytest.mark.parametrize("how", ["submit", "get_task"])
@pytest.mark.parametrize("give_up", [await_it, await_with_gather, await_with_wait_for])
async def test_who_gives_up_on_a_detached_task_does_not_cancel_it(
    stage: Stage, how: str, give_up: Callable[[Task[Any]], Coroutine[Any, Any, Any]]
) -> None:
    app = stage.crew.app
    task = await app.submit(stage.crew.sleep("child", 0.5))
    observed = task if how == "submit" else await app.get_task(task.id)
    waiting = asyncio.create_task(give_up(observed))
    await stage.crew.log.until("child begins")
    waiting.cancel()
    await asyncio.wait([waiting])

    assert waiting.cancelled()
    assert await (await app.get_task(task.id)) == "child"
    assert stage.crew.log.lines == ["child begins", "child cleans up", "child ends"]


async def test_a_timeout_around_a_detached_task_does_not_cancel_it(stage: Stage) -> None:
    task = await stage.crew.app.submit(stage.crew.sleep("child", 0.5))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await task

    assert not task.done()
    assert await task == "child"


async def test_a_detached_task_is_cancelled_by_its_own_cancel_from_anywhere(stage: Stage) -> None:
    task = await stage.crew.app.submit(stage.crew.sleep("child"))
    await stage.crew.log.until("child begins")
    (await stage.crew.app.get_task(task.id)).cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert "child stops: cancelled" in stage.crew.log.lines


# -- drain, a lost lease, Ctrl-C, the end of the loop or the app: nothing -----------------------------------


async def test_a_drain_cancels_nothing_and_the_next_run_attaches_again(apart: Stage) -> None:
    with apart.worker("naps", name="of the child"):
        with apart.worker("default", name="of the parent") as draining:
            task = await apart.crew.app.submit(apart.crew.parent("body", "plainly"))
            await apart.crew.log.until("body's child begins")
            draining.signal(signal.SIGTERM)
            draining.ended().checked()
        await apart.crew.log.until("body stops: shutdown")
        child = await apart.child()
        assert (await apart.state(task) in ("ready", "scheduled"), await apart.state(child)) == (
            True,
            "leased",
        )

        with apart.worker("default", name="of the parent again"):
            await until(lambda: apart.crew.log.lines.count("body begins") == 2)
            await asyncio.sleep(0.2)
            assert apart.crew.log.lines.count("body's child begins") == 1
            child.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_a_drain_of_everything_runs_everything_again(apart: Stage) -> None:
    with apart.worker(name="first"):
        task = await apart.crew.app.submit(apart.crew.chain("link", 2))
        await apart.crew.log.until("link0 begins")
    assert sorted(line for line in apart.crew.log.lines if "stops" in line) == [
        f"link{n} stops: shutdown" for n in (0, 1, 2)
    ]

    with apart.worker(name="second"):
        await until(lambda: apart.crew.log.lines.count("link0 begins") == 2)
        assert len(await apart.crew.app.tasks()) == 4
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_worker_that_lost_its_lease_cancels_nothing(tmp_path: Path) -> None:
    stage = Stage.make(tmp_path, lease=1.0)
    async with stage.crew.app:
        with (
            stage.worker("naps", name="of the child"),
            stage.worker("default", name="of the parent") as frozen,
        ):
            task = await stage.crew.app.submit(stage.crew.parent("body", "plainly"))
            await stage.crew.log.until("body's child begins")
            frozen.signal(signal.SIGSTOP)
            await stage.until_state(task, "ready")
            frozen.signal(signal.SIGCONT)
            await until(lambda: stage.crew.log.lines.count("body begins") == 2)
            await stage.crew.log.until("body stops: shutdown")

            child = await stage.child()
            assert (child.state, stage.crew.log.lines.count("body's child begins")) == ("leased", 1)
            child.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_a_worker_that_dies_cancels_nothing(tmp_path: Path) -> None:
    stage = Stage.make(tmp_path, lease=1.0)
    async with stage.crew.app:
        with stage.worker("naps", name="of the child"):
            with stage.worker("default", name="of the parent") as dying:
                task = await stage.crew.app.submit(stage.crew.parent("body", "plainly"))
                await stage.crew.log.until("body's child begins")
                dying.kill()
            with stage.worker("default", name="of the parent again"):
                await until(lambda: stage.crew.log.lines.count("body begins") == 2)
                child = await stage.child()
                assert (child.state, stage.crew.log.lines.count("body's child begins")) == ("leased", 1)
                child.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task


# The child is of a queue that none of these programs serves, also where they embed a worker.
WAITING = 'async def main():\n    print(await crew.nap("child", 0.7))\n'
RUNS = {
    "asyncio.run": "asyncio.run(main())",
    "app.run": 'app.run(main(), queues=["default"])',
    "run_until_complete": "asyncio.new_event_loop().run_until_complete(main())",
    "async with app": "async def client():\n    async with app:\n        await main()\nasyncio.run(client())",
    "async with worker": (
        'async def serve():\n    async with app.worker(queues=["default"]):\n        await main()\n'
        "asyncio.run(serve())"
    ),
}


@pytest.mark.parametrize("run", RUNS)
async def test_ctrl_c_ends_the_waiting_only(apart: Stage, run: str) -> None:
    with apart.worker("naps"), apart.program(WAITING + RUNS[run]) as program:
        await apart.crew.log.until("child begins")
        program.signal(signal.SIGINT)
        ended = program.ended(10)
        # It waited no longer: it would have printed what it had waited for.
        assert (ended.out, "KeyboardInterrupt" in ended.err) == ("", True)

        assert await (await apart.child()) == "child"
    assert apart.crew.log.lines == ["child begins", "child cleans up", "child ends"]


async def test_ctrl_c_releases_what_an_embedded_worker_runs(apart: Stage) -> None:
    with apart.program(WAITING + "app.run(main())") as program:
        await apart.crew.log.until("child begins")
        program.signal(signal.SIGINT)
        assert "KeyboardInterrupt" in program.ended(10).err
    assert apart.crew.log.lines == ["child begins", "child stops: shutdown", "child cleans up"]

    with apart.worker():
        assert await (await apart.child()) == "child"


async def test_sigterm_ends_app_run_as_ctrl_c_does(apart: Stage) -> None:
    with apart.worker("naps"), apart.program(WAITING + RUNS["app.run"]) as program:
        await apart.crew.log.until("child begins")
        program.signal(signal.SIGTERM)
        assert program.ended(10).out == ""

        assert await (await apart.child()) == "child"
    assert apart.crew.log.lines == ["child begins", "child cleans up", "child ends"]


async def test_ctrl_c_cancels_where_that_was_asked_for(apart: Stage) -> None:
    run = 'app.run(main(), queues=["default"], on_interrupt="cancel")'
    with apart.worker("naps"), apart.program(WAITING + run) as program:
        await apart.crew.log.until("child begins")
        program.signal(signal.SIGINT)
        assert "KeyboardInterrupt" in program.ended(10).err

        await apart.until_state(await apart.child(), "cancelled")
        assert "child stops: cancelled" in apart.crew.log.lines


async def test_a_program_that_ends_does_not_wait_for_long_for_what_it_cancels(apart: Stage) -> None:
    program = (
        'async def main():\n    print(await crew.tidy("child", 60.0))\n'
        'app.run(main(), queues=["naps"], on_interrupt="cancel")'
    )
    assert apart.crew.app.cancel_wait == 10.0
    with apart.worker("default"), apart.program(program) as running:
        await apart.crew.log.until("child begins")
        running.signal(signal.SIGINT)
        assert "KeyboardInterrupt" in running.ended(7).err
        assert "child has stopped" not in apart.crew.log.lines


ENDS = RUNS | {
    "closed by hand": "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())\nloop.close()",
}
STARTS = """
async def main():
    created = app.create_task(crew.nap("created", 0.5))
    plain = asyncio.create_task(crew.nap("plain", 0.5))
    submitted = await app.submit(crew.nap("submitted", 0.5))
"""


@pytest.mark.parametrize("end", ENDS)
async def test_the_end_of_the_loop_ends_the_waiting_only(apart: Stage, end: str) -> None:
    with apart.worker("naps"), apart.program(STARTS + ENDS[end]) as program:
        program.ended(10).checked()

        naps = await apart.crew.app.tasks(name="nap")
        assert sorted([await nap for nap in naps]) == ["created", "plain", "submitted"]
        assert not any("stops" in line for line in apart.crew.log.lines)


async def test_closing_the_app_ends_the_waiting_only(tmp_path: Path) -> None:
    stage = Stage.make(tmp_path)
    with stage.worker():
        async with stage.crew.app:
            task = stage.crew.app.create_task(stage.crew.sleep("child", 1.0))
            await stage.crew.log.until("child begins")
        with pytest.raises(asyncio.CancelledError, match="the app was closed"):
            await task

        await stage.crew.log.until("child ends")


async def test_an_http_client_that_goes_away_cancels_nothing(stage: Stage) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=await stage.crew.sleep("child", 0.5))

    application = web.Application()
    application.router.add_get("/", handle)
    async with TestServer(application) as server:
        _, visitor = await asyncio.open_connection(server.host, server.port)
        visitor.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await stage.crew.log.until("child begins")
        visitor.close()
        await visitor.wait_closed()

        assert await (await stage.child("sleep")) == "child"
    assert stage.crew.log.lines == ["child begins", "child cleans up", "child ends"]


# -- the process that awaits dies: nothing ------------------------------------------------------------------


@pytest.mark.parametrize("run", ["asyncio.run", "async with app"])
async def test_the_death_of_a_client_cancels_nothing(apart: Stage, run: str) -> None:
    with apart.worker("naps"), apart.program(WAITING + RUNS[run]) as program:
        await apart.crew.log.until("child begins")
        program.kill()

        assert await (await apart.child()) == "child"
        assert apart.crew.log.lines == ["child begins", "child cleans up", "child ends"]
