"""Sessions: open, renew, serve, close, and the reaping of dead ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from everloop._core.calls import Event, State
from everloop._core.crashes import Death
from everloop._core.looks import Gauges
from everloop._core.records import SessionInfo
from everloop.store.sql.verbs.ending import Move, Row, apply_moves, crash, stop
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb


def open_session(scope: Scope, info: SessionInfo, lease: int) -> Verb[int]:
    """Register a session."""
    ((session,),) = yield Statement(
        "session_open",
        {
            "app": info.app,
            "kind": info.kind,
            "host": info.host,
            "pid": info.pid,
            "now": scope.now,
            "until": scope.now + lease,
        },
    )
    scope.session = session
    yield from _serve_lanes(scope, info)
    return int(session)


def serve(scope: Scope, info: SessionInfo) -> Verb[None]:
    """Replace what a session serves; of one that was reaped nothing is kept."""
    # Asked also for an answer before the commit: a connection that has died meanwhile is told from a commit
    # whose outcome nobody knows.
    if not (yield Statement("session_find", {"session": scope.session})):
        return
    yield Statement("session_kind", {"session": scope.session, "kind": info.kind})
    yield Statement("session_unserve", {"session": scope.session})
    yield from _serve_lanes(scope, info)


def _serve_lanes(scope: Scope, info: SessionInfo) -> Verb[None]:
    if info.lanes:
        lanes = [scope.lanes[lane] for lane in info.lanes]
        yield Statement("session_serve", {"session": scope.session, "lanes": lanes})


def renew(scope: Scope, lease: int, gauges: Gauges | None) -> Verb[bool]:
    """Keep the asking session alive; False when it is gone."""
    found = yield Statement("session_find", {"session": scope.session})
    told = None if gauges is None else msgspec.json.encode(gauges).decode()
    yield Statement("session_renew", {"session": scope.session, "until": scope.now + lease, "gauges": told})
    return bool(found)


def close_session(scope: Scope) -> Verb[None]:
    """End the asking session: release what it holds, drop what it was told."""
    session = scope.session
    rows = yield Statement("session_leases", {"session": session})
    yield from apply_moves(scope, [_release(*_read(row)) for row in rows])
    yield from _drop(scope, session)


def release_others(scope: Scope, known: set[str]) -> Verb[None]:
    """Release what the asking session holds without knowing: the answer that said so was lost.

    A row that another transaction holds is passed over: the session says again what it holds.
    """
    rows = yield Statement("session_free_leases", {"session": scope.session})
    lost = [_read(row) for row in rows if row[1] not in known]
    yield from apply_moves(scope, [_release(*each) for each in lost])


def reap(scope: Scope, gone: Mapping[int, str], *, overdue: bool) -> Verb[int]:
    """End every session whose process is gone, and with `overdue` every one whose time is over.

    `gone` tells how their processes ended, where that is known.
    """
    dead = yield Statement("session_dead", {"now": scope.now if overdue else 0, "gone": list(gone)})
    if not dead:
        return 0
    # For all of them at once: who reaps a fleet renews nothing meanwhile.
    leases = yield [Statement("session_free_leases", {"session": session}) for session, _, _ in dead]
    moves: list[Move] = []
    for (session, host, pid), rows in zip(dead, leases, strict=True):
        death = Death(host, pid, gone.get(session, ""))
        moves += [_crash(*_read(row), death) for row in rows]
    yield from apply_moves(scope, moves)
    held = yield [Statement("session_held", {"session": session}) for session, _, _ in dead]
    # A lease whose row somebody holds is taken another time; until then its session is remembered.
    over = [session for (session, _, _), rows in zip(dead, held, strict=True) if not rows]
    for session in over:
        yield from _drop(scope, session)
    return len(over)


def _read(columns: list[Any]) -> tuple[Row, int]:
    seq, id_, fence, attempt, crashes, crash_limit, due, waiter, watched, asked, session = columns
    row = Row(seq, id_, State.LEASED, fence, attempt, crashes, due, waiter, watched, asked, session)
    return row, crash_limit


def _release(row: Row, crash_limit: int) -> Move:  # noqa: ARG001 - same shape as crash
    if row.cancel_asked is not None:
        return stop(row, Event.CANCEL)
    return Move(row, State.READY, row.due, row.attempt, row.crashes, growth=1)


def _crash(row: Row, crash_limit: int, death: Death) -> Move:
    return crash(row, crash_limit, death.record(row.crashes + 1, crash_limit))


def _drop(scope: Scope, session: int | None) -> Verb[None]:
    yield Statement("session_past", {"session": session, "now": scope.now})
    for name in ("session_drop", "session_unserve", "session_drop_inbox", "session_drop_waits"):
        yield Statement(name, {"session": session})
