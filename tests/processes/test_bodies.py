"""What a body in a process of its own is given, and what becomes of what it does."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from everloop import FunctionError, ResultNotStorable, TaskCrashed, TaskFailed, UsageError
from tests.helpers.processes import Running
from tests.helpers.waiting import until

# The app is a module that is imported anew for each test.
Cpu = Any


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


async def begun(log: Path) -> int:
    """Wait until `wait` has begun, and return its process."""
    await until(lambda: any(line.startswith("begins") for line in lines(log)))
    return int(lines(log)[0].split()[1])


async def test_arguments_and_values_come_as_they_are_stored(cpu: Cpu) -> None:
    side, pid = await cpu.area(cpu.Square(3))

    assert side == 9
    assert pid not in (os.getpid(), await cpu.whose())
    assert await cpu.area_soon(cpu.Square(4)) == 16
    assert await cpu.own_loop() == "a loop of its own"


async def test_processes_are_kept_and_as_many_as_the_pool_has(cpu: Cpu) -> None:
    values = await asyncio.gather(*(cpu.area(cpu.Square(n)) for n in range(20)))

    assert [side for side, _ in values] == [n * n for n in range(20)]
    assert len({pid for _, pid in values}) <= 2


async def test_a_body_knows_its_call(cpu: Cpu) -> None:
    task = await cpu.app.submit(cpu.me())
    assert await task == [task.id, "me", 1, "default", None]

    measured = await cpu.app.submit(cpu.area(cpu.Square(1)))
    await measured
    await measured.refresh()
    assert repr(measured.progress) == "Progress(1/2, 'half')"


async def test_what_bodies_log_is_kept_with_their_calls(cpu: Cpu) -> None:
    tasks = [await cpu.app.submit(cpu.tell(n)) for n in range(6)]
    for n, task in enumerate(tasks):
        await task
        async with asyncio.timeout(20):
            while len(found := await task.logs()) < 2:
                await asyncio.sleep(0.01)
        assert sorted((line.level, line.logger, line.text) for line in found) == [
            ("WARNING", "cpu", f"warned of {n}"),
            ("print", "", f"printed {n}"),
        ]


async def test_exceptions_cross_by_class_and_are_tried_again_by_it(cpu: Cpu, log: Path) -> None:
    with pytest.raises(cpu.Late, match="too late") as caught:
        await cpu.late(str(log))
    assert isinstance(caught.value, TaskFailed)
    assert 'raise VeryLate("too late")' in str(caught.value.__cause__)
    assert "_child" not in str(caught.value.__cause__)
    assert lines(log) == ["late"]  # `never` knows the class by its base

    assert await cpu.again(str(log)) == 3
    assert lines(log)[1:] == ["again"] * 3


async def test_what_everloop_minds_it_minds_there_too(cpu: Cpu, log: Path) -> None:
    assert await cpu.put_off(str(log)) == 1
    with pytest.raises(ResultNotStorable, match=r"odd_value\(\) ran, but its result cannot be stored"):
        await cpu.odd_value(str(log))
    assert lines(log) == ["put off", "odd"]
    with pytest.raises(TaskFailed, match="4"):
        await cpu.leave(4)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "it ended itself with exit code 7"),
        ("segv", r"it was killed by SIGSEGV \(in native code\)"),
        ("kill", r"it was killed by SIGKILL \(as the kernel does when memory is short\)"),
    ],
)
async def test_a_death_is_a_crash_of_that_call_alone(
    cpu: Cpu, log: Path, tmp_path: Path, how: str, said: str
) -> None:
    gate = tmp_path / "gate"
    neighbour = await cpu.app.submit(cpu.hold(str(gate)))
    culprit = await cpu.app.submit(cpu.die(str(log), how))

    with pytest.raises(TaskCrashed, match=f"processes died with it 2 times, more often than .* {said}"):
        await culprit
    assert lines(log) == ["dies", "dies"]  # `crashes=1`
    assert (await cpu.app.get_task(culprit.id)).attempts == 0
    gate.touch()
    assert await neighbour == "let go"
    assert (await cpu.app.get_task(neighbour.id)).attempts == 1


async def test_a_cancel_reaches_a_body_that_waits_and_its_finally_runs(cpu: Cpu, log: Path) -> None:
    task = await cpu.app.submit(cpu.wait(str(log)))
    pid = await begun(log)
    await cpu.app.cancel(task.id)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert lines(log)[1:] == ["stops cancelled"]
    assert (await cpu.area(cpu.Square(2)))[0] == 4
    os.kill(pid, 0)  # it lives on, for the next call


async def test_a_timeout_reaches_it_too(cpu: Cpu, log: Path) -> None:
    with pytest.raises(TimeoutError, match=r"the attempt took longer than 0\.3 s"):
        await cpu.wait(str(log)).options(timeout=0.3)
    with pytest.raises(TimeoutError):
        await cpu.wait_on_the_loop(str(log))

    assert [line for line in lines(log) if line.startswith("stops")] == ["stops timeout"] * 2


async def test_signs_of_life_come_from_there(cpu: Cpu) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no sign of life for 0\.5 s"):
        await cpu.beat(5)
    assert time.monotonic() - began > 5 * 0.15 + 0.5


@pytest.mark.parametrize("how", ["stubborn", "deaf"])
async def test_a_body_that_does_not_stop_is_killed(cpu: Cpu, log: Path, how: str) -> None:
    task = await cpu.app.submit(cpu.wait(str(log), how))
    pid = await begun(log)
    await cpu.app.cancel(task.id)
    with pytest.raises(asyncio.CancelledError):
        await task

    await until(lambda: not Path(f"/proc/{pid}").exists())
    seen = await cpu.app.get_task(task.id)
    assert (seen.state, seen.attempts) == ("cancelled", 1)


async def test_signals_that_the_whole_service_gets_are_the_workers_to_mind(cpu: Cpu, log: Path) -> None:
    task = await cpu.app.submit(cpu.wait(str(log)))
    pid = await begun(log)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    await cpu.area(cpu.Square(1))

    assert lines(log) == [f"begins {pid}"]
    await cpu.app.cancel(task.id)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lines(log)[1:] == ["stops cancelled"]


async def test_calls_can_be_submitted_there_but_not_awaited(cpu: Cpu) -> None:
    submitted = await cpu.app.get_task(await cpu.submits(7))
    assert await submitted == 49

    with pytest.raises(
        UsageError, match=r"area_soon\(\) was awaited in the body of awaits\(\), which runs in"
    ):
        await cpu.awaits(7)


async def test_a_durable_callback_gets_the_finished_task(cpu: Cpu, log: Path) -> None:
    await cpu.app.submit(cpu.area_soon(cpu.Square(5)), on_done=functools.partial(cpu.after, str(log)))
    await until(lambda: lines(log) == ["after 25"])


async def test_a_function_that_no_import_finds_fails_and_says_why(
    cpu: Cpu, shared: tuple[str, Running], log: Path
) -> None:
    cpu.make_local("local")
    async with cpu.app.worker():
        with pytest.raises(TaskFailed, match=r"local\(\) cannot run in a process: importing ") as caught:
            await cpu.app.functions["local"]().options(retries=5)
    assert caught.value.type_name == "FunctionError"
    assert isinstance(caught.value, FunctionError)
    assert "at the top level of a module, not inside a function" in str(caught.value)
    assert (await cpu.app.tasks(name="local"))[0].attempts == 1
