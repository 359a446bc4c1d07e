"""Cancelling a tree of calls over several processes, on a server: each body unwinds, the caller sees it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.scene import Scene
from tests.crash.trees import cancel_trees

pytestmark = pytest.mark.server


async def test_cancelling_a_tree_of_100_calls_over_3_workers_runs_every_finally(
    url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        await cancel_trees(Scene(tmp_path, stack, url), "caller")
