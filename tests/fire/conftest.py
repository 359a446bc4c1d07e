"""A server of each kind: the session's, which spares the disk, and one of the test's own, which does not."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.fire.kinds import KINDS, Kind
from tests.helpers.killcount import kills_are_counted, pytest_terminal_summary
from tests.helpers.seeds import seed
from tests.helpers.servers.emptying import emptied
from tests.helpers.servers.fixtures import mariadb, postgresql, required
from tests.helpers.servers.proxy import Proxy
from tests.helpers.servers.server import Server

__all__ = ["kills_are_counted", "mariadb", "postgresql", "pytest_terminal_summary"]


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def server(kind: Kind, request: pytest.FixtureRequest) -> Server:
    """The session's server of each kind."""
    server = request.getfixturevalue(kind.name)
    assert isinstance(server, Server)
    return server


@pytest.fixture(scope="session")
def databases() -> dict[str, str]:
    """The session's database on each; it goes with its server."""
    return {}


@pytest.fixture
def url(kind: Kind, server: Server, databases: dict[str, str]) -> str:
    """A database on it, with an empty store or none."""
    if kind.name not in databases:
        databases[kind.name] = server.database()
    return emptied(databases[kind.name])


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy before it."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def own(kind: Kind) -> Iterator[Server]:
    """A server for this test alone: what is committed is on the disk."""
    with required(kind.server, fast=False) as server:
        yield server


@pytest.fixture
def rng() -> random.Random:
    return random.Random(seed())
