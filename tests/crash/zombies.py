"""Two workers stand still past their lease, one of them while it drains; meanwhile their calls change hands.

The successor's bodies snooze, and it is drained: the calls have been leased, released and leased again when
the zombies go on. Whatever they want to write then is not theirs to write.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from everloop import Task
from tests.crash.programs.snoozing import Snoozing
from tests.crash.restarts import stored
from tests.crash.scene import LIMIT_S, Scene
from tests.helpers import kills
from tests.helpers.processes import Running

TARGET = "tests.crash.programs.snoozing:app"


class Zombies:
    """The scene, the calls, and who has them.

    Args:
        stop: Stops a worker between two of its transactions.
    """

    def __init__(self, scene: Scene, stop: Callable[[Running], Awaitable[None]]) -> None:
        self.scene = scene
        self.stop = stop
        self.snoozing = Snoozing(scene.store)
        self.nap = str(scene.folder / "nap")
        self.tasks: list[Task[int]] = []

    async def play(self) -> None:
        """Let them change hands, and the zombies go on."""
        async with self.snoozing.app:
            running, draining = await self._with_calls(0), await self._with_calls(2)
            draining.signal(signal.SIGTERM)
            draining.until("no more calls are taken")
            for zombie in (running, draining):
                await self.stop(zombie)
            last = await self._change_hands()

            held = await self._leased()
            for zombie in (running, draining):
                self._let_snooze(zombie)
                zombie.signal(signal.SIGCONT)
            running.until("opening a new session")
            assert draining.ended().code == 0
            kills.count(kills.STOPPED)
            kills.count(kills.STOPPED)
            assert await self._leased() == held == {task.id for task in self.tasks}
            assert len(self.scene.lines("begin")) == 14, "nobody has begun any of them again"

            self.scene.gate.touch()
            async with asyncio.timeout(LIMIT_S):
                assert await asyncio.gather(*self.tasks) == [0, 1, 2, 3]
            assert {pid for _, pid in self.scene.lines("did")} == {last.process.pid}
            for task in self.tasks:
                found = await stored(self.scene, task.id)
                # One lease was lost, the zombie's; drains and snoozes cost nothing.
                assert (found.state, found.attempt, found.crashes) == ("succeeded", 1, 1)

    async def _with_calls(self, first: int) -> Running:
        """Start a worker that has one call of each kind, and room for no other."""
        worker = self._worker(concurrency=2, grace=LIMIT_S)
        gate = str(self.scene.gate)
        self.tasks += [
            await self.snoozing.app.submit(self.snoozing.hold(first, gate)),
            await self.snoozing.app.submit(self.snoozing.snooze(first + 1, self.nap, gate)),
        ]
        await self.scene.noted("begin", first + 2)
        return worker

    async def _change_hands(self) -> Running:
        """Let a worker take the calls over, snooze, and be drained; return the one that has them at last."""
        second = self._worker(concurrency=4, grace=0)
        await self.scene.noted("begin", 8)
        self._let_snooze(second)
        await self.scene.noted("snoozed", 2)
        await self.scene.noted("begin", 10)
        second.signal(signal.SIGTERM)
        assert second.ended().code == 0
        last = self._worker(concurrency=4, grace=0)
        await self.scene.noted("begin", 14)
        return last

    def _let_snooze(self, worker: Running) -> None:
        for n in (1, 3):
            (self.scene.folder / f"nap-{n}-{worker.process.pid}").touch()

    def _worker(self, concurrency: int, grace: float) -> Running:
        return self.scene.worker(concurrency=concurrency, grace=grace, target=TARGET)

    async def _leased(self) -> set[str]:
        return {task.id for task in await self.snoozing.app.tasks(state="leased")}
