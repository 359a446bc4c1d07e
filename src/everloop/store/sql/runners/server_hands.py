"""Plain connections of the servers' blocking drivers in hand: psycopg's and PyMySQL's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from everloop.store.sql.runners.hand import Hand
from everloop.store.transactions import UserTransaction

T = TypeVar("T")


class ServerHand(ABC):
    """A driver's own connection in hand; it has no event that would tell of a commit.

    A subclass names the driver's exceptions, makes cursors of tuples, and knows whether a transaction has
    begun.
    """

    dialect: ClassVar[str]
    failures: tuple[type[Exception], ...]

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.style = "pyformat"
        self.notes: dict[Any, Any] = {}  # nothing is kept with such a connection

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the connection is closed."""

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether a transaction has begun on the server."""

    @property
    @abstractmethod
    def autocommit(self) -> bool:
        """Whether each statement is committed by itself where no transaction has begun."""

    @property
    @abstractmethod
    def database(self) -> str:
        """Name the database."""

    @abstractmethod
    def cursor(self) -> Any:
        """Return a cursor that gives tuples, whatever the user wants of rows."""

    @property
    def in_transaction(self) -> bool:
        return self.begun or not self.autocommit

    def execute(self, sql: str, parameters: Any = None) -> Sequence[Sequence[Any]] | None:
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            rows: Sequence[Sequence[Any]] | None = None
            while True:  # a template of several statements answers with the rows of the last
                rows = cursor.fetchall() if cursor.description is not None else None
                if not cursor.nextset():
                    return rows

    def at_a_stretch(self, work: Callable[[Hand], T]) -> T:
        return work(self)

    def transaction(self) -> UserTransaction:
        return UserTransaction(self.database, lambda: not self.closed and self.begun, tells=False)


class PsycopgHand(ServerHand):
    """A connection of psycopg 3."""

    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        import psycopg

        super().__init__(connection)
        self.failures = (psycopg.Error,)

    @property
    def closed(self) -> bool:
        return bool(self._connection.closed)

    @property
    def begun(self) -> bool:
        from psycopg.pq import TransactionStatus

        status = self._connection.info.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.ACTIVE, TransactionStatus.INERROR)

    @property
    def autocommit(self) -> bool:
        return bool(self._connection.autocommit)

    @property
    def database(self) -> str:
        return f"postgresql://{self._connection.info.host}/{self._connection.info.dbname}"

    def cursor(self) -> Any:
        from psycopg.rows import tuple_row

        return self._connection.cursor(row_factory=tuple_row)


class PymysqlHand(ServerHand):
    """A connection of PyMySQL."""

    dialect = "mysql"

    def __init__(self, connection: Any) -> None:
        import pymysql

        super().__init__(connection)
        self.failures = (pymysql.Error,)

    @property
    def closed(self) -> bool:
        return not self._connection.open

    @property
    def begun(self) -> bool:
        from pymysql.constants import SERVER_STATUS

        return bool(self._connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    @property
    def autocommit(self) -> bool:
        return bool(self._connection.get_autocommit())

    @property
    def database(self) -> str:
        name = self._connection.db
        return f"mysql://{self._connection.host}/{name.decode() if isinstance(name, bytes) else name}"

    def cursor(self) -> Any:
        from pymysql.cursors import Cursor

        return self._connection.cursor(Cursor)


#: By the package of the connection's class.
HANDS: dict[str, type[ServerHand]] = {"psycopg": PsycopgHand, "pymysql": PymysqlHand}
