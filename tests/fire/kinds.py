"""The kinds of servers: how to look into one, and how to hurt it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server, address

TABLES = """
select table_name from information_schema.tables
where table_schema in ('public', '{}') and table_name like 'ever%' and table_name <> 'ever_meta'
"""


@dataclass(frozen=True)
class Kind:
    """What the tests have to know of a server that is its own.

    Attributes:
        server: Starts one.
        begins: What a client says first in a transaction, as it stands in what it sends.
        answered: Whether this is all that the server says to a request.
        connections: The query for the numbers of a database's connections, `{}` stands for its name.
        listeners: The same for those that listen.
        transactions: The query for how many transactions are open in a database.
        kill: The statement that ends the connection with this number.
        together: Makes one statement of several, `{}` stands for them.
    """

    name: str
    server: type[Server]
    begins: bytes
    answered: Callable[[bytes], bool]
    connections: str
    listeners: str
    transactions: str
    kill: str
    together: str

    def connected(self, server: Server, url: str) -> list[int]:
        """Return the numbers of the connections to a database."""
        return self._numbers(server, self.connections, url)

    def listening(self, server: Server, url: str) -> list[int]:
        """Return the numbers of the connections that listen."""
        return self._numbers(server, self.listeners, url)

    def open_transactions(self, server: Server, url: str) -> int:
        """Count the transactions that are open in a database."""
        (number,) = self._numbers(server, self.transactions, url)
        return number

    def end(self, server: Server, number: int) -> None:
        """End a connection from the server's side."""
        server.execute(self.kill.format(number))

    def empty(self, server: Server, url: str) -> None:
        """Delete everything in a store that is open nowhere: quicker than a database for each test."""
        tables = [name for (name,) in server.execute(TABLES.format(database_of(url)), database=url)]
        if tables:
            deletes = " ".join(f"delete from {table};" for table in tables)
            server.execute(self.together.format(deletes), database=url)

    @staticmethod
    def _numbers(server: Server, query: str, url: str) -> list[int]:
        return [int(number) for (number,) in server.execute(query.format(database_of(url)))]


def database_of(url: str) -> str:
    """Return the name of the database."""
    return address(url).path.removeprefix("/")


POSTGRESQL = Kind(
    name="postgresql",
    server=PostgresServer,
    begins=b"BEGIN",
    # ReadyForQuery, outside a transaction.
    answered=lambda said: said.endswith(b"Z\x00\x00\x00\x05I"),
    connections="select pid from pg_stat_activity where datname = '{}'",
    listeners="select pid from pg_stat_activity where datname = '{}' and query like 'LISTEN %'",
    transactions="select count(*) from pg_stat_activity where datname = '{}' and xact_start is not null",
    kill="select pg_terminate_backend({})",
    together="{}",
)

KINDS = {kind.name: kind for kind in (POSTGRESQL,)}
