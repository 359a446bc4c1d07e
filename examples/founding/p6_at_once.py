"""Sleeps of 1, 2 and 4 seconds at once: 4 seconds."""

import asyncio
import os
import time

from everloop import App

SECOND = float(os.environ.get("SECOND", "1"))

app = App("founding")


@app.task
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
