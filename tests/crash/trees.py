"""Trees of 100 calls over three workers are cancelled from their roots, on any store."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from everloop import Call
from tests.crash.programs.tree import LEAVES, SIZE, Tree
from tests.crash.scene import LIMIT_S, Scene

TARGET = "tests.crash.programs.tree:app"
WORKERS = 3
#: Slots of each worker: two have not enough for all leaves.
SLOTS = LEAVES // 2 - 3

Begun = Callable[[], Awaitable[None]]


async def _by_its_task(tree: Tree, root: Call[None], begun: Begun) -> None:
    task = tree.app.create_task(root)
    await begun()
    task.cancel("that will do")
    with pytest.raises(asyncio.CancelledError, match="that will do"):
        await task


async def _by_who_awaits_it(tree: Tree, root: Call[None], begun: Begun) -> None:
    async def caller() -> None:
        await root

    waiting = asyncio.create_task(caller())
    await begun()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _by_its_id(tree: Tree, root: Call[None], begun: Begun) -> None:
    task = await tree.app.submit(root)
    await begun()
    assert await tree.app.cancel(task.id)
    with pytest.raises(asyncio.CancelledError):
        await task


#: Who cancels it, and how each node waits for its children.
WAYS = {
    "task": (_by_its_task, "group"),
    "caller": (_by_who_awaits_it, "group"),
    "id": (_by_its_id, "group"),
    "gather": (_by_its_task, "gather"),
}


async def cancel_trees(scene: Scene, *ways: str) -> None:
    """Cancel a tree in each of these ways; see that every body unwinds, and when the caller knows."""
    tree = Tree(scene.store)
    workers = [scene.worker(concurrency=SLOTS, target=TARGET) for _ in range(WORKERS)]
    for worker in workers:
        worker.until("worker ready")
    async with tree.app:
        for way in ways:
            async with asyncio.timeout(2 * LIMIT_S):
                await _cancel_a_tree(scene, tree, way, {worker.process.pid for worker in workers})
        counts = await tree.app.counts()
    assert (counts["cancelled"], sum(counts.values())) == (len(ways) * SIZE,) * 2


async def _cancel_a_tree(scene: Scene, tree: Tree, way: str, pids: set[int]) -> None:
    cancel, how = WAYS[way]
    cancelled_at = 0.0

    def seen(word: str) -> Counter[str]:
        return Counter(call for call, _ in scene.lines(word) if call.startswith(f"{way}."))

    async def begun() -> None:
        nonlocal cancelled_at
        await scene.until(lambda: seen("begin").total() == SIZE)
        cancelled_at = time.monotonic()

    once = Counter({f"{way}.{n}": 1 for n in range(SIZE)})
    await cancel(tree, tree.node(0, how, way), begun)
    print(f"{way} on {tree.app}: {time.monotonic() - cancelled_at:.3f} s to cancel {SIZE} calls")
    if how == "gather":
        # As with asyncio's tasks it raises as soon as one of them has ended, while the others unwind.
        await scene.until(lambda: seen("cleaned").total() == SIZE)
    assert seen("cancelled") == seen("cleaned") == once
    while (await tree.app.counts())["leased"]:  # some of the outcomes are on their way
        await asyncio.sleep(0.005)
    assert seen("begin") == once, "nobody ran twice"
    assert {pid for call, pid in scene.lines("begin") if call.startswith(f"{way}.")} == pids
