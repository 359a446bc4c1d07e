"""What an editor underlines, and why."""

from __future__ import annotations

import asyncio
from functools import partial

from everloop import App, Key, Retry, Task

app = App("mistakes", "sqlite:///mistakes.db")
db = app.database()

ID = "0198c0de-0000-7000-8000-000000000001"


@app.task
async def fetch(url: str, *, tries: int = 1) -> int:
    return len(url) * tries


@app.task
def parse(page: bytes) -> list[str]:
    return page.decode().split()


@app.task
async def log_done(n: int, task: Task[int]) -> None:
    print(n, task)


async def wrong_arguments() -> None:
    await fetch(1)  # in mypy: arg-type; in pyright: reportArgumentType
    await fetch()  # in mypy: call-arg; in pyright: reportCallIssue
    await fetch("a", "b")  # in mypy: arg-type call-arg; in pyright: reportCallIssue
    await fetch("a", tries="2")  # in mypy: arg-type; in pyright: reportArgumentType
    await fetch("a", trys=2)  # in mypy: call-arg; in pyright: reportCallIssue
    await parse("a")  # in mypy: arg-type; in pyright: reportArgumentType
    await fetch.plain(1)  # in mypy: arg-type; in pyright: reportArgumentType
    await fetch.options(queue="slow")(1)  # in mypy: arg-type; in pyright: reportArgumentType
    await asyncio.create_task(fetch(b"a"))  # in mypy: arg-type; in pyright: reportArgumentType
    await asyncio.gather(fetch("a"), fetch(1))  # in mypy: arg-type; in pyright: reportArgumentType


async def wrong_results() -> None:
    text: str = await fetch("a")  # in mypy: assignment; in pyright: reportAssignmentType
    task: Task[str] = await app.submit(fetch("a"))  # in mypy: arg-type; in pyright: reportAssignmentType
    got = await app.get_task(ID, parse)
    words: int = await got  # in mypy: assignment; in pyright: reportAssignmentType
    print(text, task, words)


async def wrong_options() -> None:
    await fetch.options(retry=3)("a")  # in mypy: call-arg; in pyright: reportCallIssue
    await fetch("a").options(priority="high")  # in mypy: arg-type; in pyright: reportArgumentType
    await app.submit(fetch("a"), dely=1)  # in mypy: call-arg; in pyright: reportCallIssue
    await app.submit(fetch("a"), key=3)  # in mypy: arg-type; in pyright: reportArgumentType
    await app.submit(fetch("a"), connection=3)  # in mypy: arg-type; in pyright: reportArgumentType
    engine = db.engine
    async with db.transaction() as conn:
        await app.submit(fetch("a"), connection=db)  # in mypy: arg-type; in pyright: reportArgumentType
        await app.submit(fetch("a"), connection=engine)  # in mypy: arg-type; in pyright: reportArgumentType
        await app.submit(fetch("a"), conection=conn)  # in mypy: call-arg; in pyright: reportCallIssue
    Key("a", among="all")  # in mypy: arg-type; in pyright: reportArgumentType
    Retry(3, never=[404])  # in mypy: list-item; in pyright: reportArgumentType


async def wrong_things() -> None:
    await app.submit(fetch)  # in mypy: arg-type; in pyright: reportArgumentType
    await app.submit(partial(fetch, "a"))  # in mypy: arg-type; in pyright: reportArgumentType
    app.create_task(asyncio.sleep(1))  # in mypy: arg-type; in pyright: reportArgumentType
    await app.get_task(3)  # in mypy: call-overload; in pyright: reportArgumentType
    await app.get_task(ID, len)  # in mypy: call-overload; in pyright: reportArgumentType
    app.run(fetch)  # in mypy: arg-type; in pyright: reportArgumentType
    app.run(fetch("a"), on_interrupt="stop")  # in mypy: arg-type; in pyright: reportArgumentType
    fetch("a").result()  # in mypy: attr-defined; in pyright: reportAttributeAccessIssue
    app.create_task(fetch("a")).resutl()  # in mypy: attr-defined; in pyright: reportAttributeAccessIssue
    fetch.name = 3  # in mypy: assignment; in pyright: reportAttributeAccessIssue


@app.task(run="proces")  # in mypy: call-overload; in pyright: reportArgumentType
async def nowhere() -> None: ...


@app.task(timeouts=3)  # in mypy: call-overload; in pyright: reportCallIssue
async def misspelt() -> None: ...
