"""Fill a store with one call of each kind, and print their ids."""

from __future__ import annotations

import asyncio
import json

from shop import add, app, fail, send


async def main() -> None:
    done = await app.submit(add(1, 2), tags=["a", "b"])
    failed = await app.submit(fail("no \x1b[31mway\x9b1m"), priority=7)
    mail = await app.submit(send("ada", subject="hi"))
    await asyncio.wait([done, failed, mail])
    due = await app.submit(add.options(delay=3600, key="once", expires=7200)(3, y=4))
    cancelled = await app.submit(add(5), delay=3600)
    await app.cancel(cancelled.id, "not now")
    tasks = {"done": done, "failed": failed, "mail": mail, "due": due, "cancelled": cancelled}
    print(json.dumps({name: task.id for name, task in tasks.items()}))


app.run(main())
