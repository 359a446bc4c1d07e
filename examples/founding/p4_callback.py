"""A callback that reads the task's result."""

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


def callback(future: "asyncio.Future[str]") -> None:
    print("callback", future.result())


async def main() -> None:
    start = time.time()
    task = asyncio.ensure_future(work(2))
    task.add_done_callback(callback)
    await task
    print(f"TIME: {time.time() - start:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
