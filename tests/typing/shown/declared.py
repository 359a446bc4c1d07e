"""What an editor shows of a task function, a call and a task."""

from __future__ import annotations

import asyncio
from typing import reveal_type

from everloop import App

app = App("shown", "memory://")


@app.task
async def fetch(url: str, *, tries: int = 1) -> int:
    return len(url) * tries


@app.task(retries=3)
def parse(page: bytes) -> list[str]:
    return page.decode().split()


async def main() -> None:
    reveal_type(fetch)
    # in mypy: TaskFunction[[url: str, *, tries: int =], int]
    # in pyright: TaskFunction[(url: str, *, tries: int = 1), int]
    reveal_type(parse)
    # in mypy: TaskFunction[[page: bytes], list[str]]
    # in pyright: TaskFunction[(page: bytes), list[str]]
    reveal_type(fetch("a"))
    # Call[int]
    reveal_type(await fetch("a"))
    # int
    reveal_type(await parse(b"a"))
    # list[str]
    reveal_type(app.create_task(fetch("a")))
    # Task[int]
    reveal_type(await app.submit(parse(b"a")))
    # Task[list[str]]
    reveal_type(await app.get_task("0198c0de-0000-7000-8000-000000000001", fetch))
    # Task[int]
    reveal_type(await asyncio.gather(fetch("a"), parse(b"a")))
    # tuple[int, list[str]]
    reveal_type(fetch.options(queue="slow"))
    # in mypy: TaskFunction[[url: str, *, tries: int =], int]
    # in pyright: TaskFunction[(url: str, *, tries: int = 1), int]
