"""What the memory store keeps beside the calls: how their runs ended; and for how long it keeps all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from everloop._core.calls import State
from everloop._core.keeping import RECENT, Pruned, Pruning
from everloop._core.logs import LogChunk
from everloop._core.looks import Backlog, SessionLook
from everloop._core.records import Lane
from everloop._core.runs import RunKind, RunRecord, slot
from everloop.store.memory_lock import Locking, atomic
from everloop.store.memory_rows import Row, Tables

#: Calls that are looked at while nobody else has his turn.
PAGE = 20_000


class Keeping(Locking):
    """The verbs about what is kept (see `everloop.store.protocol.Store`)."""

    _tables: Tables
    now: Callable[[], int]

    @atomic
    async def runs(self, ids: Sequence[str]) -> list[list[RunRecord]]:
        rows = self._tables.rows
        return [_by_fence(rows[id]) if id in rows else [] for id in ids]

    @atomic
    async def log(self, chunks: Sequence[LogChunk]) -> None:
        for chunk in chunks:
            row = self._tables.rows.get(chunk.id)
            if row is not None and chunk.records and chunk.fence <= row.fence:
                row.logs.setdefault((chunk.fence, chunk.n), chunk)

    @atomic
    async def logs(self, id: str, after: tuple[int, int] = (0, 0), most: int = 1_000) -> list[LogChunk]:
        row = self._tables.rows.get(id)
        known = sorted(row.logs) if row is not None else []
        return [row.logs[place] for place in known if place > after][:most] if row is not None else []

    @atomic
    async def prune(self, request: Pruning) -> Pruned:
        if request.keeps_all:
            return Pruned()
        tables, now = self._tables, self.now()
        if request.after is None:
            if tables.sweeps.get(request.app, -request.every) > now - request.every:
                return Pruned()
            tables.sweeps[request.app] = now
            request = request.behind(0, bound=_bound(tables, request))
        page = [row for row in tables.rows.values() if row.seq > (request.after or 0)][:PAGE]
        mine = [row for row in page if row.new.lane.app == request.app and row.ended is not None]
        for row in page:
            if request.logs is not None and row.new.lane.app == request.app:
                before = now - request.logs
                row.logs = {place: c for place, c in row.logs.items() if c.records[-1].at >= before}
        old = {row for row in mine if _is_surplus(request, row, now - (row.ended or now))}
        gone = _with_their_roots(tables, {row for row in old if not _is_held(tables, row)})
        for row in gone:
            tables.remove(row)
        alive = {row.seq for row in tables.live.values()}
        worn = [
            row for row in mine if row not in old and _is_worn(request, row, now) and row.root not in alive
        ]
        worn = [row for row in worn if not _is_held(tables, row)]
        for row in worn:
            row.value = None
        more = request.behind(page[-1].seq) if len(page) == PAGE else None
        return Pruned(len(gone), len(worn), more)

    @atomic
    async def backlog(self, app: str | None = None) -> list[Backlog]:
        waiting: dict[Lane, list[int]] = {}
        for row in self._tables.live.values():
            if row.state is State.READY and app in (None, row.new.lane.app):
                waiting.setdefault(row.new.lane, []).append(row.due)
        return [Backlog(lane, len(due), min(due)) for lane, due in sorted(waiting.items())]

    @atomic
    async def sessions(self, app: str | None = None) -> list[SessionLook]:
        tables = self._tables
        return [
            SessionLook(
                number, there.info.app, there.info.kind, there.info.host, there.info.pid,
                there.opened, there.until, len(tables.held(number)),
                tuple(sorted({lane.queue for lane in there.info.lanes})), there.gauges,
            )
            for number, there in tables.sessions.items()
            if app in (None, there.info.app)
        ]  # fmt: skip

    @atomic
    async def swept(self, app: str) -> int | None:
        return self._tables.sweeps.get(app)

    def _note_run(self, row: Row, now: int, error: bytes | None, outcome: State | None = None) -> None:
        """Note that the lease of `row` ends, whose counts are those after it; `outcome`: by its body."""
        attempt, crashes = row.before
        kind: RunKind = "released"
        if row.crashes > crashes:
            kind = "crashed"
        elif row.attempt > attempt:
            kind = "failed"
        fence, session = row.fence, row.session
        place: int | None = slot(kind, fence, attempt, crashes)
        if kind == "failed" and outcome is not None:
            kind, place = _KINDS[outcome], None
        there = self._tables.sessions.get(session or 0)
        host, pid = (there.info.host, there.info.pid) if there else (None, None)
        row.runs[place] = RunRecord(fence, attempt + 1, kind, session, row.started, now, error, host, pid)


def _bound(tables: Tables, request: Pruning) -> int:
    """Return up to which call there are more finished ones than are to be kept."""
    if request.count is None:
        return 0
    rows = reversed(tables.rows.values())
    final = (row.seq for row in rows if row.state.final and row.new.lane.app == request.app)
    return next(islice(final, request.count, None), 0)


def _is_surplus(request: Pruning, row: Row, age: int) -> bool:
    if row.seq <= request.bound and age >= RECENT:
        return True
    return request.is_over(age, succeeded=row.state is State.SUCCEEDED)


def _is_held(tables: Tables, row: Row) -> bool:
    """Tell whether something live may still need this call."""
    parent = tables.rows.get(row.parent or "")
    if parent is not None and not parent.state.final:
        return True
    if any(not follower.state.final for follower in tables.followers.get(row.id, ())):
        return True
    return any(row.id in there.ended or row.id in there.cancels for there in tables.sessions.values())


def _with_their_roots(tables: Tables, rows: set[Row]) -> list[Row]:
    """Return the calls that may go: roots, and those whose root is gone or goes with them."""
    there = {row.seq for row in tables.rows.values()}
    roots = {row.seq for row in rows if row.root == row.seq}
    return [row for row in rows if row.root not in there or row.root in roots]


def _is_worn(request: Pruning, row: Row, now: int) -> bool:
    """Tell whether a call's value is kept for too long."""
    return (
        row.value is not None and request.results is not None and now - (row.ended or now) >= request.results
    )


_KINDS: dict[State, RunKind] = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


def _by_fence(row: Row) -> list[RunRecord]:
    return sorted(row.runs.values())
