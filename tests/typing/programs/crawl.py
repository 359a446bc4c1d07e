"""A million URLs: lazily submitted, joined by key, counted as they end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp

from everloop import App, Call, Key, Retry, Use

app = App("crawl", "sqlite:///crawl.db", raises=[aiohttp.ClientError])


@app.resource
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@app.task(retries=Retry(4, never=[aiohttp.InvalidURL]), timeout=30)
async def fetch(url: str, session: aiohttp.ClientSession = Use(http)) -> int:
    async with session.get(url) as r:
        return len(await r.read())


def calls(path: str) -> Iterator[Call[int]]:
    with Path(path).open(encoding="utf-8") as f:
        for line in f:
            url = line.strip()
            yield fetch(url).options(key=Key(url, among="done"))  # fetched or under way: joined, not repeated


async def main() -> None:
    failed = size = 0
    async for task in app.as_completed(calls(sys.argv[1]), window=20_000):
        if task.exception() is None:
            size += task.result()
        else:
            failed += 1
    print(size, "bytes;", failed, "failed, see `everloop ls --state failed`")


if __name__ == "__main__":
    app.run(main(), concurrency=500)  # Ctrl-C detaches; run it again and it goes on
