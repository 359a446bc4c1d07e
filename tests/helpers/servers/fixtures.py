"""Fixtures of the servers, to be imported by the conftest of a suite that needs them.

`postgresql` and `mariadb` are one server for the session, started by the first test that asks; where MySQL is
installed and MariaDB is not, `mariadb` is a MySQL. Which it was stands in the report of the suite.
`postgresql_url` and `mariadb_url` are a fresh database for each test. A test that kills a server takes one of
its own from `required`. A missing server fails the test with advice; EVERLOOP_SKIP_SERVERS=1 skips it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, cast

import pytest

from tests.helpers.servers import install
from tests.helpers.servers.binaries import ServerMissing
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.mysql import installed_family
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server

__all__ = [
    "mariadb",
    "mariadb_kept",
    "mariadb_url",
    "postgresql",
    "postgresql_kept",
    "postgresql_url",
]

S = TypeVar("S", bound=Server)
#: Notes something about the whole suite in its report.
Report = Callable[[str, object], None]


@pytest.fixture(scope="session")
def postgresql(record_testsuite_property: Report) -> Iterator[PostgresServer]:
    """A PostgreSQL server of the session, that spares the disk."""
    yield from _served(PostgresServer, record_testsuite_property)


@pytest.fixture(scope="session")
def mariadb(record_testsuite_property: Report) -> Iterator[MariaServer]:
    """A MariaDB server of the session, that spares the disk."""
    yield from _served(MariaServer, record_testsuite_property)


@pytest.fixture
def postgresql_url(postgresql: PostgresServer) -> Iterator[str]:
    """A fresh database of PostgreSQL."""
    yield from _database(postgresql)


@pytest.fixture
def mariadb_url(mariadb: MariaServer) -> Iterator[str]:
    """A fresh database of MariaDB."""
    yield from _database(mariadb)


@pytest.fixture(scope="session")
def postgresql_kept(postgresql: PostgresServer) -> Iterator[str]:
    """A database of PostgreSQL for the whole session; see `emptied`."""
    yield from _database(postgresql)


@pytest.fixture(scope="session")
def mariadb_kept(mariadb: MariaServer) -> Iterator[str]:
    """The same of MariaDB."""
    yield from _database(mariadb)


def required(kind: type[S], *, fast: bool = True) -> S:
    """Return a server that is not started yet; fail or skip the test where there is none.

    For tests with a server of their own. Who asks for MariaDB gets MySQL where only that is installed.
    """
    if kind is MariaServer:
        kind = cast("type[S]", installed_family())
    if install.skipped():
        pytest.skip(f"{install.SKIP}=1")
    try:
        return kind(fast=fast)
    except ServerMissing as missing:
        pytest.fail(str(missing), pytrace=False)


def _served(kind: type[S], report: Report) -> Iterator[S]:
    with required(kind) as server:
        [[version]] = server.execute("select version()")
        report("server", f"{server.binaries.product}, which calls itself {version}")
        yield server


def _database(server: Server) -> Iterator[str]:
    url = server.database()
    yield url
    server.drop(url)
