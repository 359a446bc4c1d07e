"""Verbs that fail half-way, on the stores that say where they are."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from everloop._core.clock import Clock
from everloop.store.sql.runners import sqlite
from everloop.store.sql.store import SqliteStore
from everloop.testing import check_interleavings
from everloop.testing.conformance import Fault, FaultyFactory


@pytest.mark.timeout(300)  # about two thousand stores, each opened anew
async def test_nothing_of_a_failed_verb_remains(faulty_factory: FaultyFactory, kind: str) -> None:
    tried = await check_interleavings(faulty_factory)

    assert tried > 100 if kind != "memory" else tried == 0


async def test_a_store_that_keeps_half_a_verb_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_instead(connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")

    monkeypatch.setattr(sqlite, "_roll_back", commit_instead)
    files = iter(range(1_000))

    def factory(clock: Clock, fault: Fault) -> SqliteStore:
        return SqliteStore(tmp_path / f"{next(files)}.db", clock=clock, fault=fault)

    with pytest.raises(AssertionError) as caught:
        await check_interleavings(factory)
    assert "was made to fail at" in "".join(caught.value.__notes__)
