"""A forked child uses nothing of its parent's, which goes on: client, worker, `sync` and processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.helpers.processes import run_program, started

SHOP = """
import asyncio, os, sys, warnings
from everloop import App, NoCurrentCall, current
warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
app = App("shop", "sqlite:///shop.db", lease=60, process_pool=1)

@app.task
async def add(x: int, y: int) -> int:
    return x + y

@app.task(run="process")
def double(x: int) -> int:
    return 2 * x

@app.task
async def wait() -> int:
    with open("began", "a") as file:
        print(os.getpid(), file=file)
    if len(open("began").readlines()) == 1:
        await asyncio.sleep(600)
    return os.getpid()

def forked(work, leave=os._exit):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        work()
        sys.stdout.flush()
        leave(0)  # from inside a loop: as multiprocessing does, which shares that loop with nobody's end
    print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

PROGRAMS = {
    "client": """
async def main():
    async with app:
        task = await app.submit(add(1, 2), delay=0.5)
        forked(lambda: print("child:", app.sync.run(add(2, 2))))
        async with app.worker():
            print("parent:", await task, (await app.counts())["succeeded"])
asyncio.run(main())
""",
    "worker": """
@app.task
async def forks() -> None:
    def work():
        try:
            current()
        except NoCurrentCall:
            print("child: no call of the parent's")
        print("child:", app.sync.submit(add(2, 2)).name)  # the parent runs it, which waits for this process
    forked(work)

async def main():
    async with app.worker():
        await forks()
        print("parent:", await add(1, 2))
asyncio.run(main())
""",
    "sync": """
task = app.sync.submit(add(1, 2), delay=0.2)
forked(lambda: print("child:", app.sync.run(add(2, 2)), task.result(20)), leave=sys.exit)
print("parent:", task.result(20), app.sync.run(add(1, 1)))
""",
    "processes": """
async def main():
    async with app.worker():
        print("parent:", await double(1))
        (process,) = next(iter(app._processes.values()))._all
        def work():
            assert not app._processes
            assert process._ours.fileno() == -1
        forked(work)
        print("parent:", await double(2))
if __name__ == "__main__":
    asyncio.run(main())
""",
}
SAID = {
    "client": ["child: 4", "child ended with 0", "parent: 3 2"],
    "worker": ["child: no call of the parent's", "child: add", "child ended with 0", "parent: 3"],
    "sync": ["child: 4 3", "child ended with 0", "parent: 3 2"],
    "processes": ["parent: 2", "child ended with 0", "parent: 4"],
}


def test_parent_and_child_both_go_on(tmp_path: Path) -> None:
    for name, program in PROGRAMS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "shop.py").write_text(SHOP + program, encoding="utf-8")
        ran = run_program("-W", "error", "shop.py", folder=folder).checked()
        assert ran.lines == SAID[name], ran.err
        assert "Traceback" not in ran.err


def test_a_child_does_not_make_a_dead_worker_look_alive(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        f"""{SHOP}
async def main():
    async with app.worker():
        task = await app.submit(wait())
        while not os.path.exists("began"):
            await asyncio.sleep(0.01)
        if (child := os.fork()) == 0:
            import time
            time.sleep(600)
        print("child", child, flush=True)
        print(await task, flush=True)
if sys.argv[1:]:
    asyncio.run(main())
""",
        encoding="utf-8",
    )
    with started("shop.py", "first", folder=tmp_path, name="first") as first:
        first.until("child ")
        child = int(first.out.split()[1])
        try:
            first.kill()
            arguments = ("-m", "everloop", "worker", "shop:app")
            with started(*arguments, folder=tmp_path, name="second") as second:
                deadline = time.monotonic() + 20  # the lease is a minute
                while len((tmp_path / "began").read_text(encoding="utf-8").splitlines()) < 2:
                    assert time.monotonic() < deadline, second.err
                    time.sleep(0.01)
        finally:
            os.kill(child, signal.SIGKILL)
