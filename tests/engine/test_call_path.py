"""The way of a call from its `await` to the SQL statement that stores it, taken from real stacks.

Counted is each frame of a file of ours that is on a stack of that way:

- in the caller, when the call is handed over to the turn loop;
- on the loop, when the call's statement is executed: what awaits it there;
- in the store's thread, when the call's statement is executed, as SQLite itself reports it.

At the bottom of the second and the third stack is a loop that waits for work: `TurnLoop.run` and
`ConnectionThread._loop`. Nothing on the way calls these two, so they are not counted. Nor is what has
returned by then: checks, the request that was composed, the functions that leave something for the other
side and return at once (`TurnLoop.add`, `SqliteRunner.run`), and the verb, a generator that has yielded
the statement.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CoroutineType, FrameType

import pytest

import everloop
from everloop import App
from everloop._core.records import NewCall
from everloop.engine.turns import Sink, TurnLoop
from everloop.store.sql.runners.sqlite_file import SqliteFile

OURS = str(Path(everloop.__file__).parent)
DOCUMENT = Path(__file__).parents[2] / "ARCHITECTURE.md"
MOST = 5
WAITING_LOOPS = {"TurnLoop.run", "ConnectionThread._loop"}


class Watched:
    """Stacks of ours, outermost first: (qualified name of a function, its file below the package)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.caller: list[tuple[str, str]] = []
        self.loop: list[tuple[str, str]] = []
        self.thread: list[tuple[str, str]] = []
        self._turns: asyncio.Task[None] | None = None
        self._watch_hand_over(monkeypatch)
        self._watch_statements(monkeypatch)

    def _watch_hand_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        add = TurnLoop.add

        def watched_add(turns: TurnLoop, call: NewCall, sink: Sink | None) -> None:
            self.caller = ours(stack_below(sys._getframe(1)))
            (self._turns,) = (t for t in asyncio.all_tasks() if t.get_name() == "everloop-turns")
            add(turns, call, sink)

        monkeypatch.setattr(TurnLoop, "add", watched_add)

    def _watch_statements(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect = SqliteFile.connect

        def executed(sql: str) -> None:
            # SQLite calls this from within the thread's `connection.execute(...)`.
            if "INTO ever_calls " in sql and self._turns is not None:
                self.thread = ours(stack_below(sys._getframe(1)))
                self.loop = ours(awaiting(self._turns))

        def watched_connect(file: SqliteFile) -> sqlite3.Connection:
            connection = connect(file)
            connection.set_trace_callback(executed)
            return connection

        monkeypatch.setattr(SqliteFile, "connect", watched_connect)

    @property
    def way(self) -> list[tuple[str, str]]:
        """What the call goes through, from the `await` to the statement."""
        whole = [*self.caller, *self.loop, *self.thread]
        return [(name, file) for name, file in whole if name not in WAITING_LOOPS]


def stack_below(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a thread's frames, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def awaiting(task: asyncio.Task[None]) -> list[FrameType]:
    """Return the suspended frames of a task, innermost first."""
    frames: list[FrameType] = []
    at: object = task.get_coro()
    while isinstance(at, CoroutineType):
        if at.cr_frame is not None:
            frames.append(at.cr_frame)
        at = at.cr_await
    return frames[::-1]


def ours(innermost_first: Iterator[FrameType] | list[FrameType]) -> list[tuple[str, str]]:
    return [
        (frame.f_code.co_qualname, str(Path(frame.f_code.co_filename).relative_to(OURS)))
        for frame in [*innermost_first][::-1]
        if frame.f_code.co_filename.startswith(OURS)
    ]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


async def stored_once(sqlite: str) -> None:
    app = App("test", sqlite)

    @app.task
    async def fetch(url: str) -> int:
        return len(url)

    async with app.worker():
        assert await fetch("https://example.org/") == 20


async def test_at_most_five_frames_lie_between_the_await_and_the_statement(
    sqlite: str, watched: Watched
) -> None:
    await stored_once(sqlite)

    assert watched.caller and watched.loop and watched.thread
    assert len(watched.way) <= MOST


async def test_only_a_waiting_loop_is_left_out_at_the_bottom_of_each_stack(
    sqlite: str, watched: Watched
) -> None:
    await stored_once(sqlite)

    assert [name for name, _ in watched.caller] == ["Call.__await__", "Client.begin"]
    assert [name for name, _ in watched.loop] == ["TurnLoop.run", "TurnLoop._turn", "SqlStore.turn"]
    assert [name for name, _ in watched.thread] == ["ConnectionThread._loop", "SqliteRunner._transact"]


async def test_the_frames_are_those_that_the_tour_walks(sqlite: str, watched: Watched) -> None:
    await stored_once(sqlite)

    rows = re.findall(r"^\| \d \| `([\w.]+)` \(`([\w./]+)`\) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert watched.way == rows
