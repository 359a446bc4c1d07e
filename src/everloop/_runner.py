"""`app.run`: asyncio.run with an embedded worker."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from everloop._core.errors import UsageError

T = TypeVar("T")

#: What a command is importing: a program that runs itself at import is stopped, and told how to be imported.
IMPORTING: list[str] = []


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop when it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run_main(main: Coroutine[Any, Any, T], inside: Callable[[], AbstractAsyncContextManager[object]]) -> T:
    """Run `main` within `inside()` on a new loop.

    Raises:
        UsageError: A loop runs in this thread already, or `main` is no coroutine.
    """
    if not asyncio.iscoroutine(main):
        raise UsageError(
            f"app.run() takes a coroutine or a call, not {main!r:.100}"
            + ("; did you mean app.run(main()), with parentheses?" if callable(main) else "")
        )
    if IMPORTING:
        main.close()
        raise UsageError(
            f"{IMPORTING[-1]} runs the whole program while `everloop` imports it: put the last line under\n"
            '    if __name__ == "__main__":\n        app.run(main())'
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        main.close()
        raise UsageError(
            "app.run() was called while an event loop runs in this thread; there, write\n"
            "    async with app.worker():\n        await main()"
        )

    async def run() -> T:
        _stop_on_sigterm()
        begun = False
        try:
            async with inside():
                begun = True
                return await main
        finally:
            if not begun:
                main.close()  # the error says why; a warning that it was never awaited would say nothing

    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        return runner.run(run())


def _stop_on_sigterm() -> None:
    """End like after Ctrl-C when SIGTERM comes, unless the program has a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
