"""From the rows of calls that a turn takes to leases, in the order in which they start."""

from __future__ import annotations

from typing import Any

from everloop._core.records import Leased
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import blob


def in_order(rows: list[list[Any]]) -> list[list[Any]]:
    """Order the calls of a turn as the statements do."""
    return sorted(rows, key=_place)


def leases_of(scope: Scope, rows: list[list[Any]]) -> list[Leased]:
    """Read calls that have been taken."""
    names = scope.names
    scope.leased([row[0] for row in rows])
    return [
        Leased(id_, fence, names[lane], blob(args) or b"", blob(policy) or b"", *rest)
        for _, _, _, id_, fence, lane, args, policy, *rest in rows
    ]


def _place(row: list[Any]) -> tuple[int, int, int, int, int]:
    seq, place, root, *_, depth, priority, _after, _due, _created = row
    return -priority, place, root, -depth, seq
