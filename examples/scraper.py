# /// script
# requires-python = ">=3.11"
# dependencies = ["everloop"]
# ///
"""A scraper of many URLs that can be stopped at any time and goes on where it was.

The URL is the key of its call: who asks for a page that was fetched before, or is under way, joins that
call instead of making another. So Ctrl-C, or a power cut, costs no page: run it again.

    python examples/scraper.py            # 300 pages of a small site that it serves itself
    python examples/scraper.py urls.txt   # one URL per line
"""

import asyncio
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from everloop import App, Call, Key, Retry, Use

app = App("scraper", raises=[aiohttp.ClientError])


@dataclass
class Page:
    url: str
    title: str
    size: int


@app.task(retries=Retry(3, never=[aiohttp.InvalidURL]), timeout=30)
async def scrape(url: str, session: aiohttp.ClientSession = Use(app.http)) -> Page:
    async with session.get(url) as response:
        response.raise_for_status()
        text = await response.text()
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    return Page(url, title[1].strip() if title else "(no title)", len(text))


def calls(urls: Iterable[str]) -> Iterator[Call[Page]]:
    """Make the calls one by one, as they are asked for: a million URLs take no more memory than ten."""
    for url in urls:
        yield scrape(url).options(key=Key(url, among="done"))


async def main(urls: Iterable[str]) -> None:
    start, pages, size = time.perf_counter(), 0, 0
    async for task in app.as_completed(calls(urls), window=1_000):
        pages += 1
        if error := task.exception():
            print(f"{pages:5} {error}", flush=True)
        else:
            page = task.result()
            size += page.size
            print(f"{pages:5} {page.title} ({page.size} bytes)", flush=True)
    print(f"{pages} pages, {size:,} bytes, {time.perf_counter() - start:.1f} s")


def lines(path: str) -> Iterator[str]:
    with Path(path).open(encoding="utf-8") as file:
        yield from (line.strip() for line in file if line.strip())


# The rest is something to scrape.

HOST, PORT, PAGES = "127.0.0.1", 8417, 300


async def main_on_small_site() -> None:
    """Scrape numbered pages, each of which takes its time, from a site on loopback."""

    async def page(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        await asyncio.sleep(0.1 + number % 7 / 10)
        text = f"<title>Page {number}</title>" + "lorem ipsum " * (number % 50)
        return web.Response(text=text, content_type="text/html")

    application = web.Application()
    application.router.add_get("/{number}", page)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, HOST, PORT).start()
    try:
        await main(f"http://{HOST}:{PORT}/{number}" for number in range(PAGES))
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    try:
        app.run(main(lines(sys.argv[1])) if len(sys.argv) > 1 else main_on_small_site(), concurrency=20)
    except KeyboardInterrupt:
        sys.exit("stopped; run it again, and it goes on from here")
