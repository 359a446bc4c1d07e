"""The plain twin of p8_returning.py."""

import asyncio
import os
import time

SECOND = float(os.environ.get("SECOND", "1"))


async def work(x: int) -> str:
    print("waiting", x)
    await asyncio.sleep(x * SECOND)
    return f"done after {x} s"


async def main() -> "tuple[set[asyncio.Task[str]], set[asyncio.Task[str]]]":
    return await asyncio.wait([asyncio.create_task(work(x)) for x in (1, 2, 4)])


if __name__ == "__main__":
    start = time.time()
    done, pending = asyncio.run(main())
    for result in sorted(task.result() for task in done):
        print("returned", result)
    print("pending", len(pending))
    print(f"TIME: {time.time() - start:.2f} s")
