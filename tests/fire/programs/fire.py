"""Short calls that write their ids into the ledger; as a program, a client that awaits all of them."""

from __future__ import annotations

import asyncio
import sys

import everloop
from everloop import App
from tests.crash.programs.ledger import LEASE_S, note

app = App("fire", lease=LEASE_S, embed=False)


@app.task
async def work(n: int) -> int:
    note("begin", everloop.current().id)
    await asyncio.sleep(0.005)
    note("did", everloop.current().id)
    return 2 * n


async def main(calls: int) -> None:
    """Await calls through whatever happens, and note whose result has come."""

    async def one(n: int) -> None:
        task = app.create_task(work(n))
        result = await task
        assert result == 2 * n, f"{result} came for {n}"
        note("got", task.id)

    async with app:
        await asyncio.gather(*(one(n) for n in range(calls)))
    print("got everything")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
