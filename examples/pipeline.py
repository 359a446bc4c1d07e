# /// script
# requires-python = ">=3.11"
# dependencies = ["everloop"]
# ///
"""A pipeline of durable callbacks: when a sheet is parsed, its total is booked, or its error reported.

`add_done_callback` runs here and dies with this process. `on_done` is stored with the call: a worker runs
it after the end, however that came, even if this program is long gone.

    python examples/pipeline.py
"""

import functools

from everloop import App, Task

app = App("pipeline")

SHEETS = {
    "monday": "2 apples, 3 pears",
    "tuesday": "4 apples, 1 melon",
    "wednesday": "many plums",
}


@app.task
async def parse(sheet: str) -> dict[str, int]:
    """Turn "2 apples" into {"apples": 2}; a sheet that says "many" fails."""
    return {fruit: int(number) for number, fruit in (item.split() for item in sheet.split(", "))}


@app.task
async def book(day: str, parsed: Task[dict[str, int]]) -> int:
    """Book what was parsed: the finished task comes last, as in a plain callback."""
    if error := parsed.exception():
        await report(day, str(error))
        return 0
    total = sum(parsed.result().values())
    print(f"{day:>9}: {total} pieces booked")
    return total


@app.task
async def report(day: str, problem: str) -> None:
    print(f"{day:>9}: nothing booked, {problem}")


async def main() -> None:
    calls = [parse(sheet).options(on_done=functools.partial(book, day)) for day, sheet in SHEETS.items()]
    await app.submit_many(calls)

    # From here on any worker would finish the work. We stay to see its end: the callbacks were stored with
    # the calls that they follow, and are tasks like any other.
    booked = [await task for task in await app.tasks(name="book", limit=len(SHEETS))]
    print(f"{'in all':>9}: {sum(booked)} pieces")


if __name__ == "__main__":
    app.run(main())
