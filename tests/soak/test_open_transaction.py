"""A transaction of the user's stays open beside the queue, with a key and a row of a call: nobody minds."""

from __future__ import annotations

import asyncio
import os
import time
from statistics import median

import pytest
from sqlalchemy import text

from everloop import App, Key

SECONDS = float(os.environ.get("EVERLOOP_SOAK_S", "60"))
pytestmark = [pytest.mark.server, pytest.mark.timeout(SECONDS + 120)]

BATCH = 20
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
    async with app, app.worker():
        row = await app.submit(hold())
        while (await app.counts())["leased"] == 0:
            await asyncio.sleep(0.01)
        async with db.transaction() as conn:
            keyed = await app.submit(work(-1), connection=conn, key=Key("mine"))
            find = text("SELECT seq FROM ever_calls WHERE id = :id FOR UPDATE")
            assert (await conn.execute(find, {"id": row.id})).one()
            gate.set()  # its outcome waits for the row
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                began = time.monotonic()
                calls = [app.create_task(work(n)) for n in range(BATCH)]
                other = await app.submit(work(BATCH), key=Key(f"other {len(took)}"))
                assert await asyncio.gather(*calls, other) == list(range(BATCH + 1))
                took.append(time.monotonic() - began)
            await row.refresh()
            assert row.state == "leased"
        async with asyncio.timeout(20):
            assert (await keyed, await row) == (-1, "done")

    fifth = max(len(took) // 5, 1)
    first, last = median(took[:fifth]), median(took[-fifth:])
    print(f"\n{server}: {len(took)} batches; {first * 1000:.1f} ms at first, {last * 1000:.1f} ms at last, "
          f"{max(took) * 1000:.0f} ms at most")  # fmt: skip
    assert max(took) < LONGEST_S
    assert last < first * GROWTH, "it grows with the time that the transaction is open"
