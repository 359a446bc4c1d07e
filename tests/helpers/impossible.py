"""What no SQL store of Everloop may ever hold, whatever has befallen it."""

from __future__ import annotations

from typing import Any, Protocol


class Cursor(Protocol):
    """That of any driver."""

    def execute(self, query: str, /) -> Any: ...

    def fetchall(self) -> Any: ...


#: Questions that find what no store of Everloop may hold; each answers with what is wrong.
IMPOSSIBLE = {
    "an end without an outcome": """
        SELECT c.id FROM ever_calls AS c LEFT JOIN ever_outcomes AS o ON o.seq = c.seq
        WHERE (c.state IN ('succeeded', 'failed', 'cancelled', 'expired')) != (o.seq IS NOT NULL)""",
    "an outcome of nothing": "SELECT seq FROM ever_outcomes WHERE seq NOT IN (SELECT seq FROM ever_calls)",
    "a call without its arguments": """
        SELECT id FROM ever_calls WHERE seq NOT IN (SELECT seq FROM ever_payloads)""",
    "a lease of nobody": """
        SELECT id FROM ever_calls WHERE (state = 'leased') != (COALESCE(session, 0) <> 0)
        OR (session <> 0 AND session NOT IN (SELECT session FROM ever_sessions))""",
    "a key of nothing": "SELECT seq FROM ever_keys WHERE seq NOT IN (SELECT seq FROM ever_calls)",
    "an end to be told that is none": """
        SELECT c.id FROM ever_inbox AS i JOIN ever_calls AS c ON c.seq = i.seq
        WHERE i.kind = 'ended' AND c.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')""",
    "a wait for what has ended": """
        SELECT c.id FROM ever_waits AS w JOIN ever_calls AS c ON c.seq = w.seq
        WHERE c.state IN ('succeeded', 'failed', 'cancelled', 'expired')""",
    # A parent that has ended may be pruned before its children.
    "a child that is older than its parent": """
        SELECT id FROM ever_calls WHERE parent >= seq OR root > seq OR (parent IS NULL) != (root = seq)""",
    "a session of nobody serves": """
        SELECT session FROM ever_serves WHERE session NOT IN (SELECT session FROM ever_sessions)""",
    "a session of nobody is told": """
        SELECT session FROM ever_inbox WHERE session NOT IN (SELECT session FROM ever_sessions)""",
    "a session of nobody waits": """
        SELECT session FROM ever_waits WHERE session NOT IN (SELECT session FROM ever_sessions)""",
    "more attempts than leases": "SELECT id FROM ever_calls WHERE attempt + crashes > fence",
}

#: All of them in one: a row with the answer to each.
_AT_ONCE = "SELECT " + ", ".join(f"EXISTS ({query})" for query in IMPOSSIBLE.values())


def wrong(cursor: Cursor) -> dict[str, list[Any]]:
    """Return what a store holds and no store may hold, by what is wrong with it."""
    cursor.execute(_AT_ONCE)
    (answers,) = cursor.fetchall()
    found: dict[str, list[Any]] = {}
    for answer, (what, query) in zip(answers, IMPOSSIBLE.items(), strict=True):
        if answer:
            cursor.execute(query)
            found[what] = list(cursor.fetchall())
    return found
