"""The shared aiohttp session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientSession


async def http_resource() -> AsyncIterator[ClientSession]:
    """Open one client session for all tasks of this process and loop.

    It keeps no cookies: a shared jar would show one task logged in as another. Each request may take
    five minutes in all, 30 s of them to connect, as long as the task's own `timeout` allows it.
    """
    import aiohttp

    session = aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=1_000, ttl_dns_cache=60),
        timeout=aiohttp.ClientTimeout(total=300, sock_connect=30),
    )
    async with session:
        yield session
