"""A shop: receipts by mail with retries, a report by key, and what a web handler does with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import aiohttp
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from everloop import App, Key, Retry, RetryAfter, Task, TaskNotFound, Use

ever = App("shop", "sqlite:///shop.db", imports=["shop.reports"])
db = ever.database()  # None: the store's own database, hence exactly once


@ever.resource
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@dataclass
class Order:
    customer: str
    total: Decimal


@ever.task(queue="mail", retries=Retry(8, delay=2, cap=600), timeout=20)
async def send_receipt(customer: str, order_id: int, session: aiohttp.ClientSession = Use(http)) -> None:
    async with session.post("https://mail/send", json=[customer, order_id]) as r:
        if r.status == 429:
            raise RetryAfter(float(r.headers["Retry-After"]))
        r.raise_for_status()


@ever.task(timeout=timedelta(minutes=10))
async def daily_report(tz: str, conn: AsyncConnection = Use(db.transaction)) -> int:
    result = await conn.execute(text("select count(*) from orders where tz = :tz"), {"tz": tz})
    return int(result.scalar_one())


@ever.task
async def archive(year: int, session: AsyncSession = Use(db.session)) -> str:
    await session.execute(text("delete from orders where year = :year"), {"year": year})
    return f"{year} is archived"


async def create(order: Order) -> dict[str, str]:
    async with db.transaction() as conn:
        row = await conn.execute(text("insert into orders default values returning id"))
        order_id = int(row.scalar_one())
        task = await ever.submit(send_receipt(order.customer, order_id), connection=conn, tags=["order"])
    return {"task": task.id}


async def retry(id: str) -> str | None:
    try:
        return (await ever.retry(id)).id
    except TaskNotFound:
        return None


async def report_now() -> str:
    task: Task[int] = await ever.submit(daily_report("Europe/Berlin"), key=Key("report"))
    return task.id


async def lifespan() -> AsyncIterator[None]:
    async with ever:  # a client; `everloop worker shop:ever` runs the work
        yield
