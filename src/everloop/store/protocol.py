"""The store seam: the verbs in which the engine speaks to durable state.

Every verb is plural and one transaction. Each is documented by its *effect*, *atomicity*,
*idempotence* and *fencing*. Races are answers, not exceptions: an exception from a verb means that
the store failed, that nothing may be assumed, and that the same request may be made again.

A store knows calls, not functions, and it never runs user code. Instants are judged by the store's
own clock; no verb takes the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from everloop._core.keeping import Pruned, Pruning
from everloop._core.logs import LogChunk
from everloop._core.looks import Backlog, Gauges, SessionLook
from everloop._core.records import (
    Added,
    CallFilter,
    Cancelled,
    Ended,
    NewCall,
    Outcome,
    Parent,
    SessionInfo,
    Snapshot,
    Turn,
    TurnAnswer,
)
from everloop._core.runs import RunRecord
from everloop.store.transactions import UserTransaction

#: No sessions.
NOBODY: Mapping[int, str] = MappingProxyType({})


class DbapiConnection(Protocol):
    """A plain connection of a driver (PEP 249)."""

    def cursor(self) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


if TYPE_CHECKING:
    from typing import TypeAlias

    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    #: What a user may give as `connection=` without a loop.
    SyncConnection: TypeAlias = Connection | Session | scoped_session[Any] | DbapiConnection
    #: What a user may give as `connection=`.
    UserConnection: TypeAlias = AsyncConnection | AsyncSession | async_scoped_session[Any] | SyncConnection


class Store(Protocol):
    """Durable state behind Everloop."""

    url: str

    async def open(self) -> None:
        """Connect, check that the store can be trusted, and bring its schema up to date.

        Raises:
            ConfigError: It is not usable, and why.
            StoreUnavailable: It does not answer.
        """
        ...

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        ...

    def twin(self) -> Store:
        """Return an unopened store on the same state, for another thread, with connections of its own."""
        ...

    def now(self) -> int:
        """Return the store's instant in microseconds, without asking it: as good as it is known here."""
        ...

    async def tend(self) -> None:
        """Do the upkeep that the store needs from time to time; once a second is often enough."""
        ...

    # -- sessions ---------------------------------------------------------------------------------

    async def open_session(self, info: SessionInfo, lease: int) -> int:
        """Register a session that is alive for `lease` microseconds, and return its number.

        Numbers are never re-used. Not idempotent: a repeated open makes a second session, and the
        first expires by itself.
        """
        ...

    async def renew(self, session: int, lease: int, gauges: Gauges | None = None) -> bool:
        """Keep `session` alive for `lease` microseconds more; False when it was reaped.

        What it tells of itself takes the place of what it told before.

        False is final: its leases went to others, and the caller must give up what it runs.
        """
        ...

    async def serve(self, session: int, info: SessionInfo) -> None:
        """Say which lanes `session` serves from now on, and of which kind it is. Idempotent."""
        ...

    async def close_session(self, session: int) -> None:
        """End `session`: release its leases unharmed and drop its inbox. Idempotent."""
        ...

    async def reap(self, *, overdue: bool = True, dead: Mapping[int, str] = NOBODY) -> int:
        """End every session whose time is over, and return how many there were.

        So it ends those of `dead`, by their number: whoever asks knows that their processes have ended, and
        how, which is written down with the runs that were cut off (`TaskCrashed`).

        A store that can tell that a session's process is gone ends it, too, before its time; with
        `overdue=False` it ends only what is known to be gone. A caller that has not seen the store answer for
        a while must not judge others by their time.

        A leased call of a dead session becomes ready again with one crash more; one that crashed
        more often than its limit fails (`TaskCrashed`); one whose cancellation was asked is
        cancelled. The fence of each grows, so the dead session's writes are void. Idempotent.
        """
        ...

    # -- the hot path -------------------------------------------------------------------------------

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        """Add what is new, settle what ended, lease what fits, and take the session's inbox, in this order.

        * *add*: see `NewCall`. A child is added only under its parent's current fence, so it may come
          with the outcome of its parent; one with the `child_key` of an earlier child joins it when
          that one lives or succeeded, and tells this session. Callbacks are calls like any other; they
          are added with a call that is added or exists, and not answered. Idempotent by id.
        * *settle*: each outcome with the current `(id, fence)` moves its call as the transition
          table says; a stale one changes nothing and is answered False, and so is the second of two
          for one lease. One whose call a transaction beside this one holds is answered None, and goes
          again. An end is told to every session that waits for it, starts the callbacks, and
          cancels the owned children that the last attempt did not ask for; an end from outside (a
          cancel, an expiry, a crash) cancels them all. A call whose cancellation was asked does not go
          back to the queue: RETRY, RELEASE and REAP end it as cancelled, the last two from outside. REAP
          counts a crash, as `reap` does. Outcomes are
          judged together; what their ends lead to comes after. Repeating a settlement answers False.
        * *lease*: at most `room` ready calls of `lanes`, by priority, then the root's due time and
          submission, then deepest first. Two sessions never receive the same call, and one that was
          reaped receives none. Of the suspects (two crashes or more) only the first is leased, and none
          when the turn takes none. When lanes are named, calls of any lane that expired are ended first,
          scheduled ones whose time has come are ready, and `next_due` is answered.
        * *inbox*: ends and cancellations for this session, each handed out once.

        Atomic as a whole. When the answer is lost, so are the leases in it: the caller repeats the
        turn and says what it is `holding`, and whatever else its session holds is released unharmed.
        """
        ...

    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        """Add calls, apart from any turn: those with a key or a chosen id, and those of nobody's session.

        Effect, idempotence and fencing as in `turn`. A key is judged against the calls of the same
        app and function, inside the transaction. Calls whose ids are chosen may go in several transactions:
        each of them waits for nobody's, and what another one has that is still open is `busy`.
        """
        ...

    async def wait(self, session: int, ids: Sequence[str]) -> list[str]:
        """Tell `session` when these calls end, also when they have; return the unknown ids. Idempotent."""
        ...

    async def cancel(
        self, ids: Sequence[str], message: str = "", parents: Sequence[Parent | None] = ()
    ) -> list[Cancelled]:
        """Cancel calls: at once if they wait, by asking their worker if they run.

        A final call stays as it is. Owned children of a call that ends here are cancelled too.
        Idempotent.

        `parents` is empty, or says of each id whose body asks; None is nobody's: a user, a client. A parent
        asks under its lease. When its fence is not that one any more, because the lease was lost or given
        back and the next run decides about the children, or when no call has the parent's id, this item
        changes nothing and its answer is `lost`. A parent that has ended by its body keeps its fence: what
        the body asked for last may come after its outcome.
        """
        ...

    async def prune(self, request: Pruning) -> Pruned:
        """Delete what is kept for too long, a page at a time; the answer says how to go on.

        A finished call goes when it ended too long ago, or when there are too many newer ones of the app and
        it did not end just now. It stays while its root is there, unless that goes with it; while its parent
        lives, which may ask for it again; while a callback of it lives; and while a session is yet to be told
        of its end. With it goes all that belongs to it: its id and its key are free again.

        Values go earlier where that is asked for, under the same conditions but that the root has ended; then
        the call has succeeded without one. So do logs, also those of calls that live.

        Atomic page by page; each is small, and waits for no transaction beside it. Idempotent, and harmless
        when several processes do it at once. A sweep is not begun when another one has begun within
        `request.every`, and not by a request that keeps everything.
        """
        ...

    async def log(self, chunks: Sequence[LogChunk]) -> None:
        """Store what runs have logged; of calls that are not there, nothing.

        Not in order with anything else, and a machine that loses power may lose the last of it. Idempotent by
        call, fence and number.
        """
        ...

    async def settle_on(self, connection: AsyncConnection, outcome: Outcome) -> Callable[[], None] | None:
        """Settle inside the transaction that the user's connection has open on this same database.

        Effect and fencing as in `turn`; the outcome is durable if and only if the caller commits. Returns
        what to call after the commit, which wakes whoever is to be told; None when the lease was lost.
        Stores without a user's connection do not have it.
        """
        ...

    async def add_on(
        self, connection: UserConnection, calls: Sequence[NewCall]
    ) -> tuple[list[Added], UserTransaction]:
        """Add calls inside the transaction that the user's connection has open, or begins here.

        Effect and idempotence as in `add`; no session is told of the ends. The calls are there if and only if
        the user commits: then whoever is to look is woken, where the connection tells of its commit. Atomic
        in itself: what fails leaves nothing in the transaction. It may be called before the store is open,
        and waits for no other transaction of the store's.

        Raises:
            OptionError: This is no connection that could have such a transaction.
            UsageError: It is closed, commits each statement by itself, or is on another database.
            StoreError: The database failed.
        """
        ...

    async def is_blocked_by(self, connection: UserConnection) -> bool:
        """Whether this store cannot write before the transaction on the user's connection is over.

        Raises:
            OptionError: As in `add_on`.
            UsageError: (The same.)
        """
        ...

    # -- reads --------------------------------------------------------------------------------------

    async def get(self, ids: Sequence[str]) -> list[Snapshot | None]:
        """Return what is stored of each call, None for an unknown id."""
        ...

    async def runs(self, ids: Sequence[str]) -> list[list[RunRecord]]:
        """Return how the leases of each call ended, oldest first; nothing for an unknown id.

        Each lease ends once: its body ended, its worker died, or it was given back. All that were the outcome
        of their call are kept, of the others the first and the last ones (see `everloop._core.runs`).
        """
        ...

    async def logs(self, id: str, after: tuple[int, int] = (0, 0), most: int = 1_000) -> list[LogChunk]:
        """Return what the runs of a call have logged, in order, behind `after` (fence, number)."""
        ...

    async def find(self, filter: CallFilter) -> list[Snapshot]:
        """Return the calls that match, newest first."""
        ...

    async def counts(self, app: str | None = None, queue: str | None = None) -> dict[str, int]:
        """Count calls by state; every state is a key."""
        ...

    async def serving(self, app: str) -> list[tuple[str, str]]:
        """Return the (queue, function) pairs that a living worker session of `app` serves."""
        ...

    async def backlog(self, app: str | None = None) -> list[Backlog]:
        """Count the calls that are ready, lane by lane; lanes without any are left out."""
        ...

    async def sessions(self, app: str | None = None) -> list[SessionLook]:
        """Return the sessions that are open, or over and not reaped yet, oldest first."""
        ...

    async def swept(self, app: str) -> int | None:
        """Return the instant at which the last sweep of an app's calls began."""
        ...

    # -- hints --------------------------------------------------------------------------------------

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the running loop when something may have come for `session`.

        A hint: it may come late, twice, or never; polling is the truth. Returns the function that
        stops it.
        """
        ...


@runtime_checkable
class Foretelling(Protocol):
    """A store that may tell of ends before a turn does, because a turn takes longer."""

    def foretell(self, session: int, told: Callable[[list[Ended]], None]) -> None:
        """Call `told` on the running loop with ends that a turn of `session` is going to tell again.

        A hint, like those of `listen`, and given by what that starts: to be said before.
        """
        ...
