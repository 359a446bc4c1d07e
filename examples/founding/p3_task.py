"""One coroutine as a task, timed."""

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
    task = loop.create_task(work(2))
    print("done?", task.done())
    print("returned", loop.run_until_complete(task))
    print("done?", task.done())
    print(f"TIME: {time.time() - start:.2f} s")
    loop.close()
