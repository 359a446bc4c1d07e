"""The demo's app: fetch pages with one shared session, and keep a row of each in a global pool."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from everloop import App, Retry, Use, current


class ServerError(Exception):
    """The server answered 5xx: worth another try."""


app = App("demo", lease=2, raises=[ServerError])  # EVERLOOP_STORE says where the calls are stored
db = app.database()  # the same file: a page's row and the outcome of its call are one commit

rows = Table(
    "demo_pages",
    MetaData(),
    Column("call", String, nullable=False),
    Column("url", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("size", Integer, nullable=False),
)


@dataclass(frozen=True)
class Page:
    """What is known of a page that was fetched."""

    status: int
    size: int


@app.task(retries=Retry(2, delay=0.5), timeout=60)
async def fetch(
    url: str,
    http: aiohttp.ClientSession = Use(app.http),
    conn: AsyncConnection = Use(db.transaction),
) -> Page:
    """Fetch a page and store a row of it, exactly once."""
    async with http.get(url) as response:
        if response.status >= 500:
            raise ServerError(response.status, response.reason)
        body = await response.read()
    page = Page(response.status, len(body))
    await conn.execute(insert(rows).values(call=current().id, url=url, status=page.status, size=page.size))
    return page
