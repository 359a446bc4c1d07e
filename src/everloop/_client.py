"""The client side of an app: submitting calls, observing tasks, cancelling, listing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from everloop._call import Call
from everloop._core.calls import State
from everloop._core.codec import Payloads, Shape, load_error
from everloop._core.errors import (
    IdConflict,
    KeyConflict,
    NotRetryable,
    OptionError,
    TaskNotFound,
    UsageError,
    WouldDeadlock,
)
from everloop._core.keeping import not_found
from everloop._core.names import class_name
from everloop._core.policy import Keep, check_whole
from everloop._core.records import Added, CallFilter, Snapshot, repeat_of
from everloop._core.text import near_miss
from everloop._functions import TaskFunction, may_wait
from everloop._options import Options, read_options
from everloop._sessions import OpenSession, Sessions
from everloop._submitting import submit_in, submit_many_in
from everloop._task import Task
from everloop._workers import WorkerInfo, workers_of
from everloop.engine.attempt import CURRENT
from everloop.engine.closing import loop_is_closing, visitor_has_left
from everloop.engine.session import Session
from everloop.resources.held import check_write, held

if TYPE_CHECKING:
    from everloop.store.protocol import UserConnection

R = TypeVar("R")

#: Seconds that a cancelled task waits for the remote end when its program is ending.
EXIT_WAIT = 2.0
#: Calls that `submit_many` hands over before it lets the loop breathe.
CHUNK = 1_000
_UNTYPED = Shape()


class Client:
    """What an app can do with calls; `App` adds the declarations."""

    name: str
    payloads: Payloads
    cancel_wait: float
    _exit_wait: float
    _sessions: Sessions
    _functions: dict[str, TaskFunction[..., Any]]
    _raises: dict[str, type[BaseException]]
    _interrupt_cancels: bool
    _keep: Keep | None

    @property
    def keeps(self) -> str | None:
        """The rule by which finished calls are pruned, in words; None when none are."""
        return None if self._keep is None else self._keep.told

    # -- scheduling -----------------------------------------------------------------------------------------

    def begin(self, call: Call[R], *, owned: bool = True, entry: OpenSession | None = None) -> Task[R]:
        """Hand a call to the next group commit and return its task: what `await call` does first.

        Args:
            call: The call.
            owned: Whether cancelling whoever awaits the task cancels the call.
            entry: The running loop's session, for whoever has just asked for it.

        Raises:
            AlreadyAwaited: It was scheduled before.
            ClosedError: The app is closed.
            WouldDeadlock: This code holds a connection that the call may need.
            UsageError: This is the body of a task in a process of its own.
        """
        function = call.function
        attempt = CURRENT.get()
        if owned and attempt is not None and attempt.in_child:
            raise UsageError(
                f"{function.name}() was awaited in the body of {attempt.leased.lane.fn}(), which runs in a "
                "process of its own: that would keep the process for nothing but waiting. Await it in a "
                "function with run='loop' that awaits both; or `await app.submit(...)` it, which does not "
                "wait for its end"
            )
        if entry is None:
            entry = self._sessions.current()
        call.take()
        new = function.new_call(call, attempt, owned=owned)
        state = State.SCHEDULED if new.due or new.delay else State.READY
        task: Task[R] = Task(self, entry.session, call.id, function.name, owned=owned, state=state)
        entry.session.watch(task, hold=owned)
        self._sessions.asked_for(entry, new.lane)
        if not may_wait(new):
            entry.session.turns.add(new, task)
        else:
            added = entry.session.apart.add(new, task)
            if attempt is not None:
                attempt.add_began()  # its outcome must not overtake its child
                added.add_done_callback(lambda _: attempt.add_ended())
        return task

    def check_wait(self, name: str, *, only_to_store: bool = False) -> None:
        """Refuse to wait for a call (or only for its commit) while holding what that may need.

        Raises:
            WouldDeadlock: It names both.
        """
        what = held(own_write=only_to_store)
        if what is not None:
            if only_to_store:
                raise WouldDeadlock(
                    f"waiting for the commit of {name}() while holding {what}: the store waits for that, and "
                    "both would wait for ever. Submit in that transaction (`connection=`), or leave its "
                    "`async with` block first"
                )
            raise WouldDeadlock(
                f"waiting for {name}() while holding {what}: it may need the same, and both would wait for "
                "ever. Leave the `async with` block first; a task that is given the connection can return, "
                "and its caller can go on"
            )

    def create_task(self, call: Call[R], **options: Unpack[Options]) -> Task[R]:
        """Schedule a call and return its `Task` at once; it is written by the next group commit.

        The task is owned, like asyncio's: cancelling whoever awaits it cancels the call. `await
        task.stored()` waits until it is durable.

        Example:
            ```python
            from everloop import App

            app = App("sums", "memory://")

            @app.task
            async def square(x: int) -> int:
                return x * x

            async def main() -> None:
                tasks = [app.create_task(square(x)) for x in range(3)]
                print([await task for task in tasks])

            app.run(main())
            ```
        """
        return self.begin(self._with(call, options))

    async def submit(
        self, call: Call[R], *, connection: UserConnection | None = None, **options: Unpack[Options]
    ) -> Task[R]:
        """Store a call durably and return its detached `Task`.

        When this returns, the call survives any crash. Awaiting the task only observes; `task.cancel()`
        alone cancels it. Waits while 10,000 calls are unflushed.

        Args:
            call: The call.
            connection: Submit in the transaction of this connection to the store's own database: the call is
                there if and only if you commit. A SQLAlchemy connection or session, of asyncio or not, or
                a plain `sqlite3` connection. After a rollback the task raises `RolledBack`.
            **options: See `everloop.Options`.

        Raises:
            IdConflict, KeyConflict: It was refused.
            OptionError, UsageError: The connection cannot be used: it is of another kind or on another
                database, it is closed, or it has no transaction.
            WouldDeadlock: Without `connection`: this code has a transaction open that the store waits for.

        Example:
            ```python
            from everloop import App

            app = App("mail", "memory://")

            @app.task
            async def send(to: str) -> str:
                return f"sent to {to}"

            async def main() -> None:
                task = await app.submit(send("ada@example.org"), delay=0.01)
                print(task.id, await task)

            app.run(main())
            ```
        """
        call = self._with(call, options)
        if connection is not None:
            return await submit_in(self, call, connection)
        try:
            self.check_wait(call.function.name, only_to_store=True)
            await self._sessions.current().session.room()
            task = self.begin(call, owned=False)
        except BaseException:
            call.refused()
            raise
        await task.stored()
        return task

    async def submit_many(
        self,
        calls: Iterable[Call[R]],
        *,
        connection: UserConnection | None = None,
        **options: Unpack[Options],
    ) -> list[Task[R]]:
        """Store many calls durably and return their detached tasks, in order.

        One refused call (`IdConflict`, `KeyConflict`) fails none of its neighbours: its task is done,
        with that exception. With `connection` they are submitted in its transaction (see `submit`).
        """
        if connection is not None:
            return await submit_many_in(self, (self._with(call, options) for call in calls), connection)
        entry = self._sessions.current()
        tasks: list[Task[R]] = []
        for n, call in enumerate(calls, 1):
            tasks.append(self.begin(self._with(call, options), owned=False, entry=entry))
            if n % CHUNK == 0:
                await entry.session.room()
                await asyncio.sleep(0)
                entry = self._sessions.current()
        for task in reversed(tasks):  # the last is stored last: the others then need no waiting
            with suppress(IdConflict, KeyConflict):
                await task.stored()
        return tasks

    async def as_completed(
        self, calls: Iterable[Call[R]] | AsyncIterable[Call[R]], *, window: int = 10_000
    ) -> AsyncIterator[Task[R]]:
        """Submit calls lazily and yield their tasks as they finish.

        At most `window` of them are unfinished at a time, so a million calls need no million tasks in
        memory. Leaving the loop early leaves the submitted ones running.

        Example:
            ```python
            from everloop import App

            app = App("sums", "memory://")

            @app.task
            async def square(x: int) -> int:
                return x * x

            async def main() -> None:
                total = 0
                async for task in app.as_completed((square(x) for x in range(100)), window=10):
                    total += task.result()
                print(total)

            app.run(main())
            ```
        """
        if window < 1:
            raise OptionError(f"`window` is at least 1, not {window!r}")
        self.check_wait("app.as_completed")
        finished: asyncio.Queue[Task[R]] = asyncio.Queue()
        source = _as_async(calls)
        unfinished = 0
        exhausted = False
        owned = CURRENT.get() is not None
        session = self._sessions.current().session
        while not (exhausted and unfinished == 0):
            while not exhausted and unfinished < window and (finished.empty() or unfinished < window // 2):
                call = await anext(source, None)
                if call is None:
                    exhausted = True
                    break
                await session.room()
                task = self.begin(self._with(call, {}), owned=owned)
                task.add_done_callback(finished.put_nowait)
                unfinished += 1
            if unfinished:
                task = await finished.get()
                unfinished -= 1
                yield task

    # -- one task -------------------------------------------------------------------------------------------

    @overload
    async def get_task(self, id: str, of: TaskFunction[..., R], /) -> Task[R]: ...
    @overload
    async def get_task(self, id: str, /) -> Task[Any]: ...
    async def get_task(self, id: str, of: TaskFunction[..., Any] | None = None, /) -> Task[Any]:
        """Return the task of a call submitted by any process, as it is now; awaiting it waits for its end.

        Args:
            id: The call's id.
            of: Its task function, for the type checker; another function's call is refused.

        Raises:
            TaskNotFound: No call has this id.
        """
        session = await self._sessions.opened()
        (snapshot,) = await session.store.get([str(id)])
        if snapshot is None:
            raise self.missing(id)
        if of is not None and snapshot.lane.fn not in (of.name, *of.aliases):
            raise TaskNotFound(f"the call {id} is one of {snapshot.lane.fn!r}, not of {of.name!r}")
        task = self._task_of(session, snapshot)
        if not task.done():
            check_write("app.get_task")
            session.watch(task, hold=False)
            await session.store.wait(session.number, [task.id])
            session.turns.look()
        return task

    def _task_of(self, session: Session, snapshot: Snapshot) -> Task[Any]:
        task: Task[Any] = Task(
            self, session, snapshot.id, snapshot.lane.fn, owned=False, state=snapshot.state
        )
        task.added(Added(snapshot.id))
        task.show(snapshot)
        return task

    async def finished_task(self, id_: str) -> Task[Any]:
        """Return the finished task that a durable callback is about."""
        session = await self._sessions.opened()
        (snapshot,) = await session.store.get([id_])
        if snapshot is None:
            raise self.missing(id_)
        return self._task_of(session, snapshot)

    async def cancel(self, id: str, msg: str | None = None) -> bool:
        """Cancel the call with this id; True when it was live.

        A waiting call ends at once; a running one is asked to stop, and ends when its body has.

        Raises:
            TaskNotFound: No call has this id.
            WouldDeadlock: This code has a transaction open that the store waits for.
        """
        session = await self._sessions.opened()
        before = await session.store.get([str(id)])
        if before[0] is None:
            raise self.missing(id)
        if before[0].state.final:
            return False
        check_write("app.cancel")
        (answer,) = await session.store.cancel([str(id)], msg or "")
        session.turns.look()
        return answer.asked or answer.state is State.CANCELLED

    async def retry(self, id: str) -> Task[Any]:
        """Submit a finished call anew and return the new task; nothing final ever changes.

        Raises:
            TaskNotFound: No call has this id; or it is a callback, and the call that it is about was pruned.
            NotRetryable: It has not finished.
        """
        session = await self._sessions.opened()
        (old,) = await session.store.get([str(id)])
        if old is None:
            raise self.missing(id)
        if not old.state.final:
            raise NotRetryable(f"the call {id} is {old.state.value}: only a finished call can be retried")
        check_write("app.retry")
        new = repeat_of(old)
        task: Task[Any] = Task(self, session, new.id, old.lane.fn, owned=False, state=State.READY)
        session.watch(task, hold=False)
        self._sessions.asked_for(self._sessions.current(), new.lane)
        session.turns.add(new, task)
        await task.stored()
        return task

    def missing(self, id_: object) -> TaskNotFound:
        """Return the error for an id that no call has."""
        return not_found(id_, self.keeps)

    # -- many -----------------------------------------------------------------------------------------------

    async def counts(self, queue: str | None = None) -> dict[str, int]:
        """Count this app's calls by state; every state is a key."""
        session = await self._sessions.opened()
        return await session.store.counts(self.name, queue)

    async def workers(self) -> list[WorkerInfo]:
        """List this app's workers, on all machines, and how each was when it last renewed its leases.

        Example:
            ```python
            from everloop import App

            app = App("sums", "memory://")

            async def main() -> None:
                for worker in await app.workers():
                    print(worker.host, worker.pid, worker.queues, worker.running, worker.memory, worker.lag)

            app.run(main())
            ```
        """
        session = await self._sessions.opened()
        return workers_of(await session.store.sessions(self.name), session.store.now())

    async def tasks(
        self,
        *,
        state: str | Sequence[str] = (),
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Task[Any]]:
        """List this app's tasks, newest first.

        Args:
            state: Only these states, such as "failed" or ("ready", "leased").
            queue: Only this queue.
            name: Only this task function.
            tag: Only those with this tag.
            limit: How many at most.
            before: Continue after the task with this id.
        """
        wanted = (state,) if isinstance(state, str) else tuple(state)
        for each in wanted:
            if each not in list(State):
                raise OptionError(
                    f"unknown state {each!r}{near_miss(each, list(State))}; the states are {', '.join(State)}"
                )
        check_whole("limit", limit, 1)
        session = await self._sessions.opened()
        found = await session.store.find(
            CallFilter(
                app=self.name,
                states=tuple(map(State, wanted)),
                queue=queue,
                fn=name,
                tag=tag,
                limit=limit,
                before=before,
            )
        )
        tasks = [self._task_of(session, snapshot) for snapshot in found]
        for task in tasks:
            task.listed = not task.done()
        return tasks

    # -- as tasks see it ------------------------------------------------------------------------------------

    def read_value(self, name: str, stored: bytes) -> Any:
        """Decode a stored result by its function's annotation."""
        function = self._functions.get(name)
        shape = _UNTYPED if function is None else function.result
        return shape.load(self.payloads.unwrap(stored))

    def read_error(self, name: str, stored: bytes, task_id: str) -> BaseException:
        """Revive a stored exception; only builtins and declared classes come back as themselves."""
        function = self._functions.get(name)
        raises = (
            self._raises if function is None else self._raises | {class_name(c): c for c in function.raises}
        )
        return load_error(stored, raises.values(), task_id=task_id)

    def cancel_bound(self, session: Session, id_: str) -> float:
        """Return for how long a task that is cancelled now waits for the remote end, in seconds at most."""
        leaving = loop_is_closing() and not session.runs(id_)
        return self._exit_wait if leaving else self.cancel_wait

    def is_closing(self, session: Session) -> bool:
        """Whether the loop, the app, the terminal or a visitor ends the waiting, and not a user's cancel."""
        return session.closing or visitor_has_left() or (loop_is_closing() and not self._interrupt_cancels)

    # -- inside ---------------------------------------------------------------------------------------------

    def _with(self, call: Call[R], options: Options) -> Call[R]:
        if not isinstance(call, Call):
            raise UsageError(
                f"a call is wanted, not {call!r:.100}; decorate the function with @app.task and call it: "
                "app.submit(fetch(url))"
            )
        if call.function.app.name != self.name:
            call.refused()
            raise UsageError(
                f"{call.function.name}() is a task function of the app {call.function.app.name!r}, not of "
                f"{self.name!r}: its workers look for it there; submit it with its own app"
            )
        return call.changed(read_options(options, call.function.name)) if options else call


async def _as_async(calls: Iterable[Call[R]] | AsyncIterable[Call[R]]) -> AsyncIterator[Call[R]]:
    if isinstance(calls, AsyncIterable):
        async for call in calls:
            yield call
    else:
        for call in calls:
            yield call
