"""A program that is started is `__main__` to itself, and a module to its worker: its classes are the same."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.processes import run_program, worker

SHOP = """
import asyncio
from dataclasses import dataclass
from everloop import App, Retry

class Closed(Exception): ...
class Moved(Closed): ...

@dataclass
class Parcel:
    number: int

app = App("shop", raises=[Closed])

@app.task
async def send(parcel: Parcel) -> Parcel:
    print("sends", parcel)
    if parcel.number > 1:
        raise Moved(f"no {parcel}")
    return Parcel(parcel.number + 1)

async def main():
    print(await send(Parcel(1)))
    try:
        await send(Parcel(2)).options(retries=Retry(3, delay=0.01, never=[Closed]))
    except Closed as error:
        print(type(error).__name__, error)
    try:
        await send(Parcel(3)).options(retries=Retry(1, delay=0.01, only=[Moved]))
    except Closed as error:
        print(type(error).__name__, error)

if __name__ == "__main__":
    asyncio.run(main())
"""

SAID = """
sends Parcel(number=1)
Parcel(number=2)
sends Parcel(number=2)
Closed no Parcel(number=2)
sends Parcel(number=3)
sends Parcel(number=3)
Closed no Parcel(number=3)
"""


def test_a_program_and_its_worker_know_a_class_by_one_name(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    env = {"EVERLOOP_STORE": f"sqlite:///{tmp_path}/store.db"}
    with worker("shop:app", folder=tmp_path, env=env, name="both"):
        ran = run_program("shop.py", folder=tmp_path, env=env, name="both").checked()

    assert ran.out.split("\n") == SAID.lstrip().split("\n")


def test_so_does_a_program_started_with_m(tmp_path: Path) -> None:
    (tmp_path / "shops").mkdir()
    (tmp_path / "shops" / "paris.py").write_text(SHOP, encoding="utf-8")
    env = {"EVERLOOP_STORE": f"sqlite:///{tmp_path}/store.db"}
    with worker("shops.paris:app", folder=tmp_path, env=env, name="both"):
        ran = run_program("-m", "shops.paris", folder=tmp_path, env=env, name="both").checked()

    assert ran.out.split("\n") == SAID.lstrip().split("\n")


def test_embedded_there_is_but_one_name(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    env = {"EVERLOOP_STORE": f"sqlite:///{tmp_path}/store.db"}
    ran = run_program("shop.py", folder=tmp_path, env=env).checked()

    assert ran.out.split("\n") == SAID.lstrip().split("\n")
