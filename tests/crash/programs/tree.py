"""A tree of calls, each of which waits for its children and writes into the ledger that it cleans up."""

from __future__ import annotations

import asyncio
import os

from everloop import App, TaskFunction
from tests.crash.programs.ledger import note

#: Calls in the tree, and children of each: five generations, and 67 leaves.
SIZE, CHILDREN = 100, 3
LEAVES = SIZE - len(range(1, SIZE, CHILDREN))
FOR_EVER = 3600.0


class Tree:
    """The app and its function, on one store; the lease is the usual one."""

    def __init__(self, store: str | None = None) -> None:
        self.app = app = App("tree", store, embed=False)

        @app.task
        async def node(n: int, how: str, name: str) -> None:
            """Be the n-th node of a tree; they are numbered generation by generation."""
            me = f"{name}.{n}"
            children = range(CHILDREN * n + 1, min(CHILDREN * (n + 1) + 1, SIZE))
            note("begin", me)
            try:
                if not children:
                    await asyncio.sleep(FOR_EVER)
                elif how == "gather":
                    await asyncio.gather(*(node(child, how, name) for child in children))
                else:
                    async with asyncio.TaskGroup() as group:
                        for child in children:
                            group.create_task(node(child, how, name))
            except asyncio.CancelledError:
                note("cancelled", me)
                raise
            finally:
                await asyncio.sleep(0.001)  # a cleanup that waits is one, too
                note("cleaned", me)

        self.node: TaskFunction[[int, str, str], None] = node


if "LEDGER" in os.environ:
    app = Tree().app
