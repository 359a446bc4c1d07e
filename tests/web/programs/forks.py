"""Serve the shop from two forks of this process, which has used the app before: a pre-forking server.

`python forks.py aiohttp` or `python forks.py uvicorn`; each child has a socket of its own, so that a test
can ask each, and prints its address.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import shop
import uvicorn
from aiohttp import web


def serve(kind: str) -> None:
    """Be one child."""
    listening = socket.create_server(("127.0.0.1", 0))
    if kind == "aiohttp":
        asyncio.run(serve_aiohttp(listening))
    else:
        config = uvicorn.Config(shop.api, log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        asyncio.run(serve_uvicorn(server, listening))


async def serve_aiohttp(listening: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(shop.site)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    tell(listening)
    await stop.wait()
    await runner.cleanup()


async def serve_uvicorn(server: uvicorn.Server, listening: socket.socket) -> None:
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    tell(listening)
    await serving


def tell(listening: socket.socket) -> None:
    os.write(1, f"{os.getpid()} serves on port {listening.getsockname()[1]}\n".encode())


def main(kind: str) -> None:
    asyncio.run(shop.create())  # the parent has had a session, a pool and their threads
    children: list[int] = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            serve(kind)
            return
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    print("the children ended with", codes)
    asyncio.run(shop.create())  # and the parent's own app works as before
    print("the parent goes on")


if __name__ == "__main__":
    main(sys.argv[1])
