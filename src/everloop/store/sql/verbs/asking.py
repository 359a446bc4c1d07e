"""Asking: cancel calls, wait for them, and read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from everloop._core.calls import State
from everloop._core.looks import Backlog, Gauges, SessionLook
from everloop._core.records import CallFilter, Cancelled, Lane, Parent, Snapshot
from everloop._core.runs import RunRecord
from everloop.store.sql.verbs.adding import hold
from everloop.store.sql.verbs.ending import WAITS, Row, cancel_rows
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb, blob


def cancel(
    scope: Scope, ids: Sequence[str], message: str, parents: Sequence[Parent | None] = ()
) -> Verb[list[Cancelled]]:
    """Cancel calls (see `Store.cancel`)."""
    match = Statement("cancel_match", {"ids": list(dict.fromkeys(ids))})
    askers = list({parent.id: None for parent in parents if parent is not None})
    if askers:
        # The calls are held before the fences are read: whoever attaches one again comes after this.
        found, fences = yield [match, Statement("cancel_parents", {"ids": askers})]
    else:
        found, fences = (yield match), []
    rows = {row.id: row for row in map(Row.read, found)}
    last = {None, *(Parent(id_, fence) for id_, fence in fences)}
    asks = [(id_, parent not in last) for id_, parent in zip(ids, parents or [None] * len(ids), strict=True)]
    stopped = {id_: rows[id_] for id_, lost in asks if id_ in rows and not lost}
    yield from cancel_rows(scope, list(stopped.values()), message)
    return [_cancelled(id_, rows.get(id_), lost=lost) for id_, lost in asks]


def _cancelled(id_: str, row: Row | None, *, lost: bool) -> Cancelled:
    """Answer one item of a `cancel`; `row` is what it found."""
    if row is None:
        return Cancelled(id_, None, asked=False)
    if lost:
        return Cancelled(id_, row.state, asked=False, lost=True)
    if row.state is State.LEASED:
        return Cancelled(id_, State.LEASED, asked=True)
    return Cancelled(id_, row.state if row.state.final else State.CANCELLED, asked=False)


def wait(scope: Scope, ids: Sequence[str]) -> Verb[list[str]]:
    """Subscribe the asking session to ends (see `Store.wait`)."""
    found = yield Statement("wait_match", {"ids": list(ids)})
    live = [seq for _, seq, state in found if not State(state).final]
    ended = [seq for _, seq, state in found if State(state).final]
    if live:
        _, late = yield [
            Statement("watch", {"rows": [[seq, WAITS] for seq in live]}),
            Statement("watch_ended", {"seqs": live}),
        ]
        ended += [seq for (seq,) in late]
        waits = [seq for seq in live if seq not in ended]
        if waits:
            yield Statement("wait_add", {"seqs": waits, "session": scope.session})
    if ended and scope.session is not None:
        yield from hold(ended)
        scope.rung.add(scope.session)
        yield Statement("end_tell", {"session": scope.session, "seqs": ended})
    known = {id_ for id_, _, _ in found}
    return [id_ for id_ in ids if id_ not in known]


def get(ids: Sequence[str]) -> Verb[list[Snapshot | None]]:
    """Read calls by id."""
    rows = yield Statement("read_calls", {"ids": list(ids)})
    found = {row[0]: _snapshot(row) for row in rows}
    return [found.get(id_) for id_ in ids]


def runs(ids: Sequence[str]) -> Verb[list[list[RunRecord]]]:
    """Read what is kept of the runs of calls."""
    found: dict[str, list[RunRecord]] = {}
    for id_, fence, number, kind, session, started, ended, error, host, pid in (
        yield Statement("read_runs", {"ids": list(dict.fromkeys(ids))})
    ):
        run = RunRecord(fence, number, kind, session, started, ended, blob(error), host, pid)
        found.setdefault(id_, []).append(run)
    return [found.get(id_, []) for id_ in ids]


def find(filter: CallFilter) -> Verb[list[Snapshot]]:
    """Read the newest calls that match."""
    parameters = {name: getattr(filter, name) for name in ("before", "app", "queue", "fn", "tag", "parent")}
    rows = yield Statement("read_find", {**parameters, "states": list(filter.states), "most": filter.limit})
    found = yield from get([id_ for (id_,) in rows])
    return [snapshot for snapshot in found if snapshot is not None]


def counts(app: str | None, queue: str | None) -> Verb[dict[str, int]]:
    """Count calls by state."""
    rows = yield Statement("read_counts", {"app": app, "queue": queue})
    return {state.value: 0 for state in State} | dict(rows)


def serving(scope: Scope, app: str) -> Verb[list[tuple[str, str]]]:
    """Read what the living workers of an app serve."""
    rows = yield Statement("read_serving", {"app": app, "now": scope.now})
    return [(queue, fn) for queue, fn in rows]


def backlog(app: str | None) -> Verb[list[Backlog]]:
    """Read how many calls of each lane are ready."""
    rows = yield Statement("read_backlog", {"app": app})
    return [Backlog(Lane(*lane), ready, oldest) for *lane, ready, oldest in rows]


def sessions(app: str | None) -> Verb[list[SessionLook]]:
    """Read which sessions there are."""
    rows, served = yield [
        Statement("read_sessions", {"app": app}),
        Statement("read_session_queues", {"app": app}),
    ]
    queues: dict[int, list[str]] = {}
    for session, queue in served:
        queues.setdefault(session, []).append(queue)
    return [
        SessionLook(*row)._replace(
            queues=tuple(sorted(queues.get(row[0], ()))), gauges=told and _read_gauges(told)
        )
        for *row, told in rows
    ]


def swept(app: str) -> Verb[int | None]:
    """Read when the last sweep of an app began."""
    rows = yield Statement("read_sweep", {"app": app})
    return rows[0][0] if rows else None


_read_gauges = msgspec.json.Decoder(Gauges).decode


def _snapshot(row: list[Any]) -> Snapshot:
    id_, app, queue, fn, state, args, policy, priority, due, created, started, ended, expires = row[:13]
    fence, attempt, crashes, crash_limit, depth, session, parent, owned = row[13:21]
    after, key, tags, retry_of = row[21:25]
    cancel_asked, value, error, done, total, note = row[25:]
    return Snapshot(
        id=id_,
        lane=Lane(app, queue, fn),
        state=State(state),
        args=blob(args) or b"",
        policy=blob(policy) or b"",
        priority=priority,
        due=due,
        created=created,
        started=started,
        ended=ended,
        expires=expires,
        fence=fence,
        attempt=attempt,
        crashes=crashes,
        crash_limit=crash_limit,
        depth=depth,
        session=session,
        parent=parent,
        owned=bool(owned),
        after=after,
        key=key,
        tags=tuple(msgspec.json.decode(tags, type=list[str])) if tags else (),
        retry_of=retry_of,
        cancel_asked=cancel_asked,
        value=blob(value),
        error=blob(error),
        progress=None if done is None else (done, total, note),
    )
