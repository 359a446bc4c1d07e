"""Cancelling a tree of calls over several processes: each body unwinds, and the caller sees it."""

from __future__ import annotations

from tests.crash.scene import Scene
from tests.crash.trees import WAYS, cancel_trees


async def test_cancelling_a_tree_of_100_calls_over_3_workers_runs_every_finally(scene: Scene) -> None:
    await cancel_trees(scene, *WAYS)
