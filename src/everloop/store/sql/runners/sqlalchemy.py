"""Run a verb inside a transaction that the user's own SQLAlchemy connection has open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from everloop.store.sql.dialect import statements
from everloop.store.sql.runners.sqlite import parameters_of, sql_of
from everloop.store.sql.verbs.statement import Statement, Verb

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
_decode = msgspec.json.Decoder(list[list[Any]]).decode


async def drive_on(connection: AsyncConnection, verb: Verb[T]) -> T:
    """Drive `verb` on a connection whose transaction the caller commits or rolls back."""
    reply: Any = None
    try:
        while True:
            asked = verb.send(reply)
            if isinstance(asked, list):
                reply = [await _execute(connection, each) for each in asked]
            else:
                reply = await _execute(connection, asked)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # the verb's answer
    finally:
        verb.close()


async def _execute(connection: AsyncConnection, statement: Statement) -> Any:
    template = statements("sqlite")[statement.name]
    result = await connection.exec_driver_sql(sql_of(template), parameters_of(statement))
    if not template.columns:
        return None
    if not template.sql.startswith("SELECT"):
        return [list(row) for row in result.all()]
    return _decode(result.scalar_one())
