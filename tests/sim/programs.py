"""Random programs: trees of calls, with what may go wrong in them, and what must come of each.

A program is data (lists, texts, numbers), so that it can be the argument of a task function. A plan of a
call is `[name, operations, options]`; an operation is a list of its kind and its arguments.
"""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from tests.sim.matrix import Scene

Plan = list[Any]

#: What comes of a call when nothing goes wrong in the store or the processes: that is known of most.
OK, FAILS = "succeeded", "failed"

_OPERATIONS = (
    "await", "await", "gather", "gather", "group", "wait_for", "cancel", "shield", "submit", "start",
    "sleep", "fail", "snooze", "block", "progress", "tidy", "sour", "stubborn", "later",
    "as_completed",
)  # fmt: skip
#: Operations that leave it open what becomes of the calls in them.
_OPEN = ("wait_for", "cancel", "group", "shield")
#: Options of a call, how often each is given among special calls, and its values.
_OPTIONS: tuple[tuple[str, float, tuple[Any, ...]], ...] = (
    ("retries", 0.6, (1, 2, 3)),
    ("on_done", 0.6, (1, 2)),
    ("delay", 0.15, (0.1, 1.0)),
    ("timeout", 0.15, (0.1, 1.0, 4.0)),
    ("total_timeout", 0.15, (2.0, 6.0)),
    ("expires", 0.15, (0.2, 2.0)),
    ("crashes", 0.15, (0, 1)),
    ("priority", 0.15, (-1, 1)),
    ("fresh", 0.15, (True,)),
)
#: Options that leave it open what becomes of their call.
_UNSURE = ("timeout", "total_timeout", "expires", "crashes", "key")


class Gardener:
    """Grows the programs of a schedule.

    Args:
        rng: Decides.
        most: Calls in all, about.
        scene: What is to happen often.
    """

    def __init__(self, rng: Random, most: int, scene: Scene) -> None:
        self._rng = rng
        self._left = most
        self._scene = scene
        self._special = rng.choice((0.05, 0.3, 0.6))
        self._trouble = rng.choice((0.0, 0.3, 0.7))
        self._kinds = rng.sample(_OPERATIONS, rng.randint(5, len(_OPERATIONS)))

    def tree(self, name: str) -> Plan:
        """Return the plan of a root."""
        plan = self._plan(name, self._rng.choice((0, 1, 1, 2, 3)))
        plan[2].update(self._scene.options)
        if self._scene.script and name.endswith("r0"):
            plan[1] = named([copy.deepcopy(operation) for operation in self._scene.script], name)
            for option in _UNSURE:  # it is to do what it says
                plan[2].pop(option, None)
        if self._scene.key:
            plan[2]["key"] = ["k", self._scene.key]
            plan[2]["among"] = self._rng.choice(("live", "live", "done"))
        elif self._rng.random() < self._special / 3:
            plan[2]["key"] = [f"k{self._rng.randint(1, 2)}", self._rng.choice(("join", "raise", "replace"))]
            plan[2]["among"] = self._rng.choice(("live", "done"))
        return plan

    def _plan(self, name: str, depth: int) -> Plan:
        self._left -= 1
        rng = self._rng
        operations = [self._operation(name, n, depth) for n in range(rng.choice((1, 1, 1, 2, 3)))]
        return [name, operations, self._options()]

    def _operation(self, name: str, number: int, depth: int) -> list[Any]:  # noqa: PLR0911 - a list of cases
        rng = self._rng
        kind = rng.choice(self._kinds)
        leaf = depth == 0 or self._left <= 0
        if leaf and kind in ("await", "gather", *_OPEN, "submit", "start", "as_completed"):
            kind = "sleep"
        match kind:
            case "sleep" | "block" | "tidy" | "sour" | "stubborn" | "later":
                return [kind, self._seconds(kind)]
            case "fail":
                return [kind, rng.choice((1, 1, 2, 9))] if rng.random() < self._trouble else ["sleep", 0.0]
            case "snooze":
                return [kind, rng.choice((1, 2)), self._seconds(kind)]
            case "progress":
                return [kind]
            case "gather" | "group" | "as_completed":
                count = rng.choice((2, 2, 3))
                children = [self._plan(f"{name}.{number}{letter}", depth - 1) for letter in "abc"[:count]]
                return [kind, *([rng.random() < 0.5] if kind == "gather" else []), children]
            case "await" | "submit" | "start":
                return [kind, self._plan(f"{name}.{number}a", depth - 1)]
            case _:
                return [kind, self._seconds(kind), self._plan(f"{name}.{number}a", depth - 1)]

    def _seconds(self, kind: str) -> float:
        rng = self._rng
        if kind == "block":
            return rng.choice((0.1, 0.5, 3.0))  # the last is longer than a lease
        return rng.choice((0.0, 0.0, 0.01, 0.2, 0.2, 0.2, 1.0, 2.0))  # idle time costs, too

    def _options(self) -> dict[str, Any]:
        rng, options = self._rng, {}
        for name, weight, values in _OPTIONS:
            if rng.random() < self._special * weight:
                options[name] = rng.choice(values)
        return options


def foresee(plan: Plan, said: dict[str, str | None]) -> str | None:  # noqa: C901, PLR0912 - a list of cases
    """Note what comes of each call of a tree, None where chance decides; return it of the plan itself."""
    name, operations, options = plan
    end: str | None = OK
    for kind, *arguments in operations:
        match kind:
            case "fail":
                so = OK if options.get("retries", 0) >= arguments[0] else FAILS
            case "await":
                so = foresee(arguments[0], said)
            case "gather":
                ends = [foresee(child, said) for child in arguments[1]]
                so = OK if arguments[0] else None if None in ends else FAILS if FAILS in ends else OK
            case "as_completed":
                ends = [foresee(child, said) for child in arguments[0]]
                so = None if None in ends else FAILS if FAILS in ends else OK
            case "submit":
                foresee(arguments[0], said)
                so = OK
            case "start":
                foresee(arguments[0], said)
                so = OK
            case "wait_for" | "cancel" | "shield":
                _unsure(arguments[1], said)
                so = OK
            case "group":
                ends = [foresee(child, {}) for child in arguments[0]]
                for child in arguments[0]:
                    if ends == [OK] * len(ends):
                        foresee(child, said)
                    else:
                        _unsure(child, said)
                so = OK  # it minds the group's failure
            case _:
                so = OK
        if end == OK:
            end = so  # what comes after a failure is not reached
        elif end is None and so == FAILS:
            end = None
    if any(option in options for option in _UNSURE):
        # A run that is stopped half-way leaves it open what becomes of its children.
        _unsure(plan, said)
        return None
    if end != OK:
        _unsure_below(plan, said)
    said[name] = end
    if options.get("fresh"):
        _unsure(plan, said)  # the one of an earlier run is cancelled, for the last run did not ask for it
    return end


def named(operations: list[Any], name: str) -> list[Any]:
    """Give the children in these operations names of their own."""
    for number, child in enumerate(children(["", operations, {}])):
        child[0] = f"{name}.{number}s"
        named(child[1], child[0])
    return operations


def children(plan: Plan) -> list[Plan]:
    """Return the plans in the operations of a plan."""
    found: list[Plan] = []
    for operation in plan[1]:
        for argument in operation[1:]:
            if isinstance(argument, list):
                found += [argument] if argument and isinstance(argument[0], str) else argument
    return found


def _unsure(plan: Plan, said: dict[str, str | None]) -> None:
    said[plan[0]] = None
    _unsure_below(plan, said)


def _unsure_below(plan: Plan, said: dict[str, str | None]) -> None:
    for child in children(plan):
        _unsure(child, said)


def cast_doubt(plan: Plan, said: dict[str, str | None]) -> None:
    """Note that chance decides about a whole tree: a user cancels it, for one."""
    _unsure(plan, said)


def errand(rng: Random, plan: Plan, scene: Scene) -> list[Any]:
    """Return what a client does with a tree: how, when, and whether it changes its mind."""
    how = rng.choice(("submit", "submit", "await", "create", "many", "wait_for"))
    if scene.errand and rng.random() < 0.9:
        how = "submit"
    cancels = rng.random() < (0.8 if scene.errand.startswith("cancel") else 0.2)
    after = rng.choice((0.5, 2.0) if scene.errand == "cancel late" else (0.0, 0.01, 0.1, 0.5, 2.0))
    at = rng.choice((0.0, 0.5, 1.0) if scene.errand == "submit later" else (0.0, 0.0, 0.3, 1.0))
    return [how, at, plan, after if cancels else None]
