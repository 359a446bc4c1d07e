"""The plain twin of p3_task.py."""

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
    task = loop.create_task(work(2))
    print("done?", task.done())
    print("returned", loop.run_until_complete(task))
    print("done?", task.done())
    print(f"TIME: {time.time() - start:.2f} s")
    loop.close()
