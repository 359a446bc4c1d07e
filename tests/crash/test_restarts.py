"""Deploys cost a call nothing, however many there are in its life."""

from __future__ import annotations

import pytest

from tests.crash.restarts import restarted
from tests.crash.scene import Scene


@pytest.mark.timeout(180)
async def test_twenty_rolling_restarts_leave_attempt_and_crashes_as_they_were(scene: Scene) -> None:
    await restarted(scene)
