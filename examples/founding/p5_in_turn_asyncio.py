"""The plain twin of p5_in_turn.py."""

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
    for x in (1, 2, 4):
        print("returned", await work(x))
    print(f"TIME: {time.time() - start:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
