"""How processes of a worker begin and end with it, and where they find their functions."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from everloop import UsageError
from everloop.engine.processes import child as processes
from everloop.engine.processes.ends import last_words
from tests.helpers.processes import run_program, started, worker
from tests.helpers.waiting import until
from tests.processes.conftest import TARGET, environment, load

Cpu = Any


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def runs(pid: int) -> bool:
    """Tell whether a process runs; a dead one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def begun(log: Path, times: int = 1) -> list[int]:
    await until(lambda: sum(line.startswith("begins") for line in lines(log)) == times)
    return [int(line.split()[1]) for line in lines(log) if line.startswith("begins")]


async def test_no_process_outlives_its_worker_whatever_its_body_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    cpu = load(store, monkeypatch)
    async with cpu.app:
        with started("-m", "everloop", "worker", TARGET, folder=tmp_path, env=environment(store)) as running:
            for how in ("stubborn", "deaf"):
                await cpu.app.submit(cpu.wait(str(log), how))
            pids = await begun(log, 2)
            running.kill()
        await until(lambda: not any(map(runs, pids)), what=f"{pids} to end")


async def test_a_process_ends_with_the_socket_where_no_kernel_kills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    monkeypatch.setattr(
        processes, "_PROGRAM", processes._PROGRAM.replace("main(", "main(die_with=False, fd=")
    )
    monkeypatch.setattr(processes, "_PROGRAM", processes._PROGRAM.replace(", {parent}", ", parent={parent}"))
    cpu = load(f"sqlite:///{tmp_path}/store.db", monkeypatch)
    async with cpu.app.worker():
        task = await cpu.app.submit(cpu.wait(str(log), "stubborn"), crashes=0)
        (pid,) = await begun(log)
        (process,) = next(iter(cpu.app._processes.values()))._all
        process._listening.cancel()
        process._ours.shutdown(2)
        await until(lambda: not runs(pid))
        with pytest.raises(Exception, match="processes died with it 1 times"):
            await task


async def test_a_drain_releases_what_runs_there_unharmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    cpu = load(store, monkeypatch)
    async with cpu.app:
        with worker(TARGET, "--grace", "0", folder=tmp_path, env=environment(store)):
            task = await cpu.app.submit(cpu.wait(str(log)))
            (pid,) = await begun(log)
        seen = await cpu.app.get_task(task.id)

    assert lines(log)[1:] == ["stops shutdown"]
    assert (seen.state, seen.attempts) == ("ready", 0)
    assert not runs(pid)


async def test_what_a_drain_cannot_stop_is_killed_and_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    monkeypatch.setattr(processes, "KILL_AFTER", 0.1)
    cpu = load(f"sqlite:///{tmp_path}/store.db", monkeypatch)
    async with cpu.app:
        async with cpu.app.worker():
            task = await cpu.app.submit(cpu.wait(str(log), "deaf"))
            (pid,) = await begun(log)
        assert not runs(pid)
        seen = await cpu.app.get_task(task.id)
    assert (seen.state, seen.attempts) == ("ready", 0)


async def test_a_worker_takes_no_more_than_it_has_processes_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = load(f"sqlite:///{tmp_path}/store.db", monkeypatch)
    gate = tmp_path / "gate"
    async with cpu.app.worker():
        held = await cpu.app.submit_many([cpu.hold(str(gate)) for _ in range(5)])
        assert await cpu.whose() == os.getpid()  # others are not held up by these
        counts = await cpu.app.counts()
        gate.touch()
        assert await asyncio.gather(*held) == ["let go"] * 5
    assert (counts["leased"], counts["ready"]) == (2, 3)


async def test_what_a_body_started_is_killed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    monkeypatch.setattr(processes, "KILL_AFTER", 0.1)
    cpu = load(f"sqlite:///{tmp_path}/store.db", monkeypatch)
    async with cpu.app.worker():
        task = await cpu.app.submit(cpu.starts(str(log)))
        pids = await begun(log, 2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await until(lambda: not any(map(runs, pids)))


async def test_a_store_in_memory_cannot_be_reached_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = load("memory://", monkeypatch)
    async with cpu.app.worker():
        assert await cpu.area_soon(cpu.Square(2)) == 4
        with pytest.raises(
            UsageError, match="lives inside the worker's process, and this body runs in another"
        ):
            await cpu.submits(1)


def test_last_words() -> None:
    assert last_words(0) == "it ended itself with exit code 0"
    assert last_words(-signal.SIGTERM) == "it was killed by SIGTERM"
    assert last_words(-63) == "it was killed by signal 63"


# -- where a function is found again ------------------------------------------------------------------------

PROGRAM = """
import asyncio, logging, os
from everloop import App, TaskFailed
app = App("shop", process_pool=1)

@app.task(run="process")
def add(x: int, y: int) -> int:
    logging.getLogger("shop").info("adds %d", x)
    return x + y

async def main():
    try:
        print(await add(1, 2))
    except TaskFailed as error:
        print(type(error).__name__, error)
"""
GUARD = """
if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(levelname)s from %(name)s: %(message)s")
    app.run(main())
"""


def test_a_program_that_is_started_finds_its_functions_there_and_logs_alike(tmp_path: Path) -> None:
    (tmp_path / "my-shop.py").write_text(PROGRAM + GUARD, encoding="utf-8")
    ran = run_program("my-shop.py", folder=tmp_path).checked()

    assert ran.out == "3\n"
    assert "INFO from shop: adds 1" in ran.err


def test_so_does_one_started_with_m(tmp_path: Path) -> None:
    (tmp_path / "shops").mkdir()
    (tmp_path / "shops" / "__init__.py").touch()
    (tmp_path / "shops" / "paris.py").write_text(PROGRAM + GUARD, encoding="utf-8")

    assert run_program("-m", "shops.paris", folder=tmp_path).checked().out == "3\n"


def test_a_program_without_a_guard_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(f"{PROGRAM}\napp.run(main())\n", encoding="utf-8")
    ran = run_program("shop.py", folder=tmp_path).checked()

    assert "FunctionError add() cannot run in a process:" in ran.out
    assert 'put the last line under\n    if __name__ == "__main__":' in ran.out


def test_an_interactive_session_is_told_what_to_do(tmp_path: Path) -> None:
    ran = run_program("-c", f"{PROGRAM}\napp.run(main())\n", folder=tmp_path).checked()

    assert "add() cannot run in a process: it is declared in an interactive session" in ran.out
