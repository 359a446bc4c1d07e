"""A driver's own connection in hand: whether it has a transaction, and what its statements answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

import psycopg
import pymysql
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from pymysql.constants import SERVER_STATUS
from pymysql.cursors import Cursor

from everloop._core.errors import UsageError
from everloop.store.sql.runners.borrowed import borrow
from everloop.store.sql.runners.server_hands import PsycopgHand, PymysqlHand


class Results:
    """A cursor with the results of several statements; None is one without rows."""

    def __init__(self, *results: list[tuple[Any, ...]] | None) -> None:
        self.results = list(results)
        self.executed: list[tuple[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It is closed."""

    def execute(self, sql: str, parameters: Any) -> None:
        self.executed.append((sql, parameters))

    @property
    def description(self) -> object:
        return None if self.results[0] is None else "columns"

    def fetchall(self) -> Any:
        return self.results[0]

    def nextset(self) -> bool:
        self.results.pop(0)
        return bool(self.results)


def psycopg_connection(
    status: TransactionStatus,
    results: Results | None = None,
    *,
    autocommit: bool = True,
    closed: bool = False,
) -> Any:
    def cursor(row_factory: object) -> Results:
        assert row_factory is tuple_row and results is not None
        return results

    return SimpleNamespace(
        info=SimpleNamespace(transaction_status=status, host="h", dbname="shop"),
        autocommit=autocommit,
        closed=closed,
        cursor=cursor,
    )


@pytest.mark.parametrize(
    ("status", "begun"),
    [
        (TransactionStatus.IDLE, False),
        (TransactionStatus.INTRANS, True),
        (TransactionStatus.INERROR, True),
        (TransactionStatus.ACTIVE, True),
        (TransactionStatus.UNKNOWN, False),
    ],
)
def test_a_transaction_of_psycopg_is_open_while_the_server_has_one_or_one_will_begin(
    status: TransactionStatus, begun: bool
) -> None:
    hand = PsycopgHand(psycopg_connection(status))

    assert (hand.in_transaction, hand.begun) == (begun, begun)
    assert PsycopgHand(psycopg_connection(status, autocommit=False)).in_transaction
    assert hand.failures == (psycopg.Error,)


def test_a_transaction_of_psycopg_ends_with_its_connection() -> None:
    connection = psycopg_connection(TransactionStatus.INTRANS)
    transaction = PsycopgHand(connection).transaction()

    assert transaction.is_open and not transaction.tells
    assert transaction.database == "postgresql://h/shop"
    connection.closed = True
    assert not transaction.is_open


@pytest.mark.parametrize(
    ("results", "rows"), [((None, [(7,)]), [(7,)]), (([(7,)], None), None), (([(7,)],), [(7,)])]
)
def test_several_statements_answer_with_the_rows_of_the_last(results: Any, rows: Any) -> None:
    cursor = Results(*results)

    assert (
        PsycopgHand(psycopg_connection(TransactionStatus.INTRANS, cursor)).execute("SELECT 1", {"a": 1})
        == rows
    )
    assert cursor.executed == [("SELECT 1", {"a": 1})]


@pytest.mark.parametrize(("status", "begun"), [(0, False), (SERVER_STATUS.SERVER_STATUS_IN_TRANS, True)])
@pytest.mark.parametrize("database", [b"shop", "shop"], ids=["bytes", "text"])
def test_a_transaction_of_pymysql_is_open_while_the_server_has_one_or_one_will_begin(
    status: int, begun: bool, database: str | bytes
) -> None:
    kinds: list[object] = []
    connection: Any = SimpleNamespace(
        server_status=status,
        get_autocommit=lambda: True,
        open=True,
        host="h",
        db=database,
        cursor=kinds.append,
    )
    hand = PymysqlHand(connection)

    assert hand.in_transaction is hand.begun is begun
    assert hand.database == "mysql://h/shop" and not hand.closed
    hand.cursor()
    assert kinds == [Cursor]
    connection.get_autocommit = lambda: False
    assert hand.in_transaction


def test_a_connection_that_is_closed_is_refused() -> None:
    connection = pymysql.Connection(host="h", defer_connect=True)

    with pytest.raises(UsageError, match="is closed: submit before you close it"):
        borrow(connection)
