"""The two example services: real processes, real requests, and a server that is killed."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from everloop import App
from tests.helpers.processes import Running, command, importing_from, started, worker
from tests.helpers.waiting import until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
READY = {"web_aiohttp": "Running on", "web_fastapi": "Uvicorn running on"}

both = pytest.mark.parametrize("example", READY)


@dataclass
class Service:
    """An example that serves."""

    running: Running
    port: int

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()


def settings(folder: Path) -> dict[str, str]:
    return {"EVERLOOP_STORE": f"sqlite:///{folder}/tea.db", **importing_from(EXAMPLES)}


@contextmanager
def serving(example: str, *options: str, folder: Path) -> Iterator[Service]:
    """Run the example on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = settings(folder) | {"PORT": str(port)}
    with started(EXAMPLES / f"{example}.py", *options, folder=folder, env=env, name="web") as running:
        running.until(READY[example])
        yield Service(running, port)


@both
async def test_an_order_is_inserted_brewed_and_shown(tmp_path: Path, example: str) -> None:
    with serving(example, "--worker", folder=tmp_path) as shop:
        assert shop.ask("/orders/1")[0] == 404
        status, answer = shop.ask("/orders", {"tea": "green"})
        order_id = answer["order"]
        assert status == 202
        assert shop.ask(f"/orders/{order_id}")[1] in (
            {"id": order_id, "tea": "green", "state": "ordered"},
            {"id": order_id, "tea": "green", "state": "ready"},
        )
        await until(lambda: shop.ask(f"/orders/{order_id}")[1]["state"] == "ready")

    shown = command("show", "web_aiohttp:app", answer["task"], folder=tmp_path, env=settings(tmp_path))
    assert "succeeded" in shown.checked().out


@both
async def test_what_was_answered_is_brewed_although_the_server_is_killed(
    tmp_path: Path, example: str
) -> None:
    with serving(example, folder=tmp_path) as shop:
        _, answer = shop.ask("/orders", {"tea": "green"})
        shop.running.kill()

    with worker(f"{example}:app", folder=tmp_path, env=settings(tmp_path)):
        app = App("tea", f"sqlite:///{tmp_path}/tea.db")
        async with app:
            await (await app.get_task(answer["task"]))
    with closing(sqlite3.connect(tmp_path / "tea.db")) as file:
        assert file.execute("select * from orders").fetchall() == [(answer["order"], "green", "ready")]


@both
async def test_an_order_that_is_refused_leaves_neither_row_nor_call(tmp_path: Path, example: str) -> None:
    with serving(example, folder=tmp_path) as shop:
        # The column refuses it (aiohttp), or the model does (FastAPI).
        assert shop.ask("/orders", {"tea": None})[0] in (422, 500)

    async with App("tea", f"sqlite:///{tmp_path}/tea.db") as app:
        assert await app.tasks() == []
    with closing(sqlite3.connect(tmp_path / "tea.db")) as file:
        assert file.execute("select * from orders").fetchall() == []
