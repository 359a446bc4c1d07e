"""Apps on fresh stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everloop import App
from everloop.engine.worker import Worker
from tests.helpers.servers.emptying import emptied
from tests.helpers.servers.fixtures import mariadb, mariadb_kept, postgresql, postgresql_kept

__all__ = ["mariadb", "mariadb_kept", "postgresql", "postgresql_kept"]

MakeApp = Callable[..., App]


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.server),
        pytest.param("mariadb", marks=pytest.mark.server),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh store of each kind; tests of one kind name it."""
    if request.param in ("mariadb", "postgresql"):
        return emptied(request.getfixturevalue(f"{request.param}_kept"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of a fresh SQLite store."""
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def app(store: str) -> App:
    """An app on a fresh store of each kind."""
    return App("test", store)


def worker_of(app: App) -> Worker:
    """Return the worker that runs on this loop."""
    worker = app._sessions.current().session.worker
    assert worker is not None
    return worker


def make(url: str, **options: Any) -> App:
    """Return an app that never embeds a worker by itself."""
    return App("test", url, embed=False, **options)


async def until_counted(app: App, state: str, times: int) -> None:
    """Wait until the store counts so many calls of a state."""
    async with asyncio.timeout(20):
        while (await app.counts())[state] != times:
            await asyncio.sleep(0.001)
