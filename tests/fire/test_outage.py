"""The server is away for longer than a lease: whoever lives is taken for dead by nobody."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.outages import outlived, without
from tests.crash.scene import Scene
from tests.helpers.servers.server import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

LEASE_S, AWAY_S = 5.0, 7.0


async def test_bodies_that_run_through_an_outage_run_once(own: Server, tmp_path: Path) -> None:
    with ExitStack() as stack:
        await outlived(Scene(tmp_path, stack, own.database()), without(own), AWAY_S, LEASE_S)
