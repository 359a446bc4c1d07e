"""Keeping: what is kept for too long goes, page by page, in transactions that hold up nobody.

A sweep looks at the calls in the order of their numbers, a page at a time. What a page holds is read
beside the writers; only what is to go is then locked, looked at again, and deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from everloop._core.calls import State
from everloop._core.keeping import RECENT, Pruned, Pruning
from everloop._core.logs import LogChunk, LogRecord
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[LogRecord, ...]).decode
#: Calls that are looked at, and deleted, at a time.
PAGE = 500
#: Where the rows of a call stand; its keys are found by its payload, and the call itself goes last.
_TABLES = (
    "prune_keys",
    "prune_payloads",
    "prune_outcomes",
    "prune_progress",
    "prune_runs",
    "prune_logs",
    "prune_calls",
)


class Page(NamedTuple):
    """What a look at a page has found; what is to go is looked at again before it does.

    Attributes:
        calls: The numbers of calls that are kept for too long.
        results: Those of calls whose value is.
        logs: Those of calls of whose logs some may be.
        next: How the sweep goes on.
    """

    calls: list[int]
    results: list[int]
    logs: list[int]
    next: Pruning | None

    @property
    def empty(self) -> bool:
        return not (self.calls or self.results or self.logs)


def log(scope: Scope, chunks: Sequence[LogChunk]) -> Verb[None]:  # noqa: ARG001 - as every verb
    """Store what runs have logged."""
    rows = [
        [c.id, c.fence, c.n, c.attempt, c.records[-1].at, _encode(c.records).decode()]
        for c in chunks
        if c.records
    ]
    yield Statement("log_put", {"rows": rows})


def logs(id_: str, after: tuple[int, int], most: int) -> Verb[list[LogChunk]]:
    """Read what the runs of a call have logged."""
    fence, n = after
    rows = yield Statement("log_read", {"id": id_, "fence": fence, "n": n, "most": most})
    return [LogChunk(id_, fence, n, attempt, _decode(lines)) for fence, n, attempt, lines in rows]


def begin_sweep(scope: Scope, request: Pruning) -> Verb[bool]:
    """Note that a sweep begins; False when another one has begun a short while ago."""
    found = yield Statement("sweep_find", {"app": request.app})
    if found and found[0][0] > scope.now - request.every:
        return False
    yield Statement("sweep_put", {"app": request.app, "now": scope.now})
    # Told in a transaction that was under way when its session ended: nobody takes it, and what it is about
    # would be kept for ever.
    for (session,) in (yield Statement("sweep_lost", {})):
        yield Statement("session_drop_inbox", {"session": session})
        yield Statement("session_drop_waits", {"session": session})
    if request.sessions is not None:
        yield Statement("prune_sessions", {"before": scope.now - request.sessions})
    return True


def find_bound(request: Pruning) -> Verb[Pruning]:
    """Find up to which call there are more finished ones than are to be kept."""
    bound = 0
    if request.count is not None:
        rows = yield Statement("prune_bound", {"app": request.app, "count": request.count})
        bound = rows[0][0] if rows else 0
    return request.behind(0, bound=bound)


def look(scope: Scope, request: Pruning) -> Verb[Page]:
    """Look at a page."""
    rows = yield Statement("prune_page", {"app": request.app, "after": request.after, "most": PAGE})
    page = Page([], [], [], None)
    now = scope.now
    for seq, mine, state, created, ended, valued, logged in rows:
        if not mine:
            continue
        if logged and request.logs is not None and now - created >= request.logs:
            page.logs.append(seq)
        age = now - (ended or now)
        if ended is not None and _is_surplus(request, seq, State(state), age):
            page.calls.append(seq)
            continue
        if valued and request.results is not None and age >= request.results:
            page.results.append(seq)
    if len(rows) < PAGE:
        return page
    last, created = rows[-1][0], rows[-1][3]
    youngest = request.youngest
    if last > request.bound and (youngest is None or now - created < youngest):
        return page  # those behind it are younger still
    return page._replace(next=request.behind(last))


def _is_surplus(request: Pruning, seq: int, state: State, age: int) -> bool:
    if seq <= request.bound and age >= RECENT:
        return True
    return request.is_over(age, succeeded=state is State.SUCCEEDED)


def drop(scope: Scope, request: Pruning, page: Page) -> Verb[Pruned]:
    """Delete what a look has found, as far as it is free and nothing depends on it any more."""
    if page.logs and request.logs is not None:
        yield Statement("prune_lines", {"seqs": page.logs, "before": scope.now - request.logs})
    wanted = [*page.calls, *page.results]
    if not wanted:
        return Pruned(next=page.next)
    locked, ties, told = yield [
        Statement("prune_lock", {"seqs": wanted}),
        Statement("prune_ties", {"seqs": wanted}),
        Statement("prune_told", {"first": min(wanted), "last": max(wanted)}),
    ]
    free = {seq for (seq,) in locked} - {seq for (seq,) in told}
    untied = {row[0]: row for row in ties if row[0] in free and not row[4]}
    calls = _with_their_roots(page.calls, untied)
    if calls:
        for name in _TABLES:
            yield Statement(name, {"seqs": calls})
    # Behind a root that lives, a value may be needed again.
    results = [seq for seq in page.results if seq in untied and not untied[seq][3]]
    if results:
        yield Statement("prune_values", {"seqs": results})
    return Pruned(len(calls), len(results), page.next)


def _with_their_roots(wanted: list[int], untied: dict[int, list[Any]]) -> list[int]:
    """Return the calls that may go: roots, and those whose root is gone or goes with them."""
    found = [untied[seq] for seq in wanted if seq in untied]
    roots = {seq for seq, root, *_ in found if root == seq}
    return [seq for seq, root, rooted, *_ in found if not rooted or root in roots]
