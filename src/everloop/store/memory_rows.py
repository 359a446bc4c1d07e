"""What the memory store remembers: calls, sessions, and the few indexes between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from everloop._core.calls import State
from everloop._core.logs import LogChunk
from everloop._core.looks import Gauges
from everloop._core.records import (
    CallFilter,
    Ended,
    KeyRule,
    Lane,
    Leased,
    NewCall,
    Parent,
    SessionInfo,
    Snapshot,
)
from everloop._core.runs import RunRecord

#: Above every fence: no child was asked for.
NO_FENCE = 1 << 62


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One call. What it was born with is in `new`; the rest is its life."""

    new: NewCall
    seq: int
    state: State
    priority: int
    place: int  # the root's due instant, inherited
    root: int  # the root's seq, inherited
    depth: int
    due: int
    created: int
    expires: int | None
    asked: int  # the parent's fence when it last asked for this child
    fence: int = 0  # Invariant: only grows; guards every write of a lease
    attempt: int = 0
    crashes: int = 0
    session: int | None = None  # whose lease it is; of a final call, whose lease it was
    started: int | None = None
    ended: int | None = None
    cancel_asked: str | None = None
    value: bytes | None = None
    error: bytes | None = None
    progress: tuple[float, float | None, str] | None = None
    orphan: bool = False  # its parent's row is gone
    before: tuple[int, int] = (0, 0)  # attempts and crashes when its lease began
    runs: dict[int | None, RunRecord] = field(default_factory=dict[int | None, RunRecord])  # by place
    logs: dict[tuple[int, int], LogChunk] = field(default_factory=dict[tuple[int, int], LogChunk])
    waiters: set[int] = field(default_factory=set[int])  # Invariant: empty once the call is final

    @property
    def id(self) -> str:
        return self.new.id

    @property
    def parent(self) -> str | None:
        """The parent's id, while that is there."""
        return self.new.parent.id if self.new.parent and not self.orphan else None

    @property
    def order(self) -> tuple[int, int, int, int, int]:
        """The smaller goes first: priority, the root's due time and submission, then deepest first."""
        return -self.priority, self.place, self.root, -self.depth, self.seq

    def equals(self, call: NewCall) -> bool:
        """Tell whether adding `call` under this row's id would be adding the same call."""
        mine, other = self.new, call
        return (mine.lane.app, mine.lane.fn, mine.args) == (other.lane.app, other.lane.fn, other.args)

    def holds(self, fence: int) -> bool:
        """Tell whether `fence` is the one of the current lease."""
        return self.state is State.LEASED and self.fence == fence

    def is_late(self, now: int) -> bool:
        """Tell whether the call should have been started by now."""
        idle = self.state in (State.WAITING, State.SCHEDULED, State.READY)
        return idle and self.expires is not None and self.expires <= now

    def meets(self, rule: KeyRule) -> bool:
        """Tell whether this call, added under the same key, stands in the way of `rule`."""
        if rule.among == "ever" or not self.state.final:
            return True
        return rule.among == "done" and self.state is State.SUCCEEDED

    def matches(self, filter: CallFilter) -> bool:
        new, lane = self.new, self.new.lane
        return (
            filter.app in (None, lane.app)
            and filter.queue in (None, lane.queue)
            and filter.fn in (None, lane.fn)
            and (not filter.states or self.state in filter.states)
            and (filter.tag is None or filter.tag in new.tags)
            and filter.parent in (None, self.parent)
        )

    def leased(self) -> Leased:
        new = self.new
        return Leased(
            id=new.id,
            fence=self.fence,
            lane=new.lane,
            args=new.args,
            policy=new.policy,
            attempt=self.attempt,
            crashes=self.crashes,
            depth=self.depth,
            priority=self.priority,
            after=new.after,
            due=self.due,
            created=self.created,
        )

    def told(self) -> Ended:
        return Ended(self.id, self.state, self.value, self.error, self.attempt)

    def snapshot(self) -> Snapshot:
        new = self.new
        return Snapshot(
            id=new.id,
            lane=new.lane,
            state=self.state,
            args=new.args,
            policy=new.policy,
            priority=self.priority,
            due=self.due,
            created=self.created,
            started=self.started,
            ended=self.ended,
            expires=self.expires,
            fence=self.fence,
            attempt=self.attempt,
            crashes=self.crashes,
            crash_limit=new.crash_limit,
            depth=self.depth,
            session=self.session,
            parent=self.parent,
            owned=new.owned,
            after=new.after,
            key=new.key.value if new.key else None,
            tags=new.tags,
            retry_of=new.retry_of,
            cancel_asked=self.cancel_asked,
            value=self.value,
            error=self.error,
            progress=self.progress,
        )


@dataclass(slots=True)
class Session:
    """One open session and its inbox: ids of calls that ended, fences of leases to cancel."""

    info: SessionInfo
    until: int
    opened: int
    gauges: Gauges | None = None
    ended: dict[str, None] = field(default_factory=dict[str, None])
    cancels: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class Tables:
    """Everything that one memory store holds.

    Rows are added in the order of `seq`, so "newest" is "last".
    """

    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    live: dict[str, Row] = field(default_factory=dict[str, Row])  # Invariant: the rows that are not final
    children: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    followers: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])  # by `after`
    keyed: dict[tuple[str, str, str], list[Row]] = field(
        default_factory=dict[tuple[str, str, str], list[Row]]
    )
    sweeps: dict[str, int] = field(default_factory=dict[str, int])  # when the last one of an app began
    last_seq: int = 0  # Invariant: only grows
    sessions: dict[int, Session] = field(default_factory=dict[int, Session])
    last_session: int = 0  # Invariant: only grows; a number is never re-used

    def insert(self, row: Row) -> None:
        """Add a row and index it."""
        new = row.new
        self.rows[row.id] = self.live[row.id] = row
        if new.parent is not None:
            self.children.setdefault(new.parent.id, []).append(row)
        if new.after is not None:
            self.followers.setdefault(new.after, []).append(row)
        if new.key is not None:
            self.keyed.setdefault((new.lane.app, new.lane.fn, new.key.value), []).append(row)

    def remove(self, row: Row) -> None:
        """Forget a row of a call that is final, and to which nothing live points."""
        new = row.new
        del self.rows[row.id]
        for child in self.children.pop(row.id, ()):
            child.orphan = True
        self.followers.pop(row.id, None)
        if row.parent is not None:
            self.children[row.parent].remove(row)
        if new.after is not None and row in self.followers.get(new.after, ()):
            self.followers[new.after].remove(row)
        if new.key is not None:
            self.keyed[new.lane.app, new.lane.fn, new.key.value].remove(row)

    def has_fence(self, parent: Parent) -> bool:
        """Tell whether no lease has followed this one of a parent's."""
        row = self.rows.get(parent.id)
        return row is not None and row.fence == parent.fence

    def with_key(self, lane: Lane, key: str) -> list[Row]:
        """Return the calls that were added under `key`, oldest first."""
        return self.keyed.get((lane.app, lane.fn, key), [])

    def child(self, parent: str, child_key: str) -> Row | None:
        """Return the newest child of `parent` with this identity."""
        same = [row for row in self.children.get(parent, ()) if row.new.child_key == child_key]
        return same[-1] if same else None

    def orphans(self, parent: Row, below: int) -> Iterator[Row]:
        """Give the owned live children that `parent` last asked for under a fence smaller than `below`."""
        for child in self.children.get(parent.id, ()):
            if child.new.owned and not child.state.final and child.asked < below:
                yield child

    def held(self, session: int) -> list[Row]:
        """Return the leased calls of a session."""
        return [row for row in self.live.values() if row.state is State.LEASED and row.session == session]

    def tell(self, row: Row, sessions: Iterable[int]) -> list[int]:
        """Put the end of `row` into inboxes; return the sessions that are still there to read it."""
        there = [number for number in sessions if number in self.sessions]
        for number in there:
            self.sessions[number].ended[row.id] = None
        return there
