"""Apps on fresh stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everloop import App
from everloop.engine.worker import Worker

MakeApp = Callable[..., App]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh store of each kind; tests of one kind name it."""
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
