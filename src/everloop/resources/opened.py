"""What is open in this process, loop by loop: opened once, closed in reverse order."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast
from weakref import WeakSet

from everloop._core.errors import ClosedError, UsageError
from everloop.resources.living import Living
from everloop.resources.patience import finish

log = logging.getLogger("everloop")

T = TypeVar("T")


class OpenHere:
    """What is open on one loop."""

    def __init__(self) -> None:
        self._living: dict[Hashable, Living] = {}
        self._made: dict[Hashable, object] = {}
        # Invariant: in the order in which they became open.
        self._closers: list[tuple[Hashable, str, Callable[[], Awaitable[None]]]] = []
        self._dropped: dict[Hashable, Callable[[], None]] = {}
        self._closing: asyncio.Task[None] | None = None
        self.closed = False
        self._at_end = self._until_loop_ends()
        _begin(self._at_end)

    @property
    def closing(self) -> bool:
        """Whether nothing can be opened any more."""
        return self._closing is not None or self.closed

    async def get(self, key: Hashable, name: str, open_: Callable[[], AsyncIterator[Any]]) -> Any:
        """Return what the generator of `open_` yields, opened once."""
        living = self._living.get(key)
        if living is None or living.failed:
            living = self._living[key] = Living(name, open_, self._note)
        return await living.get()

    def _note(self, living: Living) -> None:
        self._closers.append((living, living.name, living.close))

    def make(
        self,
        key: Hashable,
        name: str,
        make: Callable[[], T],
        close: Callable[[T], Awaitable[None]],
        drop: Callable[[T], None],
    ) -> T:
        """Return what `make` returns, made once.

        Args:
            key: What it is known by.
            name: Its name, for the log.
            make: Makes it.
            close: Closes it with the app.
            drop: Closes what it can without a loop, when the loop was closed before.
        """
        if key not in self._made:
            made = self._made[key] = make()
            self._closers.append((key, name, lambda: close(made)))
            self._dropped[key] = lambda: drop(made)
        return cast("T", self._made[key])

    def made(self, key: Hashable) -> Any:
        """Return what was made under `key`, or None."""
        return self._made.get(key)

    def forget(self, key: Hashable) -> None:
        """Let go of what was made under `key`, and is closed already."""
        if key in self._made:
            del self._made[key], self._dropped[key]
            self._closers = [each for each in self._closers if each[0] != key]

    async def close(self, *, loop_ends: bool = False) -> None:
        """Close everything, the last opened first; whoever else asks meanwhile waits for the same."""
        if self.closed:
            return
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="everloop-close")
        await asyncio.wait([self._closing])
        if not loop_ends:
            await self._at_end.aclose()

    async def _close(self) -> None:
        for living in self._living.values():
            living.give_up()
        for _, name, close in reversed(self._closers):
            try:
                await close()
            except BaseException:
                log.exception("everloop: closing the resource %r failed", name)
        self.closed = True

    async def _until_loop_ends(self) -> AsyncGenerator[None, None]:
        # `asyncio.run` closes asynchronous generators at its end, so this one is the hook.
        try:
            yield
        finally:
            await self.close(loop_ends=True)

    def drop(self) -> None:
        """Let go of all this without its loop, which is closed."""
        self.closed = True
        if self._closers:
            names = ", ".join(repr(name) for _, name, _ in self._closers)
            log.warning(
                "everloop: a loop was closed while %s was open on it; close the app first "
                "(`async with app:`, or app.run(...))",
                names,
            )
        for drop in self._dropped.values():
            drop()


def _begin(generator: AsyncGenerator[None, None]) -> None:
    """Run a generator that awaits nothing to its first yield; from then on the loop knows it."""
    try:
        anext(generator).__await__().__next__()
    except StopIteration:
        return


class OpenPerLoop:
    """What is open in this process, by loop."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._here: dict[asyncio.AbstractEventLoop, OpenHere] = {}
        _all.add(self)

    def here(self) -> OpenHere:
        """Return what is open on the running loop.

        Raises:
            ClosedError: It is being closed.
            UsageError: No loop runs.
        """
        self._drop_inherited()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "resources, pools and engines belong to a running event loop: use them inside `async def`"
            ) from None
        here = self._here.get(loop)
        if here is None or here.closed:
            self._drop_closed()
            here = self._here[loop] = OpenHere()
        if here.closing:
            raise ClosedError("the app is being closed: its resources cannot be used any more")
        return here

    async def aclose(self) -> None:
        """Close what is open on the running loop."""
        self._drop_inherited()
        loop = asyncio.get_running_loop()
        here = self._here.get(loop)
        if here is None:
            return
        try:
            await finish(here.close())
        finally:
            if here.closed and self._here.get(loop) is here:
                del self._here[loop]

    def _drop_inherited(self) -> None:
        if os.getpid() != self._pid:
            # A fork: sockets, files and threads of the parent are not ours to use or to close. They are
            # kept, because to collect them would close them.
            _inherited.append(self._here)
            self._pid = os.getpid()
            self._here = {}

    def _drop_closed(self) -> None:
        for loop in [loop for loop in self._here if loop.is_closed()]:
            here = self._here.pop(loop)
            if not here.closed:
                here.drop()

    def close_at_exit(self) -> None:
        """Close what loops that nobody closed have left open."""
        if os.getpid() != self._pid:
            return
        for loop, here in list(self._here.items()):
            if not (here.closed or loop.is_closed() or loop.is_running()):
                loop.run_until_complete(here.close())
        self._drop_closed()


_all: WeakSet[OpenPerLoop] = WeakSet()
_inherited: list[object] = []


@atexit.register
def _close_all() -> None:
    # Registered with the import, hence run after what apps register when they open: bodies end first.
    for each in list(_all):
        each.close_at_exit()
