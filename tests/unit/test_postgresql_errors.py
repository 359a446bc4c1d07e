"""What PostgreSQL says, by what may be done about it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from everloop import StoreError, StoreUnavailable
from everloop.store.sql.runners.postgresql import explain
from everloop.store.sql.runners.server import Collision, Lost


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.SerializationFailure, Collision),
        (errors.DeadlockDetected, Collision),
        (errors.LockNotAvailable, Collision),
        (errors.UniqueViolation, Collision),
        (errors.AdminShutdown, Lost),
        (errors.IdleInTransactionSessionTimeout, Lost),
        (errors.ConnectionFailure, Lost),
        (psycopg.OperationalError, Lost),
        (errors.DiskFull, StoreUnavailable),
        (errors.TooManyConnections, StoreUnavailable),
        (errors.ReadOnlySqlTransaction, StoreUnavailable),
        (errors.QueryCanceled, StoreUnavailable),
        (errors.UndefinedTable, StoreError),
        (psycopg.DataError, StoreError),
    ],
)
def test_a_failure_is_told_by_what_may_be_done_about_it(
    error: type[psycopg.Error], kind: type[StoreError]
) -> None:
    told = explain(error("the words of the server"), "lease_pick")

    assert isinstance(told, kind)
    assert isinstance(told, StoreUnavailable) == issubclass(kind, StoreUnavailable)
    assert isinstance(told, Lost) == (kind is Lost)
    assert isinstance(told, Collision) == (kind is Collision)
    assert "(lease_pick): the words of the server" in str(told)
