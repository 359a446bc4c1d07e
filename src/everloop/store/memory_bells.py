"""Wake-up hints inside one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple


class _Bell(NamedTuple):
    loop: asyncio.AbstractEventLoop
    wake: Callable[[], None]


class Bells:
    """Who wants to be woken, by session, each on the event loop that it listens from."""

    def __init__(self) -> None:
        self._bells: dict[int, list[_Bell]] = {}

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Register `wake` for `session` on the running loop; return what takes it back."""
        bell = _Bell(asyncio.get_running_loop(), wake)
        self._bells.setdefault(session, []).append(bell)

        def stop() -> None:
            bells = self._bells.get(session, [])
            if bell in bells:
                bells.remove(bell)
            if not bells:
                self._bells.pop(session, None)

        return stop

    def ring(self, sessions: Iterable[int]) -> None:
        """Wake these sessions; those that nobody listens for are passed over."""
        for session in sessions:
            for bell in list(self._bells.get(session, ())):
                if not bell.loop.is_closed():
                    # A store that is shared by name may be rung from another thread's loop.
                    bell.loop.call_soon_threadsafe(bell.wake)
