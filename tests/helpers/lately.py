"""Looks for what was submitted lately, whatever looks at all take."""

from __future__ import annotations

from everloop._core.records import Turn
from everloop.store.sql.verbs.lately import MOST, Lately


class Always(Lately):
    """As while looks at all are avoided."""

    @property
    def avoids(self) -> bool:
        return True

    def since(self, now: int, request: Turn) -> int | None:
        self._all_at = now + MOST
        return 1
