"""What the memory store keeps beside the calls: how their runs ended."""

from __future__ import annotations

from collections.abc import Sequence

from everloop._core.calls import State
from everloop._core.runs import RunKind, RunRecord, slot
from everloop.store.memory_lock import Locking, atomic
from everloop.store.memory_rows import Row, Tables


class Keeping(Locking):
    """The verbs about what is kept (see `everloop.store.protocol.Store`)."""

    _tables: Tables

    @atomic
    async def runs(self, ids: Sequence[str]) -> list[list[RunRecord]]:
        rows = self._tables.rows
        return [_by_fence(rows[id]) if id in rows else [] for id in ids]

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


_KINDS: dict[State, RunKind] = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


def _by_fence(row: Row) -> list[RunRecord]:
    return sorted(row.runs.values())
