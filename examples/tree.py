# /// script
# requires-python = ">=3.11"
# dependencies = ["everloop"]
# ///
"""A tree of tasks, 50 deep, on a worker that runs one at a time.

Every branch waits for its children, so at the deepest point 50 bodies are under way. With one slot that
finishes all the same: who waits for a child gives the slot back, and the deepest calls go first.

    python examples/tree.py [DEPTH]
"""

import asyncio
import sys
import time

from everloop import App

app = App("tree")


@app.task
async def grow(depth: int) -> int:
    """Grow a leaf and a smaller tree, and count the leaves of both."""
    if depth == 0:
        return 1
    return sum(await asyncio.gather(grow(0), grow(depth - 1)))


async def main(depth: int) -> None:
    start = time.perf_counter()
    leaves = await grow(depth)
    seconds = time.perf_counter() - start
    print(
        f"{leaves} leaves on a tree {depth} deep, grown by {2 * depth + 1} tasks in one slot: {seconds:.2f} s"
    )


if __name__ == "__main__":
    app.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50), concurrency=1)
