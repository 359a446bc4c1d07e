"""A worker with processes of its own for bodies, and the app whose calls it runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.processes import Running, importing_from, worker

ROOT = Path(__file__).resolve().parents[2]
TARGET = "tests.processes.programs.cpu:app"


def environment(store: str) -> dict[str, str]:
    return {"EVERLOOP_STORE": store, **importing_from(ROOT)}


def load(store: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the app anew, on this store."""
    monkeypatch.setenv("EVERLOOP_STORE", store)
    name = "tests.processes.programs.cpu"
    sys.modules.pop(name, None)
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    """A worker, and its store, for the tests of a module."""
    folder = tmp_path_factory.mktemp("shared")
    store = f"sqlite:///{folder}/store.db"
    with worker(TARGET, "--grace", "0", folder=folder, env=environment(store)) as running:
        yield store, running


@pytest.fixture
async def cpu(shared: tuple[str, Running], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModuleType]:
    """The app as a client of that worker."""
    module = load(shared[0], monkeypatch)
    async with module.app:
        yield module


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"
