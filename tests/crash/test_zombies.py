"""A worker that stood still takes nothing back, however often its calls have changed hands."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.scene import Scene
from tests.crash.zombies import Zombies


@pytest.mark.timeout(180)
async def test_zombies_overwrite_nothing_after_a_drain_and_after_a_snooze(tmp_path: Path) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        await Zombies(scene, scene.stop).play()
