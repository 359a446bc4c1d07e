# /// script
# requires-python = ">=3.11"
# dependencies = ["everloop[sql]", "fastapi", "uvicorn"]
# ///
"""A tea shop on FastAPI: a POST inserts an order and submits a call in one transaction, a GET shows it.

The task brews the tea and updates the row, in one transaction with its own outcome: whatever is killed, and
whenever, an order that was answered is brewed once.

    python examples/web_fastapi.py --worker        # the server, with a worker in its process
    curl -d '{"tea": "green"}' -H 'Content-Type: application/json' localhost:8080/orders
    curl localhost:8080/orders/<the order's id>

Without `--worker` the server only submits; run workers apart, and server processes, as many as you like:

    everloop worker web_fastapi:app                # in the folder of this file
    uvicorn web_fastapi:api --workers 4

Orders and calls are in the database that EVERLOOP_STORE names, by default an SQLite file. PORT is the port.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import Column, MetaData, String, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

import everloop.asgi
import everloop.fastapi
from everloop import App, Use

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


@asynccontextmanager
async def create_table(_: FastAPI) -> AsyncIterator[None]:
    async with db.transaction() as conn:
        await conn.run_sync(schema.create_all)
    yield


api = FastAPI(lifespan=everloop.asgi.lifespan(app, create_table, worker="--worker" in sys.argv))


class Order(BaseModel):
    tea: str


@api.post("/orders", status_code=202)
async def create(
    order: Order, conn: AsyncConnection = everloop.fastapi.Use(db.transaction)
) -> dict[str, Any]:
    order_id = uuid4().hex
    await conn.execute(insert(orders).values(id=order_id, tea=order.tea, state="ordered"))
    task = await app.submit(brew(order_id), connection=conn)
    return {"order": order_id, "task": task.id}


@api.get("/orders/{id}")
async def show(id: str, conn: AsyncConnection = everloop.fastapi.Use(db.connection)) -> dict[str, Any]:
    row = (await conn.execute(select(orders).where(orders.c.id == id))).mappings().one_or_none()
    if row is None:
        raise HTTPException(404, "there is no such order")
    return dict(row)


if __name__ == "__main__":
    uvicorn.run(api, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
