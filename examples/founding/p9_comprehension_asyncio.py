"""The plain twin of p9_comprehension.py."""

import asyncio
import os
import time

SECOND = float(os.environ.get("SECOND", "1"))


async def work(x: int) -> str:
    print("waiting", x)
    await asyncio.sleep(x * SECOND)
    return f"done after {x} s"


async def main() -> None:
    start = time.time()
    tasks = [asyncio.ensure_future(work(x)) for x in (1, 2, 4)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    print("first", [task.result() for task in done], "pending", len(pending))
    await asyncio.wait(tasks)
    print("returned", [task.result() for task in tasks])
    print(f"TIME: {time.time() - start:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
