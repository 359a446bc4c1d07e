"""A hunt: workers, clients and servers are killed at random moments while calls run, and a ledger judges.

The ledger is a file that bodies and clients append to, not through Everloop. Whatever dies,

* each call that the store has acknowledged is there (none is *lost*),
* has had its effect (none is *undone*), has ended well, and its one attempt is counted as one,
* ends soon once nobody is killed any more (none is *stuck*),
* and has run again only where the run before it was struck (there are no *duplicates*), or the machine has
  not given its process the processor for a third of a lease: then the others may take it for dead.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from everloop import App
from everloop.store.url import sqlite_path
from tests.crash.programs.hunted import LEASE, LEASE_S, LEAVES
from tests.helpers import kills
from tests.helpers.nursery import Child, Nursery
from tests.helpers.processes import importing_from
from tests.helpers.servers.server import Server

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "tests.crash.programs.hunted"
#: Processes at a time, and bodies at once in each worker.
WORKERS, CLIENTS, CONCURRENCY = 3, 2, 8
#: How many of the workers that are killed run something; the others are at any moment, also of their start.
RUNS = 0.8
#: Seconds between two strikes, in the mean.
PAUSE_S = 0.12
#: Seconds that the end of everything may take on a busy machine.
LIMIT_S = 60.0


class Ledger:
    """What processes have noted so far, read on from where the last reading ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.added = set[str]()
        self.got = Counter[str]()
        self.did = set[tuple[str, int]]()
        self.effects = set[str]()
        #: By whom each call was begun, in order.
        self.runs: dict[str, list[int]] = {}
        #: Of each process, whether what it begins now may be a run that was its own before it was stopped.
        self.late: dict[int, set[str]] = {}
        #: Who was not given the processor for a third of a lease, or more: it may be taken for dead.
        self.starved = set[int]()
        self._running: dict[int, set[str]] = {}
        self._read = 0

    def read(self) -> None:
        """Read what is new."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]  # a line may be seen while it is being written
        self._read += len(text)
        for line in text.decode().splitlines():
            word, id_, pid = line.split()
            self._note(word, id_, int(pid))

    def _note(self, word: str, id_: str, pid: int) -> None:
        if word == "added":
            self.added.add(id_)
        elif word == "got":
            self.got[id_] += 1
        elif word == "did":
            self.did.add((id_, pid))
            self.effects.add(id_)
            self._running.get(pid, set()).discard(id_)
        elif word == "starved":
            self.starved.add(pid)
        elif not self._is_late(id_, pid):
            self.runs.setdefault(id_, []).append(pid)
            self._running.setdefault(pid, set()).add(id_)

    def _is_late(self, id_: str, pid: int) -> bool:
        """Whether a run begins whose lease may be another's: its process was stopped since it asked for that.

        The server may also have given it a lease when nobody looked any more at what it holds; then another
        has run the call since.
        """
        return pid in self.late and (id_ in self.late[pid] or self.runs.get(id_, [pid])[-1] != pid)

    def begun_by(self, pid: int) -> set[str]:
        """Return the calls that a process has begun and not done."""
        return self._running.get(pid, set()).copy()


@dataclass
class Found:
    """What became of it all."""

    kills: Counter[str] = field(default_factory=Counter[str])
    drains: int = 0
    calls: int = 0
    repeated: int = 0
    starved: int = 0
    lost: list[str] = field(default_factory=list[str])
    undone: list[str] = field(default_factory=list[str])
    stuck: list[str] = field(default_factory=list[str])
    duplicates: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])

    def numbers(self) -> dict[str, Any]:
        """Return how many there are of each."""
        lists = {
            name: len(getattr(self, name)) for name in ("lost", "undone", "stuck", "duplicates", "wrong")
        }
        return {
            "kills": dict(self.kills),
            "drains": self.drains,
            "calls": self.calls,
            "repeated": self.repeated,
            "starved": self.starved,
            **lists,
        }

    def check(self) -> None:
        """Raise unless all is well.

        Raises:
            AssertionError: Something is lost, undone, stuck, twice or wrong; with what it is.
        """
        faults = {
            name: getattr(self, name)[:10] for name in ("lost", "undone", "stuck", "duplicates", "wrong")
        }
        assert not any(faults.values()), f"{self.numbers()}: {faults}"


class Hunt:
    """Three workers and two clients on a store, and what befalls them.

    Args:
        folder: For all files.
        store: The URL of the store.
        rng: Decides what is struck, and when.
        server: The server of this store, to be killed too.
        lease: That of all of them, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        store: str,
        rng: random.Random,
        server: Server | None = None,
        lease: float = LEASE_S,
    ) -> None:
        self.folder = folder
        self.store = store
        self.rng = rng
        self.server = server
        self.ledger = Ledger(folder / "ledger.txt")
        self.enough = folder / "enough"
        self.found = Found()
        self.lease = lease
        self.app = App("hunted", store, lease=lease, embed=False)
        self.workers: list[Child] = []
        self.clients: list[Child] = []
        #: What was leased when a worker was struck, by that worker's process.
        self.struck: dict[int, set[str]] = {}
        self.drained = set[int]()
        self._aside = set[asyncio.Task[None]]()
        self._frozen = False
        self._counted = Counter[str]()
        self._began = time.monotonic()

    async def kill(self, times: int) -> Found:
        """Kill so often, let everything end, and judge."""
        env = {
            "EVERLOOP_STORE": self.store,
            "LEDGER": str(self.ledger.path),
            LEASE: str(self.lease),
            **importing_from(ROOT),
        }
        self._counted = kills.counted()
        with ExitStack() as stack:
            self.nursery = stack.enter_context(Nursery(PROGRAM, folder=self.folder, env=env))
            async with self.app:
                await self.app.counts()
                self.workers = [self._worker() for _ in range(WORKERS)]
                self.clients = [self._client() for _ in range(CLIENTS)]
                while self.kills < times:
                    await asyncio.sleep(self.rng.expovariate(1 / PAUSE_S))
                    await self._strike()
                self.enough.touch()
                self._say("enough")
                await self._let_end()
                self._say("judging")
                await self._judge()
        return self.found

    @property
    def kills(self) -> int:
        """How many have been struck."""
        return (kills.counted() - self._counted).total()

    # -- what befalls them ----------------------------------------------------------------------------------

    async def _strike(self) -> None:
        strikes: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (80, self._kill_a_worker),
            (8, self._kill_a_client),
            (4, self._stop_a_worker),
            (4, self._drain_a_worker),
        ]
        if self.server is not None:
            strikes.append((4, self._kill_the_server))
        weights, actions = zip(*strikes, strict=True)
        (action,) = self.rng.choices(actions, weights)
        self._say(f"{self.kills}: {action.__name__}")
        await action()

    async def _kill_a_worker(self) -> None:
        victim = await self._one_that_runs() if self.rng.random() < RUNS else self.rng.choice(self.workers)
        self.workers.remove(victim)
        self.workers.append(self._worker())
        if victim.stop():
            self.struck[victim.pid] = await self._leased()  # it stands still: what it holds stays so
            assert victim.kill()
        else:
            self._could_not_begin(victim)

    async def _one_that_runs(self) -> Child:
        """Wait until a worker runs something; else the dead are never missed."""
        running: list[Child] = []

        def some() -> bool:
            self._replace_the_dead()
            running[:] = [worker for worker in self.workers if self.ledger.begun_by(worker.pid)]
            return bool(running)

        await self._until(some)
        return self.rng.choice(running)

    async def _kill_a_client(self) -> None:
        victim = self._taken(self.clients)
        self.clients.append(self._client())
        if not victim.kill():
            self._could_not_begin(victim)

    async def _kill_the_server(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)

    async def _drain_a_worker(self) -> None:
        victim = self._taken(self.workers)
        self.workers.append(self._worker())
        if victim.is_ready:  # before that a signal ends it as it ends any program
            self.found.drains += 1
            self._begin(self._until_drained(victim))
        else:
            self.struck[victim.pid] = set()
            victim.kill()

    async def _stop_a_worker(self) -> None:
        if not self._frozen:  # one at a time
            ready = [worker for worker in self.workers if worker.is_ready]
            if ready:
                self._frozen = True
                victim = self.rng.choice(ready)
                self.workers.remove(victim)
                self.workers.append(self._worker())
                self._begin(self._stop_past_lease(victim))

    async def _stop_past_lease(self, victim: Child) -> None:
        """Stop a worker while it runs something, until others do; then let it go on, and end."""
        held = await self._stop_while_it_runs(victim)
        if held:
            await self._until(lambda: all(self.ledger.runs[id_][-1] != victim.pid for id_ in held))
            victim.signal(signal.SIGCONT)
            await self._until(lambda: "opening a new session" in victim.err)
            kills.count(kills.STOPPED)
        self._frozen = False
        await self._until_drained(victim)

    async def _stop_while_it_runs(self, victim: Child) -> set[str]:
        """Stop it where others can go on; return what it runs then: nothing when it does not get anything."""
        while not self.enough.exists():
            await asyncio.sleep(0.01)
            self.ledger.read()
            if not self.ledger.begun_by(victim.pid):
                continue
            assert victim.stop(), f"a worker has ended by itself:\n{victim.err}"
            leased = await self._leased()
            self.ledger.read()
            held = self.ledger.begun_by(victim.pid) & leased
            # What it has leased and not begun yet, it begins when it goes on, perhaps too late.
            self.struck.setdefault(victim.pid, set()).update(leased)
            if held and await asyncio.to_thread(self._can_write):
                self.ledger.late[victim.pid] = leased
                return held
            victim.signal(signal.SIGCONT)
        return set()

    def _can_write(self) -> bool:
        """Whether nobody holds the whole store, as who is stopped within a transaction does on SQLite."""
        if not self.store.startswith("sqlite"):
            return True
        with closing(sqlite3.connect(sqlite_path(self.store), timeout=1.0, isolation_level=None)) as mine:
            try:
                mine.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            mine.execute("ROLLBACK")
        return True

    async def _until_drained(self, worker: Child) -> None:
        self.drained.add(worker.pid)
        worker.signal(signal.SIGTERM)
        await self._until_ended(worker)

    async def _until_ended(self, child: Child) -> None:
        await self._until(lambda: not child.alive())
        assert child.code == 0, f"{child.pid} has ended with {child.code}:\n{child.err}"

    def _replace_the_dead(self) -> None:
        """Start others for those that have ended because there was no server."""
        for children, start in ((self.workers, self._worker), (self.clients, self._client)):
            for child in [child for child in children if not child.alive()]:
                self._could_not_begin(child)
                children.remove(child)
                children.append(start())

    def _could_not_begin(self, child: Child) -> None:
        """Judge one that has ended by itself: it came while there was no server."""
        assert kills.counted()[kills.SERVER] > self._counted[kills.SERVER] and not child.is_ready, (
            f"a process has ended by itself, with {child.code}:\n{child.err}"
        )

    # -- the end --------------------------------------------------------------------------------------------

    async def _let_end(self) -> None:
        for aside in list(self._aside):
            await aside
        for client in self.clients:
            await self._until(partial(_has_ended, client))  # it awaits what it has added
            if client.code:
                self._could_not_begin(client)
        ends = time.monotonic() + LIMIT_S
        while time.monotonic() < ends and sum(await self._unfinished()):
            await asyncio.sleep(0.05)

    async def _unfinished(self) -> list[int]:
        counts = await self.app.counts()
        return [counts[state] for state in ("waiting", "scheduled", "ready", "leased")]

    async def _judge(self) -> None:
        self.ledger.read()
        found, ledger = self.found, self.ledger
        found.kills = kills.counted() - self._counted
        tasks = await self.app.tasks(limit=1_000_000)
        ids = {task.id for task in tasks}
        found.calls = len(ids)
        found.starved = len(ledger.starved - ledger.late.keys())  # who was stopped was struck
        found.repeated = sum(len(pids) > 1 for pids in ledger.runs.values())
        found.lost = sorted(ledger.added - ids)
        found.undone = sorted(ids - ledger.effects)
        for task in tasks:
            if task.state in ("ready", "leased", "scheduled", "waiting"):
                found.stuck.append(f"{task.id} is {task.state}")
            elif (task.state, task.attempts) != ("succeeded", 1):
                found.wrong.append(f"{task.id} is {task.state} after {task.attempts} attempts")
        found.duplicates = [
            f"{id_} ran again after {pid}, which was not struck while it ran"
            for id_, pids in ledger.runs.items()
            for pid in pids[:-1]
            if not self._was_struck(id_, pid)
        ]
        names = Counter(task.name for task in tasks)
        if names["leaf"] != LEAVES * names["tree"]:
            found.wrong.append(f"there are {names['leaf']} leaves of {names['tree']} trees")
        found.wrong += [f"{id_} was told {times} times" for id_, times in ledger.got.items() if times > 1]
        found.wrong += [f"{id_} was told, and is not there" for id_ in ledger.got.keys() - ids]

    def _was_struck(self, id_: str, pid: int) -> bool:
        if id_ in self.struck.get(pid, ()):
            return True
        if pid in self.ledger.starved:
            return True
        return pid in self.drained and (id_, pid) not in self.ledger.did

    # -- plumbing -------------------------------------------------------------------------------------------

    def _worker(self) -> Child:
        options = ("--concurrency", str(CONCURRENCY), "--grace", "0")
        return self.nursery.worker(f"{PROGRAM}:app", *options)

    def _client(self) -> Child:
        return self.nursery.program(PROGRAM, str(self.enough))

    def _taken(self, children: list[Child]) -> Child:
        return children.pop(self.rng.randrange(len(children)))

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:.2f} s: {what}", flush=True)

    async def _leased(self) -> set[str]:
        return {task.id for task in await self.app.tasks(state="leased", limit=100_000)}

    def _begin(self, doing: Coroutine[Any, Any, None]) -> None:
        self._aside.add(asyncio.create_task(doing))

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                while not holds():
                    await asyncio.sleep(0.01)
                    self.ledger.read()
        except TimeoutError:
            raise AssertionError(f"nothing happens any more: {await self._state()}") from None

    async def _state(self) -> str:
        """Tell who lives, what each has said last, and what the store has."""
        said = [
            f"{kind} {child.pid} {'lives' if child.alive() else 'is dead'}: {child.err.splitlines()[-3:]}"
            for kind, children in (("worker", self.workers), ("client", self.clients))
            for child in children
        ]
        unfinished = await self.app.tasks(state=("waiting", "scheduled", "ready", "leased"), limit=100)
        told = [f"{task.id} {task.name} is {task.state}" for task in unfinished]
        counts = {state: number for state, number in (await self.app.counts()).items() if number}
        return "\n".join([str(counts), *said, *told])


def _has_ended(child: Child) -> bool:
    return not child.alive()
