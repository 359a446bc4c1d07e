"""The plain twin of p6_at_once.py."""

import asyncio
import os
import time

SECOND = float(os.environ.get("SECOND", "1"))


async def work(x: int) -> str:
    print("waiting", x)
    await asyncio.sleep(x * SECOND)
    return f"done after {x} s"


if __name__ == "__main__":
    start = time.time()
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(work(1)), loop.create_task(work(2)), loop.create_task(work(4))]
    loop.run_until_complete(asyncio.wait(tasks))
    for task in tasks:
        print("returned", task.result())
    print(f"TIME: {time.time() - start:.2f} s")
    loop.close()
