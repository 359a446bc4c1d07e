"""`everloop worker`: run the tasks of an app until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

import click

from everloop._app import App
from everloop._core.text import without_password
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.reading import run, shared_url
from everloop.cli.target import load_app
from everloop.cli.terminal import clean, say
from everloop.cli.times import span
from everloop.engine.worker import Worker

#: Seconds that threads of tasks (or of users) may hold up the end of the process.
LINGER = 2.0


@click.command(
    "worker",
    cls=Command,
    example="everloop worker shop:app --concurrency 200 --queues default,mail",
    codes=(exits.OK, exits.USAGE, exits.STORE, exits.INTERRUPTED, exits.TERMINATED),
)
@click.argument("target", metavar="[APP]", required=False)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    envvar="EVERLOOP_CONCURRENCY",
    show_envvar=True,
    help="How many tasks run at once; those that wait for their children do not count.",
)
@click.option(
    "--queues",
    metavar="NAMES",
    envvar="EVERLOOP_QUEUES",
    show_envvar=True,
    help="Serve these queues (a,b) instead of those that the functions name.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    metavar="SECONDS",
    show_default="30",
    envvar="EVERLOOP_GRACE",
    show_envvar=True,
    help="How long running tasks may finish after the first signal.",
)
def command(target: str | None, concurrency: int, queues: str | None, grace: float) -> int:
    """Run the tasks of an app until it is told to stop.

    The first Ctrl-C or SIGTERM takes no more calls and gives the running ones the grace period; what runs
    longer is released for other workers. The second releases at once. The third kills.
    """
    app = load_app(target)
    # What is imported stays: the collector need not look through it with each generation.
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    shared_url(app)
    _let_information_through()
    names = None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
    if names == []:
        raise click.UsageError("--queues names none; write --queues default,mail or leave it out")
    stopping = Stopping(grace)
    return run(_serve(app, concurrency, names, stopping))


def _let_information_through() -> None:
    """Let bodies log at INFO, which is kept with their calls, where nobody has set up `logging`.

    Without a handler, such records are shown nowhere.
    """
    root = logging.getLogger()
    if not root.handlers and root.level == logging.WARNING:
        root.setLevel(logging.INFO)


async def _serve(app: App, concurrency: int, queues: Sequence[str] | None, stopping: Stopping) -> int:
    stopping.listen()
    async with app.worker(concurrency=concurrency, queues=queues, grace=stopping.grace):
        worker = app._sessions.current().session.worker  # noqa: SLF001 - how hard to stop is for us to say
        assert worker is not None  # noqa: S101 - it runs inside this block
        stopping.worker = worker
        say(_ready(app, worker))
        await stopping.first.wait()
    _end_soon(stopping.code, LINGER if stopping.say_end() else 0.0)
    return stopping.code


def _ready(app: App, worker: Worker) -> str:
    queues = sorted({lane.queue for lane in worker.lanes})
    functions = sorted({lane.fn for lane in worker.lanes})
    told = [
        f"app {app.name}",
        f"store {without_password(app.store_url)}",
        f"queue{_s(queues)} {', '.join(queues) or 'none'}",
        f"function{_s(functions)} {', '.join(functions) or 'none (decorate some with @app.task)'}",
        f"pid {os.getpid()}",
    ]
    return clean(f"everloop: worker ready: {', '.join(told)}")


def _s(items: Sequence[str]) -> str:
    return "" if len(items) == 1 else "s"


class Stopping:
    """What signals do: the first drains, the second releases at once, the third kills.

    Python's own signal handlers are used, not the loop's: the third must work while a body blocks it.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.worker: Worker | None = None
        self.first = asyncio.Event()
        self.code = exits.OK
        self._signals = 0

    def listen(self) -> None:
        """Take over SIGINT and SIGTERM."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._came)

    def _came(self, number: int, _frame: object) -> None:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            self._announce(
                f"{name}: no more calls are taken", self._calls(f"may finish within {span(self.grace)}")
            )
            self._loop.call_soon_threadsafe(self._drain)
        elif self._signals == 2:
            self.code = 128 + number
            self._announce(f"{name} again", self._calls("{are} released for other workers now"))
            self._loop.call_soon_threadsafe(self._hurry)
        else:
            self._announce(f"{name} for the third time", "killed")
            os._exit(128 + number)

    def _drain(self) -> None:
        self._loop.call_later(self.grace, self._grace_is_over)
        self.first.set()

    def _grace_is_over(self) -> None:
        if self.worker is not None and self.worker.slots.running:
            self._announce("the grace period is over", self._calls("{are} released for other workers"))

    def _hurry(self) -> None:
        self.first.set()
        if self.worker is not None:
            self.worker.hurry()

    def _calls(self, fate: str) -> str:
        running = self.worker.slots.running if self.worker is not None else 0
        return _told(running, fate) if running else "no call is running"

    def _announce(self, what: str, then: str) -> None:
        # Not through sys.stderr: a signal may come while that is printing.
        os.write(2, f"everloop: {what}: {then}\n".encode())

    def say_end(self) -> bool:
        """Announce the end; tell whether everything has stopped."""
        left = len(self.worker.holding) if self.worker is not None else 0
        say(
            f"everloop: stopped; {_told(left, 'did not stop and {are} left behind')}"
            if left
            else "everloop: stopped"
        )
        return not left


def _told(count: int, fate: str) -> str:
    one = count == 1
    return f"{count} running call{'' if one else 's'} {fate.format(are='is' if one else 'are')}"


def _end_soon(code: int, linger: float) -> None:
    """End the process even when a thread (of a `def` task, or the user's) does not end."""

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(linger, end)
    timer.daemon = True
    timer.start()
