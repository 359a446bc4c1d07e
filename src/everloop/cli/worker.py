"""`everloop worker`: run the tasks of an app until it is told to stop."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import math
import os
import sys
import threading
from collections.abc import Mapping, Sequence

import click

from everloop._app import App
from everloop._core.text import without_password
from everloop.cli import exits
from everloop.cli.control import READY, Control, Report
from everloop.cli.group import Command
from everloop.cli.health import Address, Answers, read_address, served
from everloop.cli.limits import Limits, read_silence, read_size
from everloop.cli.reading import run, shared_url
from everloop.cli.stacks import Stacks
from everloop.cli.stopping import Stopping
from everloop.cli.supervisor import Supervisor
from everloop.cli.target import load_app
from everloop.cli.terminal import clean, say
from everloop.engine.vitals import Vitals
from everloop.engine.worker import Worker

#: Calls that are named when a worker has died.
NAMED = 3
#: Seconds that threads of tasks (or of users) may hold up the end of the process.
LINGER = 2.0


@click.command(
    "worker",
    cls=Command,
    example="everloop worker shop:app --processes 4 --concurrency 200 --queues default,mail",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.STORE, exits.INTERRUPTED, exits.TERMINATED),
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
@click.option(
    "--processes",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    envvar="EVERLOOP_PROCESSES",
    show_envvar=True,
    help="How many worker processes; each takes --concurrency tasks. One that dies is started anew.",
)
@click.option(
    "--max-memory",
    callback=read_size,
    metavar="SIZE",
    envvar="EVERLOOP_MAX_MEMORY",
    show_envvar=True,
    help="Replace a worker process that holds more (500MB); its calls may finish within the grace period.",
)
@click.option(
    "--max-calls",
    type=click.IntRange(1),
    envvar="EVERLOOP_MAX_CALLS",
    show_envvar=True,
    help="Replace a worker process that has run so many calls.",
)
@click.option(
    "--stall-limit",
    callback=read_silence,
    metavar="SECONDS",
    envvar="EVERLOOP_STALL_LIMIT",
    show_envvar=True,
    help="End a worker process whose loop has not answered for so long, or none; the app's, 600, by default.",
)
@click.option(
    "--health",
    callback=read_address,
    metavar="ADDRESS",
    envvar="EVERLOOP_HEALTH",
    show_envvar=True,
    help="Answer /healthz and /readyz here, such as 127.0.0.1:8080, or 8080 on loopback.",
)
@click.option("--supervised", type=int, hidden=True)
@click.option("--last-words", type=int, hidden=True)
def command(  # noqa: PLR0913, PLR0917 - click gives one for each option, by name
    target: str | None,
    concurrency: int,
    queues: str | None,
    grace: float,
    processes: int,
    max_memory: int | None,
    max_calls: int | None,
    stall_limit: float | None,
    health: Address | None,
    supervised: int | None,
    last_words: int | None,
) -> int:
    """Run the tasks of an app until it is told to stop.

    The first Ctrl-C or SIGTERM takes no more calls and gives the running ones the grace period; what runs
    longer is released for other workers. The second releases at once. The third kills.
    """
    limits = Limits(max_memory, max_calls)
    if supervised is None and (processes > 1 or limits):
        options = {"concurrency": concurrency, "queues": queues, "grace": grace}
        options |= {"max-memory": max_memory, "max-calls": max_calls}
        options["stall-limit"] = "none" if stall_limit == math.inf else stall_limit
        return asyncio.run(_supervise(processes, target, options, health))
    # Native code that ends this process shows where it was: to whoever watches, or on standard error.
    faulthandler.enable(sys.stderr if last_words is None else last_words, all_threads=False)
    app = load_app(target)
    # What is imported stays: the collector need not look through it with each generation.
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    shared_url(app)
    if stall_limit is not None:
        app.stall_limit = None if stall_limit == math.inf else stall_limit
    _let_information_through()
    names = None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
    if names == []:
        raise click.UsageError("--queues names none; write --queues default,mail or leave it out")
    stopping = Stopping(grace)
    return run(_serve(app, concurrency, names, stopping, limits, health, supervised))


def _let_information_through() -> None:
    """Let bodies log at INFO, which is kept with their calls, where nobody has set up `logging`.

    Without a handler, such records are shown nowhere.
    """
    root = logging.getLogger()
    if not root.handlers and root.level == logging.WARNING:
        root.setLevel(logging.INFO)


async def _supervise(
    count: int, target: str | None, options: Mapping[str, object], health: Address | None
) -> int:
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    say(f"everloop: {count} worker{'' if count == 1 else 's'}, watched by pid {os.getpid()}")
    supervisor = Supervisor(count, [*([target] if target else []), "--processes=1", *given])
    async with served(health, Answers(supervisor.dying, supervisor.why_not)):
        return await supervisor.run()


async def _serve(
    app: App,
    concurrency: int,
    queues: Sequence[str] | None,
    stopping: Stopping,
    limits: Limits,
    health: Address | None,
    supervised: int | None,
) -> int:
    stopping.listen()
    vitals: list[Vitals] = []
    answers = Answers(
        lambda: vitals[0].dying() if vitals else "",
        lambda: vitals[0].why_not() if vitals else "it is starting",
    )
    control = None
    if supervised is not None:
        # Before the session is opened: what its predecessor has died of is there to be read.
        control = Control(supervised, stopping.reach, app._sessions.bury)  # noqa: SLF001 - (as below)
    async with served(health, answers):
        async with app.worker(concurrency=concurrency, queues=queues, grace=stopping.grace):
            session = app._sessions.current().session  # noqa: SLF001 - how hard to stop is for us to say
            worker = session.worker
            assert worker is not None  # noqa: S101 - it runs inside this block
            worker.memory_limit = limits.memory
            vitals.append(Vitals(session, worker))
            stopping.worker = worker
            stacks = Stacks(vitals[0])
            stacks.listen()
            say(_ready(app, worker))
            watching = asyncio.create_task(_watch(limits, stopping, control, answers, vitals[0], stacks))
            await stopping.first.wait()
        watching.cancel()
    _end_soon(stopping.code, LINGER if stopping.say_end() else 0.0)
    return stopping.code


async def _watch(
    limits: Limits,
    stopping: Stopping,
    control: Control | None,
    answers: Answers,
    vitals: Vitals,
    stacks: Stacks,
) -> None:
    """Look at this worker once a second: whether it has to be replaced, and what to say of it."""
    worker = vitals.worker
    while True:
        if why := limits.passed(worker):
            stopping.recycle(why)
        stacks.look()
        if control is not None:
            how = answers.dying() or answers.why_not() or READY
            calls = tuple(f"{a.leased.lane.fn} {a.leased.id}" for a in worker.attempts(NAMED))
            control.say(Report(how, vitals.session.number, len(worker.holding), calls))
        await asyncio.sleep(1)


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


def _end_soon(code: int, linger: float) -> None:
    """End the process even when a thread (of a `def` task, or the user's) does not end."""

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(linger, end)
    timer.daemon = True
    timer.start()
