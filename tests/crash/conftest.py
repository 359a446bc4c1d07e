"""The scene of a crash, and its seed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.scene import Scene
from tests.helpers.killcount import kills_are_counted, pytest_terminal_summary
from tests.helpers.seeds import seed

__all__ = ["kills_are_counted", "pytest_terminal_summary"]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        async with scene.app:
            yield scene


@pytest.fixture
def rng() -> random.Random:
    return random.Random(seed())
