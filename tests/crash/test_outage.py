"""Another program locks the file for longer than a lease: whoever lives is taken for dead by nobody."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.outages import locked, outlived
from tests.crash.scene import Scene

LEASE_S, AWAY_S = 3.0, 5.0


@pytest.mark.timeout(180)
async def test_bodies_that_run_through_an_outage_run_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        await outlived(scene, locked(scene.store), AWAY_S, LEASE_S)
