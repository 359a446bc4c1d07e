"""The same on a server: a drain is a drain."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.restarts import restarted
from tests.crash.scene import Scene

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
async def test_twenty_rolling_restarts_leave_attempt_and_crashes_as_they_were(
    url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, url)
        async with scene.app:
            await restarted(scene)
