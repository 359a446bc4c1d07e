"""The task: the awaitable handle of a call, shaped like `asyncio.Task`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from everloop._core.calls import State
from everloop._core.clock import moment
from everloop._core.errors import (
    IdConflict,
    KeyConflict,
    LeaseLost,
    ResultPruned,
    RolledBack,
    TaskNotFound,
    WouldDeadlock,
)
from everloop._core.records import Added, Ended, Parent, Snapshot
from everloop._history import History, LogLine, Progress, read_history, read_logs
from everloop.engine.attempt import CURRENT, Attempt
from everloop.engine.visits import VISIT

if TYPE_CHECKING:
    from everloop.engine.session import Session, Waiter
    from everloop.store.transactions import UserTransaction

R = TypeVar("R")


class Reader(Protocol):
    """What turns stored outcomes into values and exceptions: the app."""

    def cancel_bound(self, session: Session, id_: str) -> float: ...
    def check_wait(self, name: str, *, only_to_store: bool = False) -> None: ...
    def read_value(self, name: str, stored: bytes) -> Any: ...
    def read_error(self, name: str, stored: bytes, task_id: str) -> BaseException: ...
    def missing(self, id_: object) -> TaskNotFound: ...
    def is_closing(self, session: Session) -> bool: ...


class Task(asyncio.Future[R]):
    """The handle of a submitted call: an `asyncio.Future` with an `id`.

    An *owned* task (from `await call`, `app.create_task`) behaves like an asyncio task: cancelling
    whoever awaits it cancels the call. A *detached* one (from `app.submit`, `app.get_task`) is only
    observed by whoever awaits it; `cancel()` alone cancels it.

    Example:
        ```python
        from everloop import App

        app = App("sums", "memory://")

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        async def main() -> None:
            task = await app.submit(add(1, 2))
            print(task.id, await task, task.state)

        app.run(main())
        ```
    """

    __module__ = "everloop"
    __slots__ = (
        "_attempts",
        "_bound",
        "_cancelling",
        "_early",
        "_holds_up",
        "_is_stored",
        "_message",
        "_name",
        "_owned",
        "_parent",
        "_reader",
        "_seen",
        "_session",
        "_snapshot",
        "_stored",
        "_transaction",
        "_visit",
        "_wanted",
        "id",
        "listed",
        "next_waiter",
    )

    def __init__(
        self, reader: Reader, session: Session, id_: str, name: str, *, owned: bool, state: State
    ) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.id = id_
        self.next_waiter: Waiter | None = None
        self.listed = False  # from a listing: its end is told only to those who ask for it
        self._reader = reader
        self._session = session
        self._name = name
        self._owned = owned
        self._seen = state
        self._attempts = 0
        self._snapshot: Snapshot | None = None
        self._stored: asyncio.Future[None] | None = None
        self._is_stored = False
        self._early: Ended | None = None  # an end that came before the answer to its addition
        self._cancelling = False
        self._message: Any = None
        self._bound: asyncio.TimerHandle | None = None
        # The attempt that this task holds up, if one does: it has given its slot back meanwhile.
        self._holds_up: Attempt | None = None
        # The request that an owned task belongs to: when the server gives it up, the call goes on.
        self._visit = VISIT.get() if owned else None
        # The user's transaction that this call was added in, until the store has answered that it is there.
        self._transaction: UserTransaction | None = None
        self._wanted = False  # somebody here wants to be told of its end, once that is committed
        # The lease under which this task cancels its call; it outlasts the waiting.
        self._parent: Parent | None = None
        if owned and (attempt := CURRENT.get()) is not None:
            self._parent = attempt.parent
            self._hold_up(attempt)

    # -- what is known ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The task function's name."""
        return self._name

    @property
    def owned(self) -> bool:
        """Whether cancelling whoever awaits this cancels the call."""
        return self._owned

    @property
    def state(self) -> str:
        """The state as last seen: final ones are exact, others as of submission or `refresh()`."""
        return self._seen.value

    @property
    def attempts(self) -> int:
        """How many runs have ended in the task's code, as last seen."""
        return self._attempts

    @property
    def progress(self) -> Progress | None:
        """What the call last reported, as of `refresh()`."""
        snapshot = self._snapshot
        return Progress(*snapshot.progress) if snapshot is not None and snapshot.progress else None

    @property
    def created(self) -> datetime | None:
        """When it was submitted, as of `refresh()`."""
        return None if self._snapshot is None else moment(self._snapshot.created)

    def __repr__(self) -> str:
        return f"<everloop.Task {self._name} {self.id} {self._seen.value}>"

    async def stored(self) -> None:
        """Wait until the call is durable.

        Raises:
            IdConflict, KeyConflict: It was refused, and why.
            RolledBack: The transaction in which it was submitted was rolled back.
            WouldDeadlock: That transaction is open.
        """
        if self._is_stored:
            return
        self._check_committed()
        self._reader.check_wait(self._name, only_to_store=True)
        if self._stored is None:
            self._stored = self.get_loop().create_future()
        if self._transaction is not None:
            self._observe()
        await asyncio.shield(self._stored)

    async def refresh(self) -> None:
        """Read state, attempts and progress from the store.

        Raises:
            TaskNotFound: No call has this id.
        """
        await self.stored()
        (snapshot,) = await self._session.store.get([self.id])
        if snapshot is None:
            raise self._reader.missing(self.id)
        self.show(snapshot)

    async def history(self) -> History:
        """Read how the runs of this call ended, oldest first, each with its error.

        Of a call that ran very often the first and the last runs are kept; `left_out` counts the others.

        Raises:
            TaskNotFound: No call has this id.
        """
        await self.stored()
        return await read_history(self._session.store, self._reader, self.id, self._name)

    async def logs(self) -> list[LogLine]:
        """Read what the runs of this call have logged and printed, oldest first.

        What was logged a moment ago may still be on its way to the store.
        """
        await self.stored()
        return await read_logs(self._session.store, self.id)

    def show(self, snapshot: Snapshot) -> None:
        """Take over what a snapshot says, also an end."""
        self._snapshot = snapshot
        self._attempts = snapshot.attempt
        self._seen = snapshot.state
        if snapshot.state.final and not self.done():
            self.ended(Ended(snapshot.id, snapshot.state, snapshot.value, snapshot.error, snapshot.attempt))

    # -- waiting --------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, R]:
        if not self.done():
            self._check_committed()
            self._reader.check_wait(self._name)
        if self._owned or self.done():
            return super().__await__()
        return self._observed().__await__()

    __iter__ = __await__

    def add_done_callback(self, fn: Callable[[Self], object], /, *, context: Context | None = None) -> None:
        """Call `fn(task)` soon after the end, on this loop, as asyncio does.

        Raises:
            WouldDeadlock: What asks is asyncio's (`gather`, `wait`), and this code holds a connection that
                the call may need, or has submitted it in a transaction that is open; or nothing tells of the
                commit of a plain DB-API connection.
        """
        if not self.done():
            if _asyncio_asks():
                self._check_committed()
                self._reader.check_wait(self._name)
            self._observe()
            self._hold_up(CURRENT.get())
        # asyncio takes None for the context of whoever ends the future; that would be the turn loop's.
        super().add_done_callback(fn, context=copy_context() if context is None else context)

    def _observed(self) -> asyncio.Future[R]:
        """Return a future with this end and its message, whose own cancellation does not reach this one."""
        outer: asyncio.Future[R] = self.get_loop().create_future()

        def copy(_: object) -> None:
            if outer.done():
                return
            if self.cancelled():
                outer.cancel(self._message)
            elif (error := self.exception()) is not None:
                outer.set_exception(error)
            else:
                outer.set_result(self.result())

        self.add_done_callback(copy)
        outer.add_done_callback(lambda _: self.remove_done_callback(copy))
        return outer

    def _observe(self) -> None:
        """See to it that the end is told here: somebody waits for it."""
        if self._transaction is not None and self._transaction.is_open:
            if not self._transaction.tells:
                self._check_committed()
            self._wanted = True
        elif self.listed:
            self.listed = False
            self._session.watch(self, hold=True)
            self._session.apart.wait(self.id)
        else:
            self._session.hold(self)

    def _check_committed(self) -> None:
        """Refuse to wait for the commit of the transaction that the call was submitted in.

        Raises:
            WouldDeadlock: It is open.
        """
        transaction = self._transaction
        if transaction is not None and transaction.is_open:
            raise WouldDeadlock(
                f"waiting for {self._name}() while the transaction in which it was submitted is open on "
                f"{transaction.database}: it begins after the commit, and both would wait for ever. Commit "
                "first (leave the `async with` block), then wait"
            )

    def _hold_up(self, attempt: Attempt | None) -> None:
        """Suspend the attempt that waits for this call, until this is done."""
        if attempt is not None and self._holds_up is None:
            self._holds_up = attempt
            attempt.child_began()

    def _let_go(self) -> None:
        if self._holds_up is not None:
            self._holds_up.child_ended()
            self._holds_up = None
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None

    # -- cancelling -----------------------------------------------------------------------------------------

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the call, wherever it runs; this task ends with `CancelledError`.

        As with asyncio's tasks, it ends when the remote end has: the running coroutine gets
        `CancelledError` at its `await` and its `finally` runs. A second `cancel` stops waiting at once.
        When the loop or the app closes, or the worker drains, only the waiting ends; the call goes on. So
        it does when `gather`, or `wait_for` of Python 3.11, gives up on a detached task: this handle is
        then cancelled, and `app.get_task(id)` gives another.

        Raises:
            WouldDeadlock: The call was submitted in a transaction of a plain DB-API connection, which is open
                and will tell nobody of its commit.
        """
        if self.done():
            return False
        if self._cancelling or self._detaches() or (not self._owned and _asyncio_asks()):
            return self._cancel_here(msg)
        self._observe()
        self._cancelling = True
        self._message = msg
        bound = self._reader.cancel_bound(self._session, self.id)
        self._bound = self.get_loop().call_later(bound, self._cancel_here, msg)
        if self._is_stored:
            self._ask()
        return True

    def _ask(self) -> None:
        self._session.apart.cancel(self.id, str(self._message or ""), self._parent)

    def _cancel_here(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        self._session.unwatch(self)
        self._let_go()
        return super().cancel(msg)

    def _detaches(self) -> bool:
        """Whether this cancellation only ends the waiting: see "who cancels whom" in the documentation."""
        attempt = self._holds_up
        if attempt is not None:
            return attempt.detaching
        return (self._visit is not None and self._visit.left) or self._reader.is_closing(self._session)

    # -- answers of the store -------------------------------------------------------------------------------

    def added(self, answer: Added) -> None:
        """The call is stored, or was refused."""
        if answer.status == "refused":
            self.refused(_refusal(answer, self._name))
            return
        if answer.status == "lost":
            self.refused(LeaseLost("this attempt lost its lease; what it submitted was not added"))
            return
        if answer.id != self.id:
            self._session.rename(self, answer.id)
        self._now_stored()
        if self._early is not None and self._early.id == self.id:
            self.ended(self._early)

    def _now_stored(self) -> None:
        self._transaction = None
        self._is_stored = True
        if self._stored is not None and not self._stored.done():
            self._stored.set_result(None)
        if self._cancelling:
            self._ask()

    def added_in(self, transaction: UserTransaction, answer: Added) -> None:
        """The call was added in a transaction of the user's, or was refused."""
        if answer.status in ("refused", "lost"):
            self.added(answer)
            return
        self.id = answer.id  # nobody watches this yet
        self.listed = True  # its end is told only to those who ask for it
        self._transaction = transaction

    def transaction_ended(self, committed: bool) -> None:  # noqa: FBT001 - told by position
        """The transaction in which the call was added has ended."""
        if self._transaction is None:
            return
        if not committed:
            self.refused(self._rolled_back(self._transaction))
        elif self._wanted:
            self._observe()

    def asked(self, *, known: bool) -> None:
        """The store was asked for this call; only one that was added in a transaction may be missing."""
        if self._transaction is None:
            return
        if known:
            self._now_stored()
        else:
            self.refused(self._rolled_back(self._transaction))

    def unanswered(self, error: Exception) -> None:
        """The store could not be asked, for good."""
        if self._transaction is not None:
            self.refused(error)

    def _rolled_back(self, transaction: UserTransaction) -> RolledBack:
        return RolledBack(
            f"{self._name}() is not in the store: the transaction on {transaction.database} in which it was "
            "submitted, or a savepoint in it, was rolled back. Submit it again if it is still wanted"
        )

    def refused(self, error: Exception) -> None:
        """The call was not added."""
        self._transaction = None
        self._session.unwatch(self)
        self._let_go()
        if self._stored is None:
            self._stored = self.get_loop().create_future()
        if not self._stored.done():
            self._stored.set_exception(error)
            self._stored.exception()  # whoever waits for it gets it through the shield
        if not self.done():
            self.set_exception(error)
            self._quiet()

    def abandoned(self) -> None:
        """The app was closed: waiting ends here, for everybody who waits; the call goes on."""
        following = self.next_waiter
        self._cancel_here("the app was closed; the call goes on")
        if following is not None:
            following.abandoned()

    def ended(self, end: Ended) -> None:
        """The call has reached a final state."""
        if not self._is_stored and self._transaction is None:
            # Its addition is not answered yet: a call with its id has ended, and this may be another one.
            self._early = end
            return
        self._seen = end.state
        self._attempts = end.attempt
        self._transaction = None
        self._is_stored = True
        if self._stored is not None and not self._stored.done():
            self._stored.set_result(None)
        self._let_go()
        if self.done():
            return
        if self._cancelling or end.state is State.CANCELLED:
            super().cancel(self._message)
        elif end.state is State.SUCCEEDED:
            self._set_value(end.value)
        else:
            self.set_exception(self._reader.read_error(self._name, end.error or b"", self.id))
            self._quiet()

    def _set_value(self, stored: bytes | None) -> None:
        if stored is None:
            self.set_exception(
                ResultPruned(
                    f"{self._name}() succeeded, and its result is no longer kept (see App(keep=)); "
                    f"app.retry({self.id!r}) submits it again"
                )
            )
            self._quiet()
            return
        try:
            value = self._reader.read_value(self._name, stored)
        except Exception as error:  # noqa: BLE001 - it belongs to who asks for the result
            self.set_exception(error)
            self._quiet()
        else:
            self.set_result(value)

    def _quiet(self) -> None:
        """A detached task may be dropped without being asked: its failure is in the store."""
        if not self._owned:
            self._log_traceback = False


def _asyncio_asks() -> bool:
    """Tell whether asyncio's own code cancels a task that was handed to it, and not the user's."""
    asker = sys._getframe(2)  # noqa: SLF001 - nothing else tells
    return asker.f_globals.get("__name__") == "asyncio.tasks"


def _refusal(answer: Added, name: str) -> Exception:
    if answer.reason == "key":
        return KeyConflict(f"a call of {name!r} with this key exists: task {answer.id}")
    if answer.reason == "after":
        return TaskNotFound(f"the call that {name!r} should follow is not in the store")
    return IdConflict(
        f"the id {answer.id!r} belongs to another call (another function or other arguments than this "
        f"{name!r})"
    )
