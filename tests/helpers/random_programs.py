"""Random programs of asyncio, and an interpreter that runs them over coroutines or over calls.

A program is a tree of nodes; a node is a body of a few operations (sleep, raise, gather, wait, cancel, ...)
over child nodes. It is data, so that it can be the argument of a task function. What happens is noted as
a sequence of lines, each of which occurs once.

No operation leaves a child behind that still runs: what becomes of such is where calls and coroutines
differ on purpose (an owned child ends with its parent).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

#: A body: its name and its operations, each a list of its kind and its arguments.
Node = list[Any]
#: How a node is called: as a coroutine, or as a call.
Caller = Callable[[Node], Coroutine[Any, Any, str]]

KINDS = {KeyError: "KeyError", ValueError: "ValueError", TimeoutError: "TimeoutError", OSError: "OSError"}

#: What a body may do; what stands here twice is done more often.
OPERATIONS = (
    "sleep", "await", "gather", "gather", "wait", "wait", "as_completed", "wait_for", "timeout", "group",
    "group", "shield", "cancel", "cancel", "first_of",
)  # fmt: skip


# -- making one ---------------------------------------------------------------------------------------------


def grow(seed: int) -> Node:
    """Return the program of this seed, the same everywhere."""
    return _Gardener(random.Random(seed)).node(3)


class _Gardener:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 0

    def node(self, depth: int) -> Node:
        self.count += 1
        name = f"n{self.count}"
        if depth == 0:
            return [name, self.leaf()]
        operations = [self.operation(depth) for _ in range(self.rng.choice((1, 1, 2)))]
        return [name, operations]

    def leaf(self) -> list[Node]:
        operations: list[Node] = [["sleep", self.units()]]
        if self.rng.random() < 0.3:
            operations.append(["raise", self.rng.choice(("KeyError", "ValueError", "OSError"))])
        return operations

    def units(self) -> int:
        return self.rng.randint(1, 6)

    def child(self, depth: int) -> Node:
        return self.node(0 if self.rng.random() < 0.5 else depth - 1)

    def children(self, depth: int) -> list[Node]:
        return [self.child(depth) for _ in range(self.rng.randint(2, 3))]

    def operation(self, depth: int) -> Node:
        rng = self.rng
        kind = rng.choice(OPERATIONS)
        arguments: list[Any]
        match kind:
            case "sleep":
                arguments = [self.units()]
            case "await":
                arguments = [self.child(depth)]
            case "gather":
                arguments = [rng.random() < 0.5, self.children(depth)]
            case "wait":
                when = rng.choice(("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"))
                arguments = [when, rng.choice((None, self.units())), self.children(depth)]
            case "as_completed" | "group" | "first_of":
                arguments = [self.children(depth)]
            case "cancel":
                arguments = [self.units(), rng.random() < 0.7, self.child(depth)]
            case _:
                arguments = [self.units(), self.child(depth)]
        return [kind, *arguments]


# -- running one --------------------------------------------------------------------------------------------


class Interpreter:
    """Runs nodes.

    Args:
        call: Makes the coroutine, or the call, that runs a child.
        note: Takes what happens, line by line.
        unit: Seconds of one unit of time.
        sleep: Waits.
    """

    def __init__(
        self,
        call: Caller,
        note: Callable[[str], None],
        unit: float,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.call = call
        self.note = note
        self.unit = unit
        self.sleep = sleep

    async def run(self, node: Node) -> str:
        """Run a body and return its name."""
        name, operations = node
        self.note(f"{name} begins")
        try:
            for number, (kind, *arguments) in enumerate(operations):
                await getattr(self, f"do_{kind}")(f"{name}.{number} {kind}", *arguments)
        except asyncio.CancelledError:
            self.note(f"{name} is cancelled")
            raise
        except BaseException as error:
            self.note(f"{name} raises {tell(error)}")
            raise
        self.note(f"{name} ends")
        return str(name)

    async def do_sleep(self, _: str, units: float) -> None:
        await self.sleep(units * self.unit)

    async def do_raise(self, label: str, kind: str) -> None:
        raise {cls.__name__: cls for cls in KINDS}[kind](label)

    async def do_await(self, label: str, child: Node) -> None:
        self.note(f"{label}: {await self.call(child)}")

    async def do_gather(self, label: str, return_exceptions: bool, children: list[Node]) -> None:
        tasks = self.start(children)
        try:
            results = await asyncio.gather(*tasks, return_exceptions=return_exceptions)
            self.note(f"{label}: {[tell(r) for r in results]}")
        finally:
            await self.end(tasks, cancel=False)

    async def do_wait(self, label: str, when: str, units: float | None, children: list[Node]) -> None:
        tasks = self.start(children)
        try:
            timeout = None if units is None else units * self.unit
            done, pending = await asyncio.wait(tasks, timeout=timeout, return_when=getattr(asyncio, when))
            self.note(f"{label}: {[task in done for task in tasks]}")
            for task in pending:
                task.cancel()
        finally:
            await self.end(tasks)
        self.note(f"{label} after all: {[outcome(task) for task in tasks]}")

    async def do_as_completed(self, label: str, children: list[Node]) -> None:
        tasks = self.start(children)
        try:
            for number, following in enumerate(asyncio.as_completed(tasks)):
                try:
                    self.note(f"{label} {number}: {await following}")
                except (KeyError, ValueError, OSError) as error:
                    self.note(f"{label} {number}: {tell(error)}")
        finally:
            await self.end(tasks)

    async def do_first_of(self, label: str, children: list[Node]) -> None:
        tasks = self.start(children)
        try:
            for following in asyncio.as_completed(tasks):
                self.note(f"{label}: {await following}")
                break
        finally:
            await self.end(tasks)

    async def do_wait_for(self, label: str, units: float, child: Node) -> None:
        try:
            self.note(f"{label}: {await asyncio.wait_for(self.call(child), units * self.unit)}")
        except TimeoutError as error:
            self.note(f"{label}: {tell(error)}")

    async def do_timeout(self, label: str, units: float, child: Node) -> None:
        try:
            async with asyncio.timeout(units * self.unit) as timeout:
                self.note(f"{label}: {await self.call(child)}")
        except TimeoutError as error:
            self.note(f"{label}: {tell(error)} {timeout.expired()}")

    async def do_group(self, label: str, children: list[Node]) -> None:
        tasks: list[asyncio.Task[str]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(self.call(child)) for child in children]
        except* (KeyError, ValueError) as errors:
            self.note(f"{label}: {tell(errors)}")
        self.note(f"{label} after all: {[outcome(task) for task in tasks]}")

    async def do_shield(self, label: str, units: float, child: Node) -> None:
        (task,) = self.start([child])
        try:
            self.note(f"{label}: {await asyncio.wait_for(asyncio.shield(task), units * self.unit)}")
        except TimeoutError as error:
            self.note(f"{label}: {tell(error)}, {task.done()}")
            if not task.done():
                self.note(f"{label} after all: {await task}")
        finally:
            await self.end([task])

    async def do_cancel(self, label: str, units: float, catch: bool, child: Node) -> None:
        (task,) = self.start([child])
        try:
            await self.sleep(units * self.unit)
            self.note(f"{label}: {task.cancel(label)}")
            with suppress(asyncio.CancelledError if catch else ()):
                self.note(f"{label}: {await task}")
        finally:
            await self.end([task])

    def start(self, children: list[Node]) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.call(child)) for child in children]

    async def end(self, tasks: list[asyncio.Task[str]], *, cancel: bool = True) -> None:
        for task in tasks:
            if cancel and not task.cancelling():  # a second time would end the waiting for a call at once
                task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            outcome(task)  # nobody else may ask for its exception


def tell(end: object) -> str:
    """Say what came back, in words that do not depend on where it was raised."""
    if isinstance(end, BaseExceptionGroup):
        return f"group of {sorted(tell(error) for error in end.exceptions)}"
    if isinstance(end, asyncio.CancelledError):
        return "CancelledError"
    for cls, name in KINDS.items():
        if isinstance(end, cls):
            return f"{name}({', '.join(map(str, end.args))})"
    return str(end)


def outcome(task: asyncio.Future[str]) -> str:
    if task.cancelled():
        return "cancelled"
    return tell(task.exception() or task.result())


# -- what plain asyncio makes of it -------------------------------------------------------------------------


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when nothing is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]  # inside of asyncio
            self._virtual = max(self._virtual, self._scheduled[0].when())  # type: ignore[attr-defined]  # (the same)
        super()._run_once()  # type: ignore[misc]  # (the same)


def plain_traces(program: Node, seeds: Iterable[int], lateness: float) -> list[list[str]]:
    """Run a program over plain coroutines in virtual time.

    The beginning of each body, its end, and its being cancelled are late by up to `lateness` units, and no
    two sleeps take the same time.
    """

    async def main() -> list[list[str]]:
        return await asyncio.gather(*[_plain_trace(program, random.Random(seed), lateness) for seed in seeds])

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


async def _plain_trace(program: Node, rng: random.Random, lateness: float) -> list[str]:
    trace: list[str] = []

    async def late() -> None:
        if rng.random() < 0.7:
            await asyncio.sleep(rng.random() * lateness)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds + rng.uniform(-0.02, 0.02))

    async def call(node: Node) -> str:
        await late()
        body = asyncio.create_task(interpreter.run(node))
        try:
            await asyncio.wait([body])
        except asyncio.CancelledError:
            await late()
            body.cancel()
            await asyncio.wait([body])
            raise
        finally:
            if body.done():
                outcome(body)  # also where a second cancellation ended the waiting
            await late()
        return body.result()

    interpreter = Interpreter(call, trace.append, 1.0, sleep)
    await asyncio.gather(call(program), return_exceptions=True)
    return trace


class Expected:
    """What every plain run of a program has in common: its lines, and which of them come before which.

    Attributes:
        lines: What is noted, sorted; None when that depends on chance.
    """

    def __init__(self, program: Node, runs: int = 20, lateness: float = 0.4) -> None:
        # Most of those that depend on chance show it soon.
        traces = plain_traces(program, range(12), lateness)
        if len(set(map(tuple, map(sorted, traces)))) == 1:
            traces += plain_traces(program, range(12, runs), lateness)
        self.lines: list[str] | None = sorted(traces[0])
        self.order: list[tuple[str, str]] = []
        if any(sorted(trace) != self.lines for trace in traces):
            self.lines = None
            return
        places = [{line: place for place, line in enumerate(trace)} for trace in traces]
        for number, first in enumerate(traces[0]):
            for second in traces[0][number + 1 :]:
                if all(place[first] < place[second] for place in places):
                    self.order.append((first, second))

    def refuse(self, trace: list[str]) -> str:
        """Say what is wrong with a trace: other lines, or another order; nothing when it is right."""
        if sorted(trace) != self.lines:
            there, wanted = Counter(trace), Counter(self.lines)
            surplus, missing = (there - wanted).elements(), (wanted - there).elements()
            return f"surplus: {sorted(surplus)}, missing: {sorted(missing)}"
        place = {line: number for number, line in enumerate(trace)}
        wrong = [
            f"{first!r} before {second!r}" for first, second in self.order if place[first] > place[second]
        ]
        return f"wanted: {'; '.join(wrong)}" if wrong else ""
