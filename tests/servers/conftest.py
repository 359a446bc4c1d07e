"""The fixtures of the servers themselves, and a server and a database of either kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url, required
from tests.helpers.servers.mysql import installed_family
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server

__all__ = ["mariadb", "mariadb_url", "postgresql", "postgresql_url"]

KINDS: dict[str, type[Server]] = {"mariadb": installed_family(), "postgresql": PostgresServer}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, request: pytest.FixtureRequest) -> Server:
    """The session's server of each kind."""
    server = request.getfixturevalue(kind)
    assert isinstance(server, Server)
    return server


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind."""
    return str(request.getfixturevalue(f"{kind}_url"))


@pytest.fixture
def own(kind: str) -> Iterator[Server]:
    """A server of each kind for this test alone, with the defaults: what is committed is on the disk."""
    with required(KINDS[kind], fast=False) as server:
        yield server
