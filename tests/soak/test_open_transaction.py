"""A user's transaction stays open beside the queue, with a key, an id and a row of a call: nobody minds."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from statistics import median

import pytest
from sqlalchemy import text

from everloop import App, Key, Task
from everloop._core.ids import new_id

SECONDS = float(os.environ.get("EVERLOOP_SOAK_S", "60"))
pytestmark = [pytest.mark.server, pytest.mark.timeout(SECONDS + 120)]

#: Calls at a time, and seconds from one time to the next: of what ends while a transaction is open, servers
#: remove nothing, so the sum of both counts (docs/databases.md).
BATCH, PACE = 20, 0.05
MINE = new_id()
#: One batch may take so long at most, and at the end they may take so many times as long as at the beginning.
LONGEST_S, GROWTH = 5.0, 3.0


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
async def test_a_transaction_that_stays_open_slows_nobody_else(
    server: str, request: pytest.FixtureRequest
) -> None:
    app = App("soak", str(request.getfixturevalue(f"{server}_url")), embed=False)
    db = app.database()
    gate = asyncio.Event()

    @app.task
    async def work(n: int) -> int:
        return n

    @app.task
    async def hold() -> str:
        await gate.wait()
        return "done"

    took: list[float] = []
    is_open, may_end = asyncio.Event(), asyncio.Event()

    async def stay_open(row: Task[str]) -> list[Task[int]]:
        async with db.transaction() as conn:
            keyed = await app.submit(work(-1), connection=conn, key=Key("mine"))
            named = await app.submit(work(-2), connection=conn, id=MINE)
            find = text("SELECT seq FROM ever_calls WHERE id = :id FOR UPDATE")
            assert (await conn.execute(find, {"id": row.id})).one()
            is_open.set()
            await may_end.wait()
        return [keyed, named]

    async with app, app.worker():
        row = await app.submit(hold())
        while (await app.counts())["leased"] == 0:
            await asyncio.sleep(0.01)
        staying = asyncio.create_task(stay_open(row))
        await is_open.wait()
        gate.set()  # its outcome waits for the row
        again = asyncio.create_task(app.submit(work(-2), id=MINE))  # waits for what becomes of that
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            began = time.monotonic()
            calls = [app.create_task(work(n)) for n in range(BATCH)]
            other = await app.submit(work(BATCH), key=Key(f"other {len(took)}"))
            name = await app.submit(work(BATCH + 1), id=new_id())
            assert await asyncio.gather(*calls, other, name) == list(range(BATCH + 2))
            took.append(time.monotonic() - began)
            await asyncio.sleep(PACE - took[-1])
        await row.refresh()
        assert row.state == "leased"
        assert not (again.done() or staying.done())
        may_end.set()
        async with asyncio.timeout(20):
            assert [await task for task in await staying] == [-1, -2]
            assert (await (await again), await row) == (-2, "done")

    fifth = max(len(took) // 5, 1)
    first, last = median(took[:fifth]), median(took[-fifth:])
    found = {
        "seconds": SECONDS,
        "batches": len(took),
        "first_ms": round(first * 1000, 1),
        "last_ms": round(last * 1000, 1),
        "longest_ms": round(max(took) * 1000, 1),
    }
    print(f"\n{server}: {found}")
    assert max(took) < LONGEST_S
    assert last < first * GROWTH, "it grows with the time that the transaction is open"
    if folder := os.environ.get("EVERLOOP_EVIDENCE"):
        Path(folder, f"{server}.json").write_text(json.dumps(found), encoding="utf-8")
