"""A client that submits calls, says so, and then waits for them until it is killed."""

from __future__ import annotations

import asyncio
import sys

from tests.crash.programs.ledger import Ledger


async def main(calls: int) -> None:
    ledger = Ledger()
    async with ledger.app:
        tasks = await ledger.app.submit_many(ledger.work(n) for n in range(calls))
        waits = [asyncio.ensure_future(ledger.work(n)) for n in range(calls, 2 * calls)]
        await asyncio.sleep(0)
        await ledger.app.submit(ledger.work(2 * calls))  # stored after those that are awaited
        print("submitted", flush=True)
        await asyncio.gather(*tasks, *waits)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
