"""A store, a ledger, a client in the test's process, and workers in others that the test may kill."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from everloop.store.url import sqlite_path
from tests.crash.programs.ledger import Ledger
from tests.helpers.processes import Running, started
from tests.helpers.waiting import until

ROOT = Path(__file__).resolve().parents[2]
TARGET = "tests.crash.programs.ledger:app"
#: Nothing that a test waits for takes longer.
LIMIT_S = 40.0


class Scene:
    """What a test of crashes plays with.

    Args:
        folder: For all files.
        stack: Ends the processes.
        store: The URL of a store on a server; else it is an SQLite file.
    """

    def __init__(self, folder: Path, stack: ExitStack, store: str | None = None) -> None:
        self.folder = folder
        self.ledger_path = folder / "ledger.txt"
        self.gate = folder / "gate"
        self.store = store or f"sqlite:///{folder}/store.db"
        self.ledger = Ledger(self.store)
        self.app = self.ledger.app
        self.env = {
            "EVERLOOP_STORE": self.store,
            "LEDGER": str(self.ledger_path),
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
        }
        self._stack = stack
        self._started = 0

    def program(self, *command: str) -> Running:
        """Start a Python program beside the store."""
        self._started += 1
        name = f"process{self._started}"
        return self._stack.enter_context(started(*command, folder=self.folder, env=self.env, name=name))

    def worker(self, concurrency: int = 20, grace: float = 0, target: str = TARGET) -> Running:
        """Start a worker; it serves soon."""
        options = ("--concurrency", str(concurrency), "--grace", str(grace))
        return self.program("-m", "everloop", "worker", target, *options)

    # -- the ledger ---------------------------------------------------------------------------------------

    def lines(self, word: str) -> list[tuple[str, int]]:
        """Return what stands in the ledger under this word: (of which call, by which process)."""
        text = self.ledger_path.read_text() if self.ledger_path.exists() else ""
        # A line may be seen while it is being written.
        rows = (line.split() for line in text[: text.rfind("\n") + 1].splitlines())
        return [(row[1], int(row[2])) for row in rows if row[0] == word]

    def times(self, word: str) -> Counter[str]:
        """Count the lines of this word by call."""
        return Counter(call for call, _ in self.lines(word))

    async def noted(self, word: str, times: int) -> None:
        """Wait until the ledger has a word so many times."""
        await self.until(lambda: len(self.lines(word)) >= times)

    # -- the store ----------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        await until(holds, LIMIT_S)

    async def until_counted(self, state: str, times: int) -> None:
        """Wait until the store counts so many calls of a state."""
        async with asyncio.timeout(LIMIT_S):
            while (await self.app.counts())[state] != times:
                await asyncio.sleep(0.005)

    async def running(self) -> set[str]:
        """Return the ids of the calls that are leased."""
        return {task.id for task in await self.app.tasks(state="leased", limit=10_000)}

    async def kill(self, worker: Running) -> set[str]:
        """Kill a worker and return the calls that were leased then."""
        stop(worker)  # first: a dead one's calls are taken over while we look
        leased = await self.running()
        worker.kill()
        return leased

    async def stop(self, worker: Running) -> None:
        """Stop a worker between two of its transactions: within one it holds the file for everybody."""
        async with asyncio.timeout(LIMIT_S):
            stop(worker)
            while not self._can_write():
                worker.signal(signal.SIGCONT)
                await asyncio.sleep(0.005)
                stop(worker)

    def _can_write(self) -> bool:
        connection = sqlite3.connect(sqlite_path(self.store), timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True


def stop(worker: Running) -> None:
    """Stop a process with SIGSTOP, and wait until it stands still."""
    worker.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
