"""The plain twin of p7_nested.py."""

import asyncio
import os
import time

SECOND = float(os.environ.get("SECOND", "1"))


async def work(x: int) -> str:
    print("waiting", x)
    await asyncio.sleep(x * SECOND)
    return f"done after {x} s"


async def main() -> None:
    first = work(1)
    second = work(2)
    third = work(4)
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second), asyncio.ensure_future(third)]
    done, pending = await asyncio.wait(tasks)
    for task in sorted(done, key=tasks.index):
        print("returned", task.result())
    print("pending", len(pending))


if __name__ == "__main__":
    start = time.time()
    asyncio.run(main())
    print(f"TIME: {time.time() - start:.2f} s")
