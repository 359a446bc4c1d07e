"""An annotation may name what comes later, or is there for type checkers only."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.helpers.processes import run_program

#: From Python 3.14 on this is a program without the import, too.
LATER = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
PROGRAM = (
    LATER
    + """\
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from everloop import App, Use

if TYPE_CHECKING:
    from nowhere import Unknown

app = App("shop", "memory://")


@app.resource
async def prices() -> AsyncGenerator[Prices]:
    yield Prices({"tea": 3})


@asynccontextmanager
async def counted(wanted: Unknown = 2) -> AsyncGenerator[Counter]:
    yield Counter(wanted)


@app.task
async def order(
    item: Item, note: Unknown, known: Prices = Use(prices), count: Counter = Use(counted)
) -> Order:
    return Order(item, known.by_name[item.name] * count.number, note)


@dataclass
class Item:
    name: str


@dataclass
class Prices:
    by_name: dict[str, int]


@dataclass
class Counter:
    number: int


@dataclass
class Order:
    item: Item
    price: int
    note: str


async def main() -> None:
    print(await order(Item("tea"), "soon"))


app.run(main())
"""
)


def test_annotations_are_read_when_they_can_be(tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM, encoding="utf-8")

    ran = run_program(program, folder=tmp_path, env={}).checked()

    assert ran.out == "Order(item=Item(name='tea'), price=6, note='soon')\n"
