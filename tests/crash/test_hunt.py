"""Processes are killed several times a second while calls run: none is lost, undone, stuck, or twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.helpers import kills
from tests.helpers.hunting import Hunt

KILLS = 40


@pytest.mark.timeout(180)
async def test_a_hunt_loses_nothing_and_repeats_only_what_was_struck(
    tmp_path: Path, rng: random.Random
) -> None:
    found = await Hunt(tmp_path, f"sqlite:///{tmp_path}/store.db", rng).kill(KILLS)
    print(found.numbers())
    found.check()
    assert found.kills[kills.PROCESS] >= KILLS * 3 // 4
    assert found.repeated
    assert found.calls > KILLS
