"""Which cells of (verb, state before, fault) there are, and how a schedule comes to meet a rare one."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from tests.sim.faults import HARD, SOFT, Cell, Fault

Aim = tuple[Cell, Fault]

#: How often each cell is to be met in a campaign.
WANTED = 20


@dataclass(frozen=True)
class Scene:
    """What makes it likely that a cell is met.

    Attributes:
        before: Faults that lead there.
        kinds: Operations that bodies do.
        options: Options that calls have.
        errand: What clients do.
        key: What becomes of a second root with the key of the first.
        workers: How many there are, if that matters.
        who: The kind of process to which all of it happens, if that matters.
        pause: For how long a process stands still, in leases.
        drains: Whether a process that stands still is asked to end meanwhile.
    """

    before: tuple[Aim, ...] = ()
    kinds: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()
    errand: str = ""
    key: str = ""
    workers: int = 0
    who: str = ""
    pause: tuple[float, float] = (1.05, 2.5)
    drains: bool = False


_LEASE: Cell = ("lease", "ready")
_AWAY: tuple[Aim, ...] = ((_LEASE, Fault.PAUSE_AFTER),)
_KILLED: tuple[Aim, ...] = ((_LEASE, Fault.CRASH_AFTER), (("lease", "again"), Fault.CRASH_AFTER))
_RETRY = (("retries", 2),)
_LATER = (("delay", 1.0),)
#: A process that stands still for little longer than its lease is not reaped yet; for much longer, it is.
_SHORT, _LONG = (1.02, 1.2), (1.8, 2.5)


def _again(cell: Cell, **scene: Any) -> Scene:
    """Return a scene in which the answer to `cell` is lost, so that it is said again."""
    return Scene(((cell, Fault.LOST),), **scene)


def _stale(*kinds: str, workers: int, **scene: Any) -> Scene:
    """Return a scene in which a body begins whose lease has gone to another while its process stood still."""
    return Scene(_AWAY, kinds, workers=workers, pause=_LONG, **scene)


#: Every cell, and what leads there; what is met often anyhow needs nothing.
CELLS: dict[Cell, Scene] = {
    ("add", "absent"): Scene(),
    ("add", "there"): _again(("add", "absent"), errand="submit"),
    ("add child", "absent"): Scene(),
    ("add child", "earlier child lives"): Scene(((_LEASE, Fault.DRAIN),), ("await", "gather", "start")),
    ("add child", "earlier child lost"): Scene(kinds=("await", "fail"), options=_RETRY),
    ("add child", "earlier child succeeded"): Scene(kinds=("await", "fail"), options=_RETRY),
    ("add child", "parent lost"): _stale("await", "gather", workers=1),
    ("add child", "there"): _again(("add child", "absent"), kinds=("await", "gather")),
    ("add keyed (join)", "absent"): Scene(key="join"),
    ("add keyed (join)", "key held"): Scene(key="join"),
    ("add keyed (join)", "there"): _again(("add keyed (join)", "absent"), key="join"),
    ("add keyed (raise)", "absent"): Scene(key="raise"),
    ("add keyed (raise)", "key held"): Scene(key="raise"),
    ("add keyed (raise)", "there"): _again(("add keyed (raise)", "absent"), key="raise"),
    ("add keyed (replace)", "absent"): Scene(key="replace"),
    ("add keyed (replace)", "key held"): Scene(key="replace"),
    ("add keyed (replace)", "there"): _again(("add keyed (replace)", "absent"), key="replace"),
    ("add with callback", "absent"): Scene(options=(("on_done", 1),), errand="submit"),
    ("add with callback", "there"): _again(
        ("add with callback", "absent"), options=(("on_done", 1),), errand="submit"
    ),
    ("cancel", "ended"): Scene(kinds=("cancel", "wait_for", "progress", "progress")),
    ("cancel", "leased"): Scene(kinds=("cancel", "wait_for", "sleep")),
    ("cancel", "ready"): Scene(kinds=("cancel", "wait_for"), errand="cancel", workers=1),
    ("cancel", "scheduled"): Scene(options=_LATER, errand="cancel"),
    ("close session", "alive"): Scene(),
    ("close session", "overdue"): Scene(((("serve (end)", "alive"), Fault.PAUSE_AFTER),), pause=_SHORT),
    ("close session", "reaped"): Scene(
        ((("lease", "nothing ready"), Fault.PAUSE_AFTER),), workers=2, pause=_LONG, drains=True, who="worker"
    ),
    ("expire", "late"): Scene(
        options=(("expires", 0.2), ("delay", 0.1)), kinds=("block", "gather"), workers=1
    ),
    ("get", "ended"): Scene(),
    ("get", "leased"): Scene(errand="cancel", kinds=("sleep",)),
    ("get", "nothing"): Scene(((("lease", "nothing ready"), Fault.LOST),)),
    ("get", "ready"): Scene(errand="cancel", workers=1, kinds=("block",)),
    ("get", "scheduled"): Scene(options=_LATER, errand="cancel"),
    ("holding", "more"): Scene(((_LEASE, Fault.LOST),)),
    ("holding", "nothing more"): Scene(),
    ("inbox", "cancels"): Scene(kinds=("cancel", "wait_for", "sleep")),
    ("inbox", "ends"): Scene(kinds=("await", "gather")),
    ("lease", "again"): Scene(),
    ("lease", "no room"): Scene(kinds=("await", "gather")),
    ("lease", "nothing ready"): Scene(),
    ("lease", "ready"): Scene(),
    ("lease", "suspect"): Scene(_KILLED, ("sleep",)),
    ("open", "-"): Scene(),
    ("open session", "again"): Scene(_AWAY, workers=2, pause=_LONG),
    ("open session", "first"): Scene(),
    ("progress", "-"): Scene(kinds=("progress",)),
    ("reap", "a session without leases"): Scene(((("lease", "nothing ready"), Fault.CRASH_AFTER),)),
    ("reap", "cancel asked"): Scene(((("inbox", "cancels"), Fault.CRASH_AFTER),), ("cancel", "wait_for")),
    ("reap", "last crash"): Scene(((_LEASE, Fault.CRASH_AFTER),), options=(("crashes", 0),)),
    ("reap", "leased"): Scene(((_LEASE, Fault.CRASH_AFTER),)),
    ("reap", "may not judge"): Scene(),
    ("reap", "nobody"): Scene(kinds=("sleep", "tidy")),
    ("renew", "alive"): Scene(),
    ("renew", "overdue"): Scene(((("renew", "alive"), Fault.PAUSE_AFTER),), workers=1, pause=_SHORT),
    ("renew", "reaped"): Scene(((("renew", "alive"), Fault.PAUSE_AFTER),), workers=3, pause=_LONG),
    ("serve (begin)", "alive"): Scene(),
    ("serve (begin)", "overdue"): Scene(
        ((("open session", "first"), Fault.PAUSE_AFTER),), workers=1, pause=_SHORT, who="worker"
    ),
    ("serve (begin)", "reaped"): Scene(
        ((("open session", "first"), Fault.PAUSE_AFTER),), workers=2, pause=_LONG, who="worker"
    ),
    ("serve (end)", "alive"): Scene(((_LEASE, Fault.DRAIN),)),
    ("serve (end)", "overdue"): Scene(
        ((("lease", "nothing ready"), Fault.PAUSE_AFTER),), workers=1, pause=_SHORT, drains=True, who="worker"
    ),
    ("serve (end)", "reaped"): Scene(
        ((("lease", "nothing ready"), Fault.PAUSE_AFTER),), workers=2, pause=_LONG, drains=True, who="worker"
    ),
    ("serving", "-"): Scene(kinds=("sleep", "tidy")),
    ("settle cancel", "cancel asked"): Scene(kinds=("cancel", "wait_for", "sleep")),
    ("settle cancel", "ended"): Scene(
        ((("inbox", "cancels"), Fault.PAUSE_AFTER),),
        ("sleep", "tidy"),
        errand="cancel",
        workers=1,
        pause=_LONG,
    ),
    ("settle fail", "cancel asked"): Scene(kinds=("sour",), errand="cancel"),
    ("settle fail", "ended"): _stale("fail", workers=2),
    ("settle fail", "leased"): Scene(kinds=("fail",)),
    ("settle fail", "lost"): _stale("fail", workers=1),
    ("settle release", "cancel asked"): Scene(
        ((("cancel", "leased"), Fault.DRAIN),), ("cancel", "wait_for", "sleep"), workers=1
    ),
    ("settle release", "ended"): _stale("snooze", workers=2),
    ("settle release", "leased"): Scene(kinds=("snooze",)),
    ("settle release", "lost"): _stale("snooze", workers=1),
    ("settle retry", "cancel asked"): Scene(kinds=("sour",), options=_RETRY, errand="cancel"),
    ("settle retry", "ended"): _stale("fail", workers=2, options=_RETRY),
    ("settle retry", "leased"): Scene(kinds=("fail",), options=_RETRY),
    ("settle retry", "lost"): _stale("fail", workers=1, options=_RETRY),
    ("settle succeed", "cancel asked"): Scene(kinds=("cancel", "wait_for", "progress", "progress")),
    ("settle succeed", "ended"): _stale("progress", workers=2),
    ("settle succeed", "leased"): Scene(),
    ("settle succeed", "lost"): _stale("progress", workers=1),
    ("tend", "-"): Scene(),
    ("turn", "reaped"): _stale(workers=2),
    ("wait", "ended"): Scene(((("inbox", "ends"), Fault.LOST),)),
    ("wait", "leased"): Scene(((("lease", "no room"), Fault.LOST),), ("await", "sleep")),
    ("wait", "ready"): Scene(((("lease", "no room"), Fault.LOST),), ("gather",), workers=1),
    ("wait", "scheduled"): Scene(((("lease", "no room"), Fault.LOST),), ("await",), _LATER),
    ("wait", "unknown"): Scene(
        ((("renew", "alive"), Fault.PAUSE_AFTER), (("turn", "reaped"), Fault.ERROR)),
        workers=2,
        who="client",
        pause=_LONG,
    ),
}

#: Cells that are met only by chance, and why that is enough.
LEFT_OUT: dict[Cell, str] = {
    ("close session", "holding"): "a body that goes on for five seconds after it was asked to stop",
    ("settle cancel", "leased"): "a cancellation that is of the body's own making",
    ("settle cancel", "lost"): "the row that was asked to cancel ends when its session is reaped",
    ("get", "waiting"): "nobody but a person looks at a callback before its time",
    ("wait", "waiting"): "nobody awaits a callback",
    ("cancel", "unknown"): "a task asks to cancel only what is stored",
    ("cancel", "waiting"): "a callback is cancelled by hand only",
    ("get", "unknown"): "nothing is looked for that is not known to be stored",
}

#: What cannot happen: a client is not asked to end in the simulation; its requests are its own.
_CLIENTS = ("add", "add with callback", "add keyed (join)", "add keyed (raise)", "add keyed (replace)")


def reachable(cell: Cell, fault: Fault) -> bool:
    """Whether a cell can be met with a fault."""
    if fault is not Fault.DRAIN:
        return True
    # Who drains already is not asked to; a client has no worker to drain.
    ending = ("serve (end)", "close session")
    return cell[0] not in (*_CLIENTS, *ending)


#: How often each cell is aimed at: what is hard to come by more often (measured; see `python -m tests.sim`).
WEIGHTS: dict[Cell, float] = {}
_CELLS = list(CELLS)
_SHARES = [WEIGHTS.get(cell, 1.0) for cell in _CELLS]


def draw(rng: Random) -> tuple[Cell, list[tuple[Cell, list[Fault]]], Scene]:
    """Return the cell that a schedule aims at, the faults there and on the way, and what helps to get there."""
    cell = rng.choices(_CELLS, _SHARES)[0]
    scene = CELLS[cell]
    # What leads there comes first, also where it happens at the same cell.
    return cell, [*((other, [fault]) for other, fault in scene.before), (cell, _faults(rng, cell))], scene


def _faults(rng: Random, cell: Cell) -> list[Fault]:
    """Return what happens at a cell: often something after which the process goes on, and then a harder blow."""
    return [
        *rng.sample(SOFT, rng.choice((0, 0, 1, 2, 3))),
        rng.choice([fault for fault in HARD if reachable(cell, fault)]),
    ]
