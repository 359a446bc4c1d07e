"""The app under simulation: its task functions, which do what a plan says, and write to the ledger."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable
from typing import Any

import msgspec

import everloop
from everloop import App, Call, Key, Retry, Task
from everloop.engine.attempt import CURRENT, Attempt
from everloop.store.protocol import Store
from tests.sim.ledger import Run
from tests.sim.loop import SimLoop, SimTask
from tests.sim.nodes import LEASE, Node
from tests.sim.programs import Plan


class Broken(Exception):
    """What a body raises that fails on purpose."""


app = App("sim", "memory://sim", lease=LEASE, raises=[Broken], embed=False)


def here() -> Node:
    """Return the simulated process in which this code runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    node = loop.owner
    assert isinstance(node, Node)
    return node


def _open_store() -> Store:
    return here().store()


app.open_store = _open_store  # type: ignore[method-assign]  # its seam


def call_of(plan: Plan) -> Call[Any]:
    """Return the call of a plan."""
    call = work(msgspec.json.encode(plan).decode())  # as text: to the codec a plan is nothing but long
    given: dict[str, Any] = dict(plan[2])
    among = given.pop("among", "live")
    if "retries" in given:
        given["retries"] = Retry(given["retries"], delay=0.1)
    if "key" in given:
        value, on_conflict = given["key"]
        given["key"] = Key(value, among=among, on_conflict=on_conflict)
    if "on_done" in given:
        given["on_done"] = [functools.partial(note, f"{plan[0]}/{n}") for n in range(given["on_done"])]
    return call.options(**given) if given else call


@app.task
async def work(text: str) -> str:
    """Do what a plan says, and return its name and the fence of this run."""
    plan: Plan = msgspec.json.decode(text)
    attempt = CURRENT.get()
    assert attempt is not None
    node = here()
    watch, leased = node.server.watch, attempt.leased
    run = Run(leased.id, plan[0], leased.fence, None, node.name, node.loop.time())
    assert isinstance(attempt.task, SimTask)
    watch.begins(node, run, attempt.task.born)
    try:
        for number, operation in enumerate(plan[1]):
            await _do(operation, attempt, node)
            run.effects.append(f"{plan[0]}#{number}")
    except asyncio.CancelledError:
        _end(run, "stopped", attempt)
        raise
    except everloop.RetryAfter:
        _end(run, "put off", attempt)
        raise
    except BaseException:
        _end(run, "raised", attempt)
        raise
    value = run.value = f"{plan[0]} {leased.fence}"
    _end(run, "returned", attempt)
    return value


def _end(run: Run, how: str, attempt: Attempt) -> None:
    run.how = how
    run.reason = attempt.stopping


@app.task
async def note(word: str, task: Task[Any]) -> str:
    """Be a durable callback."""
    watch = here().server.watch
    if not watch.ledger.closed:
        watch.ledger.callbacks.append((word, task.id, task.state))
    return word


# -- operations ---------------------------------------------------------------------------------------------


async def _do(operation: list[Any], attempt: Attempt, node: Node) -> None:  # noqa: C901, PLR0912 - a list
    kind, *arguments = operation
    sometimes = node.server.watch.sometimes
    match kind:
        case "sleep":
            await asyncio.sleep(arguments[0])
        case "block":
            node.block(arguments[0])
            await asyncio.sleep(0)
            if arguments[0] > LEASE and attempt.stopping is None:
                sometimes["a body blocked its loop for longer than its lease"] += 1
        case "stand still":
            if attempt.leased.fence == 1 and not node.server.plan.over:
                node.pause()
                await asyncio.sleep(0)
        case "tidy":
            try:
                await asyncio.sleep(0.1)
            finally:
                await asyncio.sleep(arguments[0])
        case "sour" | "stubborn" | "later":
            await _resist(kind, arguments[0], attempt)
        case "fail":
            if attempt.leased.attempt < arguments[0]:
                raise Broken(f"at attempt {attempt.leased.attempt}")
        case "snooze":
            runs = node.server.watch.ledger.runs[attempt.leased.id]
            if sum(run.how == "put off" for run in runs) < arguments[0]:
                raise everloop.RetryAfter(arguments[1])
        case "progress":
            everloop.current().progress(1, 2, "half")
        case _:
            await _with_children(kind, arguments, node)


async def _resist(kind: str, seconds: float, attempt: Attempt) -> None:
    """Make something else of a cancellation."""
    try:
        await asyncio.sleep(max(0.2, seconds))
    except asyncio.CancelledError:
        if kind == "sour":
            raise Broken("instead of a cancellation") from None
        if kind == "later" and attempt.stopping == "cancelled":
            raise everloop.RetryAfter(0.1) from None
        if kind == "later":
            raise


async def _with_children(kind: str, arguments: list[Any], node: Node) -> None:  # noqa: C901 - (the same)
    match kind:
        case "await":
            await call_of(arguments[0])
        case "submit":
            await app.submit(call_of(arguments[0]))
        case "start":
            task = app.create_task(call_of(arguments[0]))
            await task.stored()
        case "gather":
            await asyncio.gather(*map(call_of, arguments[1]), return_exceptions=arguments[0])
        case "as_completed":
            tasks = [app.create_task(call_of(plan)) for plan in arguments[0]]
            for following in asyncio.as_completed(tasks):
                await following
        case "group":
            await _group(arguments[0])
        case "wait_for":
            await _forgive(asyncio.wait_for(call_of(arguments[1]), arguments[0]), node)
        case "cancel":
            await _cancel(*arguments)
        case "shield":
            task = app.create_task(call_of(arguments[1]))
            await _forgive(asyncio.wait_for(asyncio.shield(task), arguments[0]), node)


async def _forgive(waiting: Awaitable[Any], node: Node) -> None:
    """Wait, and mind no failure: what became of the call is looked at in the store."""
    try:
        await waiting
    except TimeoutError:
        node.server.watch.sometimes["a wait for a child timed out"] += 1
    except Exception:
        node.server.watch.sometimes["a child's failure was forgiven"] += 1


async def _group(plans: list[Plan]) -> None:
    tasks: list[asyncio.Task[Any]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(call_of(plan)) for plan in plans]
    except* (everloop.TaskFailed, everloop.LeaseLost, everloop.StoreError):
        here().server.watch.sometimes["a group failed"] += 1


async def _cancel(seconds: float, plan: Plan) -> None:
    task = asyncio.create_task(call_of(plan))
    await asyncio.sleep(seconds)
    if task.cancel():
        await asyncio.wait([task])
        if not task.cancelled() and not isinstance(task.exception(), everloop.LeaseLost):
            here().server.watch.fail(f"{plan[0]} was cancelled, and its caller got {task}")
    elif not task.cancelled():
        task.exception()
