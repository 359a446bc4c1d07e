"""A folder with a store and the crew's log, and the processes that tests start there."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everloop import Task
from tests.helpers.crew import Crew
from tests.helpers.processes import Ran, Running, command, importing_from, started, worker
from tests.helpers.waiting import until

ROOT = Path(__file__).resolve().parents[2]
TARGET = "tests.helpers.crew:app"

PROGRAM = """
import asyncio, os, sys
from tests.helpers.crew import ACTIONS, Crew
crew = Crew.on(os.environ["EVERLOOP_STORE"], os.environ["CREW_LOG"])
app = crew.app
"""


@dataclass
class Stage:
    """Where the crew plays.

    Attributes:
        crew: The crew as this process sees it.
        settings: Those of the app, also in the other processes.
    """

    folder: Path
    crew: Crew
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def make(cls, folder: Path, **settings: Any) -> Stage:
        return cls(folder, Crew.on(f"sqlite:///{folder}/store.db", folder / "log", **settings), settings)

    @property
    def env(self) -> dict[str, str]:
        return {
            "EVERLOOP_STORE": self.crew.app.store_url,
            "CREW_LOG": str(self.crew.log.path),
            "CREW_SETTINGS": json.dumps(self.settings),
            **importing_from(ROOT),
        }

    def worker(self, *queues: str, name: str = "worker", grace: float = 0) -> AbstractContextManager[Running]:
        """Start a worker of these queues in a process of its own."""
        options = ["--grace", str(grace), *(["--queues", ",".join(queues)] if queues else [])]
        return worker(TARGET, *options, folder=self.folder, env=self.env, name=name)

    def program(self, text: str, *arguments: str, name: str = "program") -> AbstractContextManager[Running]:
        """Start a program that has the crew."""
        path = self.folder / f"{name}.py"
        path.write_text(PROGRAM + text, encoding="utf-8")
        return started(path, *arguments, folder=self.folder, env=self.env, name=name)

    def command(self, verb: str, *arguments: str, name: str = "command") -> Ran:
        """Run `everloop verb` on the crew."""
        return command(verb, TARGET, *arguments, folder=self.folder, env=self.env, name=name)

    async def state(self, task: Task[Any]) -> str:
        """Return a task's state as it is stored now."""
        return (await self.crew.app.get_task(task.id)).state

    async def until_state(self, task: Task[Any], state: str) -> None:
        """Wait for this state."""

        async def there() -> bool:
            return await self.state(task) == state

        await until(there, what=f"{task} is {state}")

    async def child(self, name: str = "nap") -> Task[Any]:
        """Return the only call of this function, once there is one."""
        found: list[Task[Any]] = []

        async def there() -> bool:
            found[:] = await self.crew.app.tasks(name=name)
            return bool(found)

        await until(there, what=f"a call of {name}")
        assert len(found) == 1
        return await self.crew.app.get_task(found[0].id)
