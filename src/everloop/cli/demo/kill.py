"""The demo with a crash: kill the worker half-way, start another, and count what is there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack

from everloop import _notices
from everloop._core.calls import State
from everloop.cli.demo.pages import app, fetch
from everloop.cli.demo.plain import make_table, show
from everloop.cli.demo.processes import Worker
from everloop.cli.demo.report import Line, count_rows, print_table, print_times, read_lines, say_where
from everloop.cli.demo.screen import Screen
from everloop.cli.terminal import paint

#: Seconds between looks whether the moment to kill has come.
LOOK = 0.01


async def fetch_all(urls: Sequence[str], names: Mapping[str, str], concurrency: int) -> bool:
    """Fetch the pages with two workers, the first of which is killed; tell whether nothing was lost."""
    async with app:
        await make_table()
        first = await Worker.start(concurrency)
        calls = [fetch(url) for url in urls]
        name_of = {call.id: names[url] for call, url in zip(calls, urls, strict=True)}
        screen = Screen(len(urls))
        # Which worker serves, and when none does, is what is shown here anyway.
        _notices.show = lambda _text: None

        async def print_completed() -> None:
            async for task in app.as_completed(calls):
                show(screen, name_of[task.id], task)

        async with AsyncExitStack() as stack:
            stack.push_async_callback(first.kill)
            await stack.enter_async_context(screen.live())
            printing = asyncio.create_task(print_completed())
            stack.callback(printing.cancel)
            screen.tell(f"worker {first.pid} runs, {concurrency} pages at a time")
            await _half_way(screen, printing, name_of.keys())
            await first.kill()
            ran = await _running(name_of.keys())
            screen.tell(_obituary(first, screen, [name_of[id_] for id_ in ran]))
            second = await Worker.start(concurrency)
            stack.push_async_callback(second.stop)
            screen.tell(f"worker {second.pid} runs, and takes over from {first.pid}")
            screen.note = f"waiting for the lease to end ({app.lease:g} s)" if ran else ""
            await _until(printing, second)
            total = screen.elapsed
        lines = await read_lines(list(name_of.items()))
        print_table(lines)
        print_times(lines, total)
        ok = await _print_verdict(lines)
        say_where()
        return ok


async def _half_way(screen: Screen, printing: asyncio.Task[None], ids: Collection[str]) -> None:
    """Wait until half of the pages are there and calls are running."""
    # What a worker in another process begins rings no bell here: look.
    while not printing.done() and (screen.done < screen.total // 2 or not await _running(ids)):  # noqa: ASYNC110
        await asyncio.sleep(LOOK)


async def _running(ids: Collection[str]) -> list[str]:
    """Return which of these calls a worker runs now, or ran when it died."""
    return [task.id for task in await app.tasks(state="leased", limit=10_000) if task.id in ids]


async def _until(printing: asyncio.Task[None], worker: Worker) -> None:
    """Wait for the last page; a worker that ends before it is an error."""
    dying = asyncio.create_task(worker.died())
    try:
        await asyncio.wait((printing, dying), return_when=asyncio.FIRST_COMPLETED)
        await (printing if printing.done() else dying)
    finally:
        dying.cancel()


def _obituary(worker: Worker, screen: Screen, pages: Sequence[str]) -> str:
    some = ", ".join(pages[:4]) + (", ..." if len(pages) > 4 else "")
    running = f"{len(pages)} running ({some})" if pages else "none running"
    killed = paint("killed with SIGKILL", "bold", "red", stream=sys.stderr)
    return f"worker {worker.pid} {killed}: {screen.done} of {screen.total} pages done, {running}"


async def _print_verdict(lines: Sequence[Line]) -> bool:
    """Print what became of the calls and rows; tell whether each is there exactly once."""
    count = await count_rows(lines)
    fetched = sum(line.call.state is State.SUCCEEDED for line in lines)
    lost = sum(not line.call.state.final for line in lines) + count.missing
    repeated = sum(line.call.crashes for line in lines)
    print()
    for what, number, good in (
        ("pages fetched", f"{fetched} of {len(lines)}", fetched == len(lines)),
        ("runs repeated", str(repeated), True),
        ("calls lost", str(lost), lost == 0),
        ("rows stored", str(count.rows), count.rows == fetched),
        ("rows stored twice", str(count.doubled), count.doubled == 0),
    ):
        print(f"{what:<18} {paint(number, 'bold', 'green' if good else 'red')}")
    return lost == 0 and count.doubled == 0
