"""A small site on loopback, so that the demo works without a network."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True)
class Served:
    """A page of the site.

    Attributes:
        after: Seconds before it answers.
        failures: How many of the first requests are answered 503.
    """

    path: str
    after: float = 0.05
    size: int = 4_000
    status: int = 200
    failures: int = 0


#: For the plain demo: every way in which pages misbehave.
MIXED = (
    Served("/"),
    Served("/about", 0.1, 6_500),
    Served("/news", 0.2, 38_000),
    Served("/prices", 0.3, 12_000),
    Served("/search", 0.6, 21_000),
    Served("/slow", 1.2, 9_000),
    Served("/slower", 2.0, 9_000),
    Served("/big", 0.1, 6_000_000),
    Served("/flaky", 0.1, 15_000, failures=2),
    Served("/missing", 0.05, 300, status=404),
    Served("/broken", 0.1, 300, status=500),
    Served("/contact", 0.15, 2_500),
)

#: For `--kill`: enough work that a worker is in the middle of it half-way.
STEADY = tuple(Served(f"/page/{n}", 0.3 + 0.05 * (n * 7 % 12), 2_000 * n) for n in range(1, 25))


@asynccontextmanager
async def serve(pages: tuple[Served, ...]) -> AsyncGenerator[str]:
    """Serve these pages on a free port of loopback, and give the site's URL."""
    seen: Counter[str] = Counter()
    by_path = {page.path: page for page in pages}

    async def answer(request: web.Request) -> web.Response:
        page = by_path[request.path]
        seen[page.path] += 1
        await asyncio.sleep(page.after)
        status = 503 if seen[page.path] <= page.failures else page.status
        return web.Response(status=status, body=b"." * page.size, content_type="text/html")

    server = web.Application()
    server.add_routes([web.get(page.path, answer) for page in pages])
    runner = web.AppRunner(server, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
