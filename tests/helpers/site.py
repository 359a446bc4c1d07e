"""A site on loopback that answers after a while, for programs under test."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def slow_site(second: float = 1.0, answered: Counter[str] | None = None) -> Iterator[str]:
    """Serve until the block ends and yield the URL; `GET /2` answers after two of these seconds.

    `answered` counts the answers by path and query.
    """

    async def page(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.match_info["seconds"]) * second)
        if answered is not None:
            answered[request.path_qs] += 1
        return web.Response(text="<title>slow but sure</title>", content_type="text/html")

    application = web.Application()
    application.router.add_get("/{seconds}", page)
    with _served(application) as url:
        yield url


@contextmanager
def _served(application: web.Application) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="site", daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
