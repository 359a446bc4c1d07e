"""Worker processes of the demo: started until ready, killed, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Self

from everloop.cli.exits import FAILED, Exit

#: Seconds that a worker gets to start, and to stop.
PATIENCE = 30.0


class Worker:
    """A process that runs `everloop worker` on the demo's app."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said: list[str] = []
        self._reading: asyncio.Task[None] | None = None
        self.pid = process.pid

    @classmethod
    async def start(cls, concurrency: int) -> Self:
        """Start one and wait until it serves.

        Raises:
            Exit: It did not start; its own words say why.
        """
        # -P: a file of the current folder must not stand in for a package.
        command = [sys.executable, "-P", "-m", "everloop", "worker", "everloop.cli.demo.pages:app"]
        process = await asyncio.create_subprocess_exec(
            *command,
            f"--concurrency={concurrency}",
            "--grace=5",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = cls(process)
        try:
            async with asyncio.timeout(PATIENCE):
                await worker._read_until(" ready:")
        except BaseException as error:
            await worker.kill()
            if isinstance(error, TimeoutError):
                raise Exit(
                    FAILED, f"the worker was not ready after {PATIENCE:g} s{worker._words()}"
                ) from None
            raise
        worker._reading = asyncio.create_task(worker._read_until(None))
        return worker

    async def _read_until(self, word: str | None) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        async for line in self._process.stderr:
            self._said.append(line.decode(errors="replace").rstrip())
            if word is not None and word in self._said[-1]:
                return
        if word is not None:
            raise Exit(FAILED, f"the worker ended before it was ready{self._words()}")

    def _words(self) -> str:
        return "".join(f"\n  {line}" for line in self._said[-20:])

    async def kill(self) -> None:
        """End it by SIGKILL, as a crash would, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """End it by SIGTERM, or else by SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def died(self) -> None:
        """Wait for an end that nobody asked for.

        Raises:
            Exit: It has ended; its own words say why.
        """
        code = await self._process.wait()
        raise Exit(FAILED, f"the worker {self.pid} ended by itself (exit code {code}){self._words()}")
