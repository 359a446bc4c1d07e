"""Submitting in a transaction of the user's: the call is there if and only if that is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from everloop._core.calls import State
from everloop._core.records import NewCall
from everloop._task import Reader, Task
from everloop.engine.attempt import CURRENT

if TYPE_CHECKING:
    from everloop._call import Call
    from everloop._sessions import OpenSession, Sessions
    from everloop.store.protocol import UserConnection

R = TypeVar("R")

#: Calls in one go: a few statements, and a short hold of the loop.
CHUNK = 1_000


class Submitter(Reader, Protocol):
    """The app, as this needs it."""

    @property
    def _sessions(self) -> Sessions: ...


async def submit_in(app: Submitter, call: Call[R], connection: UserConnection) -> Task[R]:
    """Submit one call in the transaction of `connection`.

    Raises:
        IdConflict, KeyConflict: It was refused.
    """
    (task,) = await _submit(app, [call], connection)
    if task.done():
        task.result()
    return task


async def submit_many_in(
    app: Submitter, calls: Iterable[Call[R]], connection: UserConnection
) -> list[Task[R]]:
    """Submit calls in the transaction of `connection`; the task of a refused one is done, with the reason."""
    tasks: list[Task[R]] = []
    source = iter(calls)
    while chunk := list(islice(source, CHUNK)):
        tasks += await _submit(app, chunk, connection)
        await asyncio.sleep(0)
    return tasks


async def _submit(app: Submitter, calls: Sequence[Call[R]], connection: UserConnection) -> list[Task[R]]:
    new: list[NewCall] = []
    try:
        entry = app._sessions.current()  # noqa: SLF001 - of our own class
        store = entry.session.store
        # An SQLite file has one writer: to open the store would wait for this very transaction.
        if not entry.opened and not await store.is_blocked_by(connection):
            await asyncio.shield(entry.ready)
        attempt = CURRENT.get()
        for call in calls:
            call.take()
            new.append(call.function.new_call(call, attempt, owned=False))
        answers, transaction = await store.add_on(connection, new)
    except BaseException:
        for call in calls:
            call.refused()
        raise
    tasks: list[Task[R]] = []
    for call, record, answer in zip(calls, new, answers, strict=True):
        state = State.SCHEDULED if record.due or record.delay else State.READY
        task: Task[R] = Task(app, entry.session, call.id, call.function.name, owned=False, state=state)
        task.added_in(transaction, answer)
        tasks.append(task)

    def ended(committed: bool) -> None:  # noqa: FBT001 - told by position
        for task in tasks:
            task.transaction_ended(committed)
        if committed:
            _look(app, entry, new)

    if transaction.tells:
        transaction.on_end(_on_this_loop(ended))
    else:
        _look(app, entry, new)
    return tasks


def _look(app: Submitter, entry: OpenSession, new: Sequence[NewCall]) -> None:
    """See to it that somebody runs these calls."""
    entry.session.turns.look()
    for lane in {call.lane for call in new}:
        app._sessions.asked_for(entry, lane)  # noqa: SLF001 - of our own class


def _on_this_loop(callback: Callable[[bool], None]) -> Callable[[bool], Any]:
    """Return `callback` for any thread: a synchronous connection may be committed in another than this."""
    loop = asyncio.get_running_loop()

    def call(committed: bool) -> None:  # noqa: FBT001 - told by position
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            callback(committed)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(callback, committed)

    return call
