"""Serve an app until SIGTERM: `python serve.py module:app [concurrency]`."""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib import import_module
from pathlib import Path


async def main(target: str, concurrency: int) -> None:
    module, _, name = target.partition(":")
    app = getattr(import_module(module), name)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with app.worker(concurrency=concurrency):
        print("serving", file=sys.stderr, flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100))
