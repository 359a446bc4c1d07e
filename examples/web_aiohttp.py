# /// script
# requires-python = ">=3.11"
# dependencies = ["everloop[sql]"]
# ///
"""A tea shop on aiohttp: a POST inserts an order and submits a call in one transaction, a GET shows it.

The task brews the tea and updates the row, in one transaction with its own outcome: whatever is killed, and
whenever, an order that was answered is brewed once.

    python examples/web_aiohttp.py --worker        # the server, with a worker in its process
    curl -d '{"tea": "green"}' localhost:8080/orders
    curl localhost:8080/orders/<the order's id>

Without `--worker` the server only submits; run workers apart, as many as you like:

    everloop worker web_aiohttp:app                # in the folder of this file

Orders and calls are in the database that EVERLOOP_STORE names, by default an SQLite file. PORT is the port.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

from aiohttp import web
from sqlalchemy import Column, MetaData, String, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

import everloop.aiohttp
from everloop import App, Use
from everloop.aiohttp import inject

app = App("tea")
db = app.database()  # the store's own database
schema = MetaData()
orders = Table(
    "orders",
    schema,
    Column("id", String(32), primary_key=True),
    Column("tea", String(80), nullable=False),
    Column("state", String(20), nullable=False),
)


@app.task(retries=3)
async def brew(order_id: str, conn: AsyncConnection = Use(db.transaction)) -> None:
    await asyncio.sleep(0.2)
    await conn.execute(update(orders).where(orders.c.id == order_id).values(state="ready"))


@inject
async def create(request: web.Request, conn: AsyncConnection = Use(db.transaction)) -> web.Response:
    tea = (await request.json())["tea"]
    order_id = uuid4().hex
    await conn.execute(insert(orders).values(id=order_id, tea=tea, state="ordered"))
    task = await app.submit(brew(order_id), connection=conn)
    return web.json_response({"order": order_id, "task": task.id}, status=202)


@inject
async def show(request: web.Request, conn: AsyncConnection = Use(db.connection)) -> web.Response:
    found = await conn.execute(select(orders).where(orders.c.id == request.match_info["id"]))
    row = found.mappings().one_or_none()
    if row is None:
        raise web.HTTPNotFound(text="there is no such order\n")
    return web.json_response(dict(row))


async def create_table(_: web.Application) -> AsyncIterator[None]:
    async with db.transaction() as conn:
        await conn.run_sync(schema.create_all)
    yield


site = web.Application()
everloop.aiohttp.setup(site, app, worker="--worker" in sys.argv)
site.cleanup_ctx.append(create_table)
site.router.add_post("/orders", create)
site.router.add_get("/orders/{id}", show)

if __name__ == "__main__":
    web.run_app(site, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
