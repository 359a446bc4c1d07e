"""What the memory store tells of calls, and of who serves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from everloop._core.calls import State
from everloop._core.records import CallFilter, Lane, Snapshot
from everloop.store.memory_lock import Locking, atomic
from everloop.store.memory_rows import Tables


class Reading(Locking):
    """The verbs that read calls (see `everloop.store.protocol.Store`)."""

    _tables: Tables
    now: Callable[[], int]

    @atomic
    async def get(self, ids: Sequence[str]) -> list[Snapshot | None]:
        rows = self._tables.rows
        return [rows[id].snapshot() if id in rows else None for id in ids]

    @atomic
    async def find(self, filter: CallFilter) -> list[Snapshot]:
        rows = self._tables.rows
        last = self._tables.last_seq + 1
        if filter.before is not None:
            last = rows[filter.before].seq if filter.before in rows else 0
        shown = [row for row in reversed(rows.values()) if row.seq < last and row.matches(filter)]
        return [row.snapshot() for row in shown[: filter.limit]]

    @atomic
    async def counts(self, app: str | None = None, queue: str | None = None) -> dict[str, int]:
        counts = {state.value: 0 for state in State}
        for row in self._tables.rows.values():
            if app in (None, row.new.lane.app) and queue in (None, row.new.lane.queue):
                counts[row.state.value] += 1
        return counts

    @atomic
    async def serving(self, app: str) -> list[tuple[str, str]]:
        now = self.now()
        lanes: set[Lane] = set()
        for there in self._tables.sessions.values():
            if there.info.kind == "worker" and there.until > now:
                lanes.update(there.info.lanes)
        return sorted((lane.queue, lane.fn) for lane in lanes if lane.app == app)
