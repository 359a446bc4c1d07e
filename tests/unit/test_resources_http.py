"""The shared aiohttp session: one per process and loop, in which no task sees another's cookies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from everloop.resources.http import http_resource
from everloop.resources.resource import Resource, ResourcePool


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A loopback server that gives a cookie at /login and shows what it is sent at /."""

    async def login(request: web.Request) -> web.Response:
        response = web.Response(text="welcome")
        response.set_cookie("user", request.query["user"])
        return response

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=request.cookies.get("user", "nobody"))

    app = web.Application()
    app.add_routes([web.get("/login", login), web.get("/", show)])
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, "localhost", 0)  # a name: aiohttp keeps no cookies of bare addresses
    await server.start()
    port = runner.addresses[0][1]
    yield f"http://localhost:{port}"
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[Resource[aiohttp.ClientSession]]:
    pool = ResourcePool()
    yield pool.declare(http_resource, name="http")
    await pool.aclose()


@pytest.mark.both_loops
async def test_cookies_do_not_leak_from_task_to_task(
    site: str, http: Resource[aiohttp.ClientSession]
) -> None:
    logged_in = asyncio.Event()

    async def first() -> str:
        async with http() as session:
            async with session.get(f"{site}/login?user=ada") as response:
                assert response.cookies["user"].value == "ada"  # who logs in can see it, and send it on
            logged_in.set()
            async with session.get(site, cookies={"user": "ada"}) as response:
                return await response.text()

    async def second() -> str:
        await logged_in.wait()
        async with http() as session, session.get(site) as response:
            return await response.text()

    assert await asyncio.gather(first(), second()) == ["ada", "nobody"]


async def test_a_session_with_a_jar_would_leak_them(site: str) -> None:
    """The test above sees a leak: aiohttp's own default has it."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{site}/login?user=ada"):
            pass
        async with session.get(site) as response:
            assert await response.text() == "ada"


async def test_it_is_one_session_closed_with_the_app() -> None:
    pool = ResourcePool()
    http = pool.declare(http_resource, name="http")
    async with http() as one, http() as two:
        assert one is two
        assert one.timeout.total == 300
        assert isinstance(one.connector, aiohttp.TCPConnector) and one.connector.limit == 1_000
    assert not one.closed
    await pool.aclose()
    assert one.closed


def test_importing_everloop_loads_nothing_heavy() -> None:
    program = (
        "import sys, everloop; from everloop import App, Use; app = App('a', 'memory://'); app.http; "
        "app.database('sqlite:///a.db'); "
        "print([name for name in ('aiohttp', 'sqlalchemy', 'aiosqlite', 'greenlet') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"
