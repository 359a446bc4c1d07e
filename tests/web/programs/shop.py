"""An app and its two sites, made before any fork: what a server imports."""

from __future__ import annotations

import os

from aiohttp import web
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

import everloop.aiohttp
import everloop.asgi
import everloop.fastapi
from everloop import App, Use

app = App("shop")  # EVERLOOP_STORE
db = app.database()


@app.task
async def book(tea: str, conn: AsyncConnection = Use(db.transaction)) -> int:
    """Book, and say which process did."""
    await conn.execute(text("insert into orders values (:tea)"), {"tea": tea})
    return os.getpid()


async def count(conn: AsyncConnection) -> int:
    return int((await conn.execute(text("select count(*) from orders"))).scalar_one())


@everloop.aiohttp.inject
async def order(request: web.Request, conn: AsyncConnection = Use(db.connection)) -> web.Response:
    booked_by = await book(request.match_info["tea"])
    answer = {"pid": os.getpid(), "booked_by": booked_by, "orders": await count(conn)}
    return web.json_response(answer)


site = web.Application()
everloop.aiohttp.setup(site, app, worker=True)
site.router.add_get("/orders/{tea}", order)

api = FastAPI(lifespan=everloop.asgi.lifespan(app, worker=True))


@api.get("/orders/{tea}")
async def order_there(
    tea: str, conn: AsyncConnection = everloop.fastapi.Use(db.connection)
) -> dict[str, int]:
    booked_by = await book(tea)
    return {"pid": os.getpid(), "booked_by": booked_by, "orders": await count(conn)}


async def create() -> None:
    async with app, db.transaction() as conn:
        await conn.execute(text("create table if not exists orders (tea text)"))
