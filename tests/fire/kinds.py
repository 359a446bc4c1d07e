"""The kinds of servers: how to look into one, and how to hurt it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server, address


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
    """

    name: str
    server: type[Server]
    begins: bytes
    answered: Callable[[bytes], bool]
    connections: str
    listeners: str
    transactions: str
    kill: str

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
    listeners="""
        select pid from pg_stat_activity where datname = '{}' and application_name like '% that listens%'
    """,
    transactions="select count(*) from pg_stat_activity where datname = '{}' and xact_start is not null",
    kill="select pg_terminate_backend({})",
)


def _mysql_answered(said: bytes) -> bool:
    """Whether the results of all statements of a query have come, each with what ends it."""
    packets = _packets(said)
    for first in packets:
        if first[0] == ERROR:
            return True
        if first[0] == OK:
            # Two short numbers, then the status.
            status = first[3:5]
        else:
            for _ in range(first[0]):  # the columns
                next(packets, None)
            next(packets, None)  # their end
            end = next((packet for packet in packets if packet[0] == EOF and len(packet) < 9), None)
            if end is None:
                return False
            status = end[3:5]
        if not int.from_bytes(status, "little") & MORE_RESULTS:
            return True
    return False


def _packets(said: bytes) -> Iterator[bytes]:
    """Take the whole packets out of what a MySQL server says."""
    while len(said) >= 4 and len(said) >= (end := 4 + int.from_bytes(said[:3], "little")):
        yield said[4:end]
        said = said[end:]


OK, EOF, ERROR = 0x00, 0xFE, 0xFF
MORE_RESULTS = 0x0008

MARIADB = Kind(
    name="mariadb",
    server=MariaServer,
    begins=b"START TRANSACTION",
    answered=_mysql_answered,
    connections="select id from information_schema.processlist where db = '{}'",
    listeners="""
        select id from information_schema.processlist where db = '{}' and info like '%/* everloop bell _%*/'
    """,
    transactions="""
        select count(*) from information_schema.innodb_trx as t
        join information_schema.processlist as p on p.id = t.trx_mysql_thread_id where p.db = '{}'
    """,
    kill="kill {}",
)

KINDS = {kind.name: kind for kind in (POSTGRESQL, MARIADB)}
