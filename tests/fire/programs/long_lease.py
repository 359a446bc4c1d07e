"""The ledger's bodies on an app with the lease that users have."""

from __future__ import annotations

from everloop import App, TaskFunction
from tests.crash.programs.ledger import hold


class LongLease:
    """The app and its function, on one store."""

    def __init__(self, store: str | None = None) -> None:
        self.app = App("long", store, embed=False)
        self.hold: TaskFunction[[int, str], int] = self.app.task(hold)


app = LongLease().app
