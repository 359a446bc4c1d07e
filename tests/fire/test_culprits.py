"""Whoever blocks its loop keeps its lease on a server, too."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.blocking import blocked, program
from tests.crash.scene import Scene

pytestmark = pytest.mark.server


async def test_a_call_that_blocks_its_loop_for_ten_leases_runs_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, url)
        await blocked(scene, program(scene, monkeypatch))
