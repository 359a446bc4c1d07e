"""`everloop submit`: submit a call, and with `--wait` print its result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

import click
import msgspec

from everloop import _notices
from everloop._app import App
from everloop._call import Call
from everloop._core.errors import NotStorable, StoreError, TaskFailed
from everloop._core.text import near_miss
from everloop._functions import TaskFunction
from everloop._options import Options
from everloop._task import Task
from everloop.cli import exits
from everloop.cli.exits import Exit
from everloop.cli.group import Command
from everloop.cli.live import LiveLine, bar
from everloop.cli.reading import run, shared_url
from everloop.cli.target import load_app, looks_like_target
from everloop.cli.terminal import clean, cut, paint, say
from everloop.cli.view import dumps

#: Seconds between looks at the progress of a task that a human waits for.
LOOK = 0.2


@click.command(
    "submit",
    cls=Command,
    example="""
everloop submit shop:app fetch '["https://example.org"]' --wait
everloop submit shop:app send_receipt --kwargs '{"order": 7}' --delay 60
""",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.STORE, exits.TIMEOUT, exits.INTERRUPTED),
)
@click.argument("words", metavar="[APP] FUNCTION [ARGS]", nargs=-1, required=True)
@click.option("--kwargs", metavar="JSON", default="{}", help="Arguments by name, as a JSON object.")
@click.option("--wait", is_flag=True, help="Wait for the end; print the result, exit with the outcome.")
@click.option(
    "--timeout", type=click.FloatRange(0), metavar="SECONDS", help="With --wait: give up waiting after."
)
@click.option("--queue", metavar="NAME", help="The queue; by default the function's.")
@click.option("--priority", type=int, metavar="N", help="-100 to 100; higher goes first.")
@click.option("--delay", type=float, metavar="SECONDS", help="Start after so many seconds.")
@click.option("--at", metavar="TIME", help="Start at this time: ISO 8601 with its zone, 2030-01-31T09:00Z.")
@click.option("--key", metavar="TEXT", help="Join the unfinished call of this key, if there is one.")
@click.option("--id", "id", metavar="UUID", help="The call's id: submitting it twice is submitting it once.")
@click.option("--tag", "tags", metavar="TEXT", multiple=True, help="A tag for listings; may be repeated.")
def command(words: tuple[str, ...], *, kwargs: str, wait: bool, timeout: float | None, **given: Any) -> int:
    """Submit a call and print its id.

    ARGS are the positional arguments as a JSON list. With --wait the result is printed as JSON instead,
    and the exit code is the task's outcome.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait; it limits the waiting, not the task")
    target, name, args = _split(words)
    app = load_app(target)
    function = _function(app, name)
    shared_url(app)
    call = _bind(
        function,
        _json(args, list, "ARGS", '["https://example.org"]'),
        _json(kwargs, dict, "--kwargs", '{"n": 1}'),
    )
    try:
        return run(_submit(app, call, _options(given), wait=wait, patience=timeout))
    finally:
        call.close()  # one that was refused is not "never awaited"


def _split(words: tuple[str, ...]) -> tuple[str | None, str, str]:
    """Tell app, function and arguments apart: the app may be left out, and so may the arguments."""
    if len(words) > 3:
        raise click.UsageError(
            f"too many arguments ({len(words)}): [APP] FUNCTION [ARGS]. ARGS is one JSON list; quote it for "
            "the shell"
        )
    first, rest = next(iter(words)), words[1:]
    if len(words) == 3 or looks_like_target(first) or (rest and not _is_json(rest[0])):
        if not rest:
            raise click.UsageError(f"which function? everloop submit {first} FUNCTION [ARGS]")
        return first, rest[0], rest[1] if len(rest) > 1 else "[]"
    return None, first, rest[0] if rest else "[]"


def _is_json(text: str) -> bool:
    return text.lstrip()[:1] in tuple('[{"-0123456789')


def _function(app: App, name: str) -> TaskFunction[..., Any]:
    functions = app.functions
    if name not in functions:
        known = f"it has {', '.join(sorted(functions))}" if functions else "it has none"
        raise click.UsageError(
            f"the app {app.name!r} has no task function {name!r}{near_miss(name, functions) or f'; {known}'}"
        )
    return functions[name]


def _json(text: str, kind: type, what: str, example: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(
            f"{what} is no JSON ({error}): {text!r:.200}; write for example '{example}'"
        ) from None
    if not isinstance(value, kind):
        wanted = "a JSON list" if kind is list else "a JSON object"
        raise click.UsageError(f"{what} is {wanted}, such as '{example}', not {text!r:.200}")
    return value


def _bind(function: TaskFunction[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Call[Any]:
    """Make the call; values that JSON lacks are read by the function's annotations.

    Raises:
        ArgumentError: They do not fit the signature.
        NotStorable: One of them cannot be stored.
    """
    try:
        positional, named = function.arguments.load(msgspec.json.encode([args, kwargs]))
    except NotStorable as error:
        # Binding the bare values says what is wrong in the words of a call.
        function(*args, **kwargs).close()
        raise click.UsageError(str(error)) from None
    return function(*positional, **named)


def _options(given: dict[str, Any]) -> Options:
    all_: dict[str, Any] = {**given, "at": _moment(given["at"]) if given["at"] else None}
    kept = {name: value for name, value in all_.items() if value not in (None, ())}
    return cast("Options", kept)  # the names are those of our options


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--at is no time: {text!r}; write ISO 8601, 2030-01-31T09:00Z") from None
    if at.tzinfo is None:
        raise click.UsageError(
            f"--at {text} does not say of which time zone; write {text}Z for UTC, or {text}+02:00"
        )
    return at


# -- submitting and waiting ---------------------------------------------------------------------------------


async def _submit(app: App, call: Call[Any], options: Options, *, wait: bool, patience: float | None) -> int:
    async with app:
        task = await app.submit(call, **options)
        if not wait:
            print(task.id)
            return exits.OK
        say(f"everloop: waiting for {task.id}")
        try:
            async with asyncio.timeout(patience), _watched(task):
                await asyncio.wait([task])
        except TimeoutError:
            await task.refresh()
            raise Exit(
                exits.TIMEOUT,
                f"the call {task.id} is {task.state} after {patience:g} s; it goes on without us",
            ) from None
        except asyncio.CancelledError:
            say(f"everloop: the call goes on without us: everloop show {task.id}")
            raise
        return _tell(call.function, task)


@asynccontextmanager
async def _watched(task: Task[Any]) -> AsyncGenerator[None]:
    """Show the state and the progress of a task below the cursor, on a terminal."""
    started = time.monotonic()

    def text(columns: int) -> str:
        told = f"{task.state}  {time.monotonic() - started:.1f} s"
        progress = task.progress
        if progress is None:
            return cut(f"  {told}", columns)
        total = progress.total or 0.0
        share = f"{progress.done:g}/{total:g}" if total else f"{progress.done:g}"
        return bar(progress.done, total, clean(f"{share}  {told}  {progress.note}"), columns)

    line = LiveLine(text)
    async with line.drawn():
        if not line.shown:
            yield
            return
        _notices.show = line.above
        looking = asyncio.create_task(_look_at(task))
        try:
            yield
        finally:
            _ = looking.cancel()


async def _look_at(task: Task[Any]) -> None:
    while not task.done():
        with contextlib.suppress(StoreError):  # waiting goes on without the store, and so does this
            await task.refresh()
        await asyncio.sleep(LOOK)


def _tell(function: TaskFunction[..., Any], task: Task[Any]) -> int:
    if task.cancelled():
        say(f"everloop: the call {task.id} was cancelled")
        return exits.FAILED
    error = task.exception()
    if error is None:
        print(dumps(json.loads(function.result.dump(task.result()))))
        return exits.OK
    if error.__cause__ is not None:
        say(clean(str(error.__cause__), lines=True).strip())
    name = error.type_name if isinstance(error, TaskFailed) and error.type_name else type(error).__name__
    text = clean(f"{name}: {error}".rstrip(": "), lines=True)
    say(f"{paint('everloop:', 'bold', 'red', stream=sys.stderr)} {text}")
    return exits.FAILED
