"""One schedule: a world with its store, processes and programs, run from its seed to its end."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

from everloop._core import ids
from tests.sim import matrix, programs
from tests.sim.bodies import app
from tests.sim.checks import judge
from tests.sim.clients import Client
from tests.sim.faults import Cell, Plan
from tests.sim.loop import Circles, Clockwork, SimTask
from tests.sim.nodes import TIME, Node, simulated
from tests.sim.server import Server
from tests.sim.watch import Violated

#: Seconds in which everything has to end after the faults have: many times over what most schedules
#: take. A tree of slow bodies that fail and begin again within each other, on one worker of one slot,
#: has taken three minutes.
PATIENCE = 900.0


@dataclass
class Result:
    """What became of one schedule."""

    seed: int
    aim: Cell | None = None  # if it was given
    requests: int = 0
    calls: int = 0
    runs: int = 0
    seconds: float = 0.0
    met: Counter[Any] = field(default_factory=Counter)
    bells: Counter[Any] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    trace: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """What happened, in short: the same seed has the same."""
        text = f"{self.requests} {self.calls} {self.runs} {self.seconds} {sorted(map(str, self.met.items()))}"
        text += f"{sorted(self.sometimes.items())} {self.failure} {self.trace}"
        return blake2b(text.encode(), digest_size=8).hexdigest()


class World:
    """Everything of one schedule.

    Args:
        seed: Decides all of it.
        quiet: Without any fault.
        aim: The cell that is aimed at, instead of one that the seed chooses.
    """

    def __init__(self, seed: int, *, quiet: bool = False, aim: Cell | None = None) -> None:
        self.rng = random.Random(f"everloop {seed}")
        self.quiet = quiet
        random.seed(seed)  # what the engine spreads its pauses with
        ids._random, ids._counter, ids._prefix = "8000-00000000", itertools.count(1), (0, 0, "")
        SimTask._births = itertools.count()
        self.clockwork = Clockwork(self.rng)
        TIME.monotonic = self.clockwork.time
        self.aim, aims, self.scene = matrix.draw(self.rng, aim)
        plan = Plan(self.rng, aims, self.scene.who)
        plan.over = quiet
        if quiet:
            plan.bells = 0.0
        self.server = Server(self.clockwork, self.rng, plan)
        self.server.aimed = self.aim[0]
        self.server.pause, self.server.drains = self.scene.pause, self.scene.drains
        self.nodes: list[Node] = []
        self.healed = False
        self.ending = False
        self._lives: Counter[str] = Counter()
        self._make_programs()
        self.server.watch.on_quiet = self.look_for_the_end

    def _make_programs(self) -> None:
        rng, scene = self.rng, self.scene
        gardener = programs.Gardener(rng, rng.choice((3, 3, 5, 5, 8, 8, 12, 40)), scene)
        self.foreseen: dict[str, str | None] = {}
        self.clients: list[Client] = []
        for number in range(rng.choice((1, 1, 1, 2))):
            errands = []
            for root in range(2 if scene.key or scene.errand == "submit later" else rng.choice((1, 1, 2, 3))):
                plan = gardener.tree(f"c{number}.r{root}")
                errand = programs.errand(rng, plan, scene)
                programs.foresee(plan, self.foreseen)
                if errand[0] == "wait_for" or errand[3] is not None:
                    programs.cast_doubt(plan, self.foreseen)
                errands.append(errand)
            self.clients.append(Client(f"c{number}", errands, self.server.watch.ledger))
        self.workers = scene.workers or rng.choice((1, 1, 2, 2, 2, 3))
        self.concurrency = rng.choice((1, 2, 5))
        self.grace = rng.choice((0.0, 0.0, 0.5, 5.0))

    # -- processes -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the processes, and what happens to them at times of its own."""
        for number in range(self.workers):
            self.clockwork.after(0.2 * self.rng.random(), partial(self._start_worker, f"w{number}"))
        for client in self.clients:
            self.clockwork.after(0.2 * self.rng.random(), partial(self._start_client, client))
        late = self.scene.before or self.scene.pause == matrix.LONG
        self.clockwork.after(12.0 if late else self.rng.choice((2.0, 4.0, 8.0)), self._heal)
        if not self.quiet and self.rng.random() < 0.3:
            self.clockwork.after(4 * self.rng.random(), self._strike)

    def _node(self, kind: str, name: str, on_crash: Any) -> Node:
        self._lives[name] += 1
        node = Node(self.server, kind, f"{name}#{self._lives[name]}", on_crash)
        self.nodes.append(node)
        return node

    def _start_worker(self, name: str) -> None:
        if self.ending:
            return

        def crashed(_: Node) -> None:
            self._restart_worker(name)
            self.look_for_the_end()

        node = self._node("worker", name, crashed)
        node.start(self._serve(node)).add_done_callback(lambda task: self._worker_ended(name, task))

    async def _serve(self, node: Node) -> None:
        node.stopping = asyncio.Event()
        async with app.worker(concurrency=self.concurrency, grace=self.grace):
            await node.stopping.wait()

    def _worker_ended(self, name: str, task: Any) -> None:
        error = task.exception()
        if error is not None:
            self.server.watch.note(f"{name} could not start: {error}")
        self._restart_worker(name)
        self.look_for_the_end()

    def _restart_worker(self, name: str) -> None:
        self.clockwork.after(0.1 + 2 * self.rng.random(), partial(self._start_worker, name))

    def _start_client(self, client: Client) -> None:
        def again(_: object = None) -> None:
            self.clockwork.after(0.1 + self.rng.random(), partial(self._start_client, client))

        def ended(task: Any) -> None:
            error = "cancelled" if task.cancelled() else task.exception()
            if error is None:
                self.look_for_the_end()
                return
            self.server.watch.note(f"{client.name} failed: {error!r}")
            if not client.done:
                again()

        node = self._node("client", client.name, again)
        node.start(client.live(node)).add_done_callback(ended)

    def _strike(self) -> None:
        """Let something happen that no request is the cause of."""
        if self.healed:
            return
        node = self.rng.choice(self.nodes) if self.nodes else None
        if node is None or node.dead or (node.main_task is not None and node.main_task.done()):
            return
        what = self.rng.choice((node.crash, node.pause, node.drain))
        self.server.watch.note(f"strike: {what.__name__} {node.name}")
        what()

    def _heal(self) -> None:
        self.healed = True
        self.server.plan.over = True
        self.server.away_until = min(self.server.away_until, self.clockwork.now)

    # -- the end ---------------------------------------------------------------------------------------------

    def look_for_the_end(self) -> None:
        """Begin the end when every client has what it wanted and no call is live."""
        if not all(client.done for client in self.clients) or self.server.tables.live:
            return
        now = self.clockwork.now
        if self.server.under_way or any(node.busy_until > now and not node.dead for node in self.nodes):
            return
        if not self.ending:
            self.ending = True
            for node in self.nodes:
                if node.kind == "worker" and not node.dead:
                    node.drain()
        if all(node.dead or (node.main_task is not None and node.main_task.done()) for node in self.nodes):
            self.clockwork.over = True

    def run(self) -> None:
        """Run to the end.

        Raises:
            Violated: Something is not as it must be.
        """
        self.start()
        over = self.clockwork.run(until=PATIENCE)
        if self.server.watch.violation:
            raise Violated(self.server.watch.violation)
        if not over:
            raise Violated(f"at {self.clockwork.now:.4f} s: stuck: {self._stuck()}")
        # What is late (an answer, a timer) finds nobody any more; sessions that were left behind expire.
        judge(self)

    def _stuck(self) -> str:
        live = [f"{row.id} {row.state} {row.new.args!r:.60}" for row in self.server.tables.live.values()]
        clients = [client.name for client in self.clients if not client.done]
        nodes = [
            f"{node.name}: {node.main_task}"
            for node in self.nodes
            if not node.dead and node.main_task is not None and not node.main_task.done()
        ]
        return f"live calls {live}, clients not done {clients}, processes {nodes}"

    def bury(self) -> None:
        """Let go of everything."""
        self.server.watch.ledger.closed = True
        for node in self.nodes:
            node.bury()
            for loop in node.loops:
                app._sessions._open.pop(loop, None)
        app._sessions._latest = None


def run(seed: int, *, quiet: bool = False, aim: Cell | None = None) -> Result:
    """Run the schedule of a seed."""
    result = Result(seed, aim)
    world = World(seed, quiet=quiet, aim=aim)
    try:
        world.run()
    except (Violated, Circles) as error:
        result.failure = str(error)
    finally:
        world.bury()
    server = world.server
    result.requests, result.calls = server.requests, len(server.tables.rows)
    result.runs = sum(map(len, server.watch.ledger.runs.values()))
    result.seconds = world.clockwork.now
    result.met, result.bells = server.met, server.bells_met
    result.sometimes = server.watch.sometimes
    result.trace = list(server.watch.trace)
    return result


def run_many(seeds: Iterable[int], *, quiet: bool = False, aim: Cell | None = None) -> Iterator[Result]:
    """Run schedules one after the other, without the collector's whims."""
    with simulated(), _quiet():
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            for number, seed in enumerate(seeds, 1):
                yield run(seed, quiet=quiet, aim=aim)
                if number % 25 == 0:
                    gc.collect()
        finally:
            gc.enable()
            gc.unfreeze()


@contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of what processes log, nor of what the killed ones leave behind."""
    hook, level = sys.unraisablehook, logging.root.manager.disable
    sys.unraisablehook = lambda _: None
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.collect()
        logging.disable(level)
        sys.unraisablehook = hook
