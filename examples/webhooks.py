# /// script
# requires-python = ">=3.11"
# dependencies = ["everloop"]
# ///
"""A sender of webhooks: patient with receivers that fail, polite to those that are busy.

* a failure is tried again with exponential back-off and jitter, five times;
* "429 Too Many Requests" is obeyed to the second, and costs no attempt;
* "410 Gone" ends it at once;
* every attempt bears the same `Idempotency-Key`, so that a receiver can tell a repetition from news.

Four receivers of different temper run in this program, so that there is something to see:

    python examples/webhooks.py
"""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

import everloop
from everloop import App, Retry, RetryAfter, Use


class Gone(Exception):
    """The receiver wants no more events."""


app = App("webhooks", raises=[Gone, aiohttp.ClientError])


@app.task(retries=Retry(5, delay=0.2, cap=60, never=[Gone]), timeout=10)
async def deliver(url: str, event: dict[str, str], session: aiohttp.ClientSession = Use(app.http)) -> int:
    headers = {"Idempotency-Key": everloop.current().id}
    async with session.post(url, json=event, headers=headers) as response:
        if response.status == 429:
            raise RetryAfter(float(response.headers["Retry-After"]))
        if response.status == 410:
            raise Gone(f"{url} wants no more events")
        response.raise_for_status()
        return response.status


async def main() -> None:
    async with receivers() as base:
        start = time.perf_counter()
        event = {"type": "order.paid", "order": "4711"}
        calls = [deliver(f"{base}/{name}", event).options(tags=[name]) for name in TEMPERS]
        names = {call.id: name for call, name in zip(calls, TEMPERS, strict=True)}
        async for task in app.as_completed(calls):
            end = task.exception() or f"delivered, {task.result()}"
            print(
                f"{time.perf_counter() - start:5.2f} s  {names[task.id]:<8} {end} ({task.attempts} attempts)"
            )


# The rest is the other side of the wire.

#: What each receiver answers to its first, second, ... request; the last answer is repeated.
TEMPERS = {
    "steady": [200],
    "flaky": [500, 503, 200],
    "busy": [429, 429, 200],
    "closed": [410],
}


@asynccontextmanager
async def receivers() -> AsyncIterator[str]:
    """Serve the receivers on loopback, and give their common URL."""
    asked = Counter[str]()

    async def receive(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        status = TEMPERS[name][min(asked[name], len(TEMPERS[name]) - 1)]
        asked[name] += 1
        return web.Response(status=status, headers={"Retry-After": "0.5"} if status == 429 else {})

    application = web.Application()
    application.router.add_post("/{name}", receive)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    app.run(main())
