"""The scene of a crash, and its seed."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.scene import Scene
from tests.helpers.killcount import kills_are_counted, pytest_terminal_summary

__all__ = ["kills_are_counted", "pytest_terminal_summary"]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        async with scene.app:
            yield scene


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("EVERLOOP_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"EVERLOOP_SEED={seed}")
    return random.Random(seed)
