"""What crosses the store seam: calls to add, leases, outcomes, snapshots, and the answers.

Everything is frozen and holds bytes that the codec made: a store never looks into a payload.
Records hold no cycles, so those of the hot path are kept from the garbage collector (`gc=False`): with tens
of thousands alive it would spend a third of the time.
Instants are integer microseconds in UTC; a delay inside a record is microseconds too.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from everloop._core.calls import Event, State
from everloop._core.ids import new_id
from everloop._core.policy import CRASHES


class Lane(NamedTuple):
    """The line that a call stands in: calls of one function, in one queue, of one app."""

    app: str
    queue: str
    fn: str


class Parent(NamedTuple):
    """The leased call whose body adds or cancels a child; a stale fence does neither."""

    id: str
    fence: int


class KeyRule(NamedTuple):
    """A key as the store judges it (see `everloop.Key`)."""

    value: str
    among: Literal["live", "done", "ever"] = "live"
    on_conflict: Literal["join", "raise", "replace"] = "join"


class NewCall(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A call to add.

    Attributes:
        id: Minted at birth, or chosen; adding it twice is adding it once.
        named: Whether it was chosen: a transaction of a user that is still open may have added it.
        args: The payload of arguments.
        policy: The per-call options that only a worker reads (JSON), or nothing.
        priority: Higher goes first; None takes the parent's, or 0.
        due: The instant before which it must not start, or 0 for now.
        delay: Microseconds from the store's now, instead of `due`.
        expires: Microseconds from the store's now after which it is no longer started.
        parent: Set when a running call adds it; with `owned`, what becomes of the parent decides for it.
        child_key: Identity among the parent's children (function, argument digest, ordinal), or None
            when it is never re-used.
        after: It starts when the call with this id has ended.
        callbacks: Calls that start when this one has ended; their `after` is this id.
        told: Whether the adding session wants to be told of the end.
    """

    id: str
    lane: Lane
    args: bytes
    policy: bytes = b""
    priority: int | None = None
    due: int = 0
    delay: int = 0
    expires: int | None = None
    crash_limit: int = CRASHES
    parent: Parent | None = None
    owned: bool = False
    child_key: str | None = None
    key: KeyRule | None = None
    tags: tuple[str, ...] = ()
    after: str | None = None
    callbacks: tuple[NewCall, ...] = ()
    retry_of: str | None = None
    told: bool = True
    named: bool = False


class Added(NamedTuple):
    """The answer to one `NewCall`.

    `status` is "added", "exists" (an equal call is there; `id` is its id), "lost" (the parent's
    lease is), "busy" (a transaction that is still open judges the same key, or has added a call with the same
    chosen id: ask again), or "refused" with the reason "id" (`IdConflict`), "key" (`KeyConflict`) or "after"
    (the call that it should follow is not there).
    """

    id: str
    status: Literal["added", "exists", "refused", "lost", "busy"] = "added"
    reason: str = ""


class Leased(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """A call that this session may run now.

    Attributes:
        fence: Guards every write about this lease.
        attempt: Earlier runs that ended in the user's code.
        crashes: Leases that were lost with their worker.
        rerun: Whether an earlier lease may have added children.
        after: The id of the finished call that this durable callback is about.
    """

    id: str
    fence: int
    lane: Lane
    args: bytes
    policy: bytes
    attempt: int
    crashes: int
    depth: int
    priority: int
    after: str | None
    due: int
    created: int

    @property
    def rerun(self) -> bool:
        return self.fence > 1


class Outcome(msgspec.Struct, gc=False, frozen=True):
    """How one lease ended.

    Attributes:
        event: SUCCEED, FAIL, RETRY, CANCEL, RELEASE or REAP: a process of the worker's died with it, and
            `error` tells how.
        delay: For RETRY and RELEASE: microseconds until the call is ready again.
    """

    id: str
    fence: int
    event: Event
    value: bytes | None = None
    error: bytes | None = None
    delay: int = 0


class Ended(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """A call that ended, told to a session that waited for it."""

    id: str
    state: State
    value: bytes | None
    error: bytes | None
    attempt: int


class Cancel(NamedTuple):
    """A leased call of this session whose cancellation was asked."""

    id: str
    fence: int
    message: str


class Progress(NamedTuple):
    """How far a running call says it is."""

    id: str
    fence: int
    done: float
    total: float | None
    note: str


class Turn(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One request of a session: settle, add, lease, and take the inbox, in one transaction.

    Attributes:
        room: How many calls it can take.
        roots: Whether it takes any call; False for only those that a suspended parent may wait for.
        suspects: Whether it takes a call whose workers have died with it twice or more; at most one.
        holding: When given, whatever the session holds beyond these ids (and what this turn settles)
            is released: the answer of an earlier turn, with leases in it, was lost.
    """

    outcomes: list[Outcome] = []
    adds: list[NewCall] = []
    progress: list[Progress] = []
    room: int = 0
    lanes: tuple[Lane, ...] = ()
    roots: bool = True
    suspects: bool = True
    holding: tuple[str, ...] | None = None


class TurnAnswer(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The answer to a `Turn`, item by item.

    Attributes:
        settled: One per outcome: False when the lease was lost and nothing changed; None when a transaction
            that is still open holds the call, so that nothing changed yet: say it again.
        added: One per `NewCall`, in order.
        ended: Calls that this session waits for and that ended.
        next_due: When the next scheduled call is due, if any is.
        more: Whether the inbox held more than fits in one answer.
    """

    settled: list[bool | None] = []
    added: list[Added] = []
    leased: list[Leased] = []
    ended: list[Ended] = []
    cancels: list[Cancel] = []
    next_due: int | None = None
    more: bool = False


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a session says of itself when it opens."""

    app: str
    kind: Literal["client", "worker"]
    host: str
    pid: int
    lanes: tuple[Lane, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a store knows of one call, at one instant."""

    id: str
    lane: Lane
    state: State
    args: bytes
    policy: bytes
    priority: int
    due: int
    created: int
    started: int | None
    ended: int | None
    expires: int | None
    fence: int
    attempt: int
    crashes: int
    crash_limit: int
    depth: int
    session: int | None
    parent: str | None
    owned: bool
    after: str | None
    key: str | None
    tags: tuple[str, ...]
    retry_of: str | None
    cancel_asked: str | None
    value: bytes | None
    error: bytes | None
    progress: tuple[float, float | None, str] | None


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls a listing shows, newest first.

    Attributes:
        before: Continue after this call (the `id` of the last one shown).
    """

    app: str | None = None
    states: tuple[State, ...] = ()
    queue: str | None = None
    fn: str | None = None
    tag: str | None = None
    parent: str | None = None
    limit: int = 100
    before: str | None = None


class Cancelled(NamedTuple):
    """The answer to one request to cancel: the state after it, or None when no call has the id.

    One that is `lost`, as the lease of the parent that asked was, has changed nothing, and `state` is what it
    found.
    """

    id: str
    state: State | None
    asked: bool  # it runs, and its worker has been asked
    lost: bool = False


def repeat_of(old: Snapshot, *, told: bool = True) -> NewCall:
    """Return the call that repeats a finished one: without its key, its callbacks and its `expires`."""
    return NewCall(
        id=new_id(),
        lane=old.lane,
        args=old.args,
        policy=old.policy,
        priority=old.priority,
        tags=old.tags,
        crash_limit=old.crash_limit,
        after=old.after,
        retry_of=old.id,
        told=told,
    )
