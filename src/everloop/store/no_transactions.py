"""What a store answers that is no database: no connection of the user's has a transaction there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from everloop._core.errors import StoreError, UsageError
from everloop._core.records import Added, NewCall, Outcome
from everloop.store.transactions import UserTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class NoTransactions:
    """The verbs in a user's transaction, refused."""

    url: str

    async def settle_on(self, connection: AsyncConnection, outcome: Outcome) -> Callable[[], None] | None:
        raise StoreError(
            f"{self.url} is no database: no connection ({connection!r}) can settle {outcome.id} on it"
        )

    async def add_on(
        self, connection: object, calls: Sequence[NewCall]
    ) -> tuple[list[Added], UserTransaction]:
        scheme = self.url.partition("://")[0]
        raise UsageError(
            f"the calls of this app are on {scheme}://, which is no database: "
            f"{calls[0].lane.fn}() cannot be submitted in the transaction of {connection!r:.100}. Leave "
            "`connection=` out, or give the app a store on that database"
        )

    async def is_blocked_by(self, connection: object) -> bool:  # noqa: ARG002 - it is refused with the calls
        return False
