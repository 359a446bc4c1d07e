"""The plain twin of p1_fetch.py."""

import asyncio
import functools
import time

import aiohttp
from loopback import SITE


async def visit(x: int) -> str:
    print("start", x)
    async with aiohttp.ClientSession() as session, session.get(f"{SITE}/{x}") as response:
        print("status", response.status)
    return f"visit {x} is over"


def callback(n: int, future: "asyncio.Future[str]") -> None:
    print("callback", n, future.result())


async def main() -> None:
    start = time.time()
    tasks = [asyncio.ensure_future(visit(x)) for x in (1, 2, 4)]
    tasks[0].add_done_callback(functools.partial(callback, 2))
    for task in asyncio.as_completed(tasks):
        print("got", await task)
    print(f"TIME: {time.time() - start:.2f} s")


if __name__ == "__main__":
    asyncio.get_event_loop().run_until_complete(main())
