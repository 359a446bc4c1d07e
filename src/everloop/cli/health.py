"""`/healthz` and `/readyz`, for whoever restarts processes, and for whoever watches them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from everloop.cli.exits import USAGE, Exit
from everloop.cli.terminal import say

if TYPE_CHECKING:
    from aiohttp import web

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:\[\]]*):)?(?P<port>\d{1,5})")


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


class Answers(NamedTuple):
    """What keeps the process from working at all, and what keeps it from taking calls; or empty texts."""

    dying: Callable[[], str]
    why_not: Callable[[], str]


def read_address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Address | None:
    """Read `HOST:PORT`, or a port on loopback.

    Raises:
        click.BadParameter: It is neither.
    """
    if value is None:
        return None
    match = _ADDRESS.fullmatch(value.strip())
    if match is None or int(match["port"]) > 65_535:
        raise click.BadParameter(f"{value!r} is no address; write 127.0.0.1:8080, or 8080")
    return Address((match["host"] or "127.0.0.1").strip("[]"), int(match["port"]))


@asynccontextmanager
async def served(address: Address | None, answers: Answers) -> AsyncGenerator[None]:
    """Serve both, when there is an address.

    Raises:
        Exit: Nothing can listen there.
    """
    if address is None:
        yield
        return
    from aiohttp import web

    site = web.Application()
    site.router.add_get("/healthz", _answering(answers.dying, "alive"))
    site.router.add_get("/readyz", _answering(answers.why_not, "ready"))
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, *address).start()
        except OSError as error:
            raise Exit(USAGE, f"--health cannot listen on {address.host}:{address.port}: {error}") from error
        host, port = runner.addresses[0][:2]
        say(f"everloop: health at http://{f'[{host}]' if ':' in host else host}:{port}/healthz and /readyz")
        yield
    finally:
        await runner.cleanup()


def _answering(ask: Callable[[], str], good: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        why = ask()
        body = {good: not why, **({"why": why} if why else {})}
        return web.json_response(body, status=503 if why else 200, headers={"Cache-Control": "no-store"})

    return answer
