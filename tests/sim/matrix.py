"""Which cells of (verb, state before, fault) there are, and how a schedule comes to meet a rare one."""

from __future__ import annotations

from collections.abc import Iterator
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
        script: What the first root does: its operations, in which children have no names yet.
        options: Options that the roots have.
        errand: What clients do.
        key: What becomes of a second root with the key of the first.
        workers: How many there are, if that matters.
        who: The kind of process to which all of it happens, if that matters.
        pause: For how long a process stands still, in leases.
        drains: Whether a process that stands still is asked to end meanwhile.
    """

    before: tuple[Aim, ...] = ()
    script: tuple[list[Any], ...] = ()
    options: tuple[tuple[str, object], ...] = ()
    errand: str = ""
    key: str = ""
    workers: int = 0
    who: str = ""
    pause: tuple[float, float] = (1.05, 2.5)
    drains: bool = False


_LEASE: Cell = ("lease", "ready")
_AWAY: tuple[Aim, ...] = ((_LEASE, Fault.PAUSE_AFTER),)
_IDLE_AWAY: tuple[Aim, ...] = ((("lease", "nothing ready"), Fault.PAUSE_AFTER),)
_KILLED: tuple[Aim, ...] = ((_LEASE, Fault.CRASH_AFTER), (("lease", "again"), Fault.CRASH_AFTER))
_RETRY = (("retries", 2),)
_LATER = (("delay", 1.0),)
#: A process that stands still for little longer than its lease is not reaped yet; for much longer, it is.
_SHORT, LONG = (1.02, 1.2), (1.8, 2.5)
#: Without a renewal in between, a session stays as it is.
_OVERDUE: Aim = (("renew", "overdue"), Fault.ERROR)
_REAPED: Aim = (("renew", "reaped"), Fault.ERROR)


def _child(*operations: list[Any], **options: Any) -> list[Any]:
    return ["child", list(operations), options]


def _again(cell: Cell, **scene: Any) -> Scene:
    """Return a scene in which the answer to `cell` is lost, so that it is said again."""
    return Scene(((cell, Fault.LOST),), **scene)


def _stale(*script: list[Any], workers: int, **scene: Any) -> Scene:
    """Return a scene in which a body goes on whose lease went to another while its process stood still."""
    return Scene(script=(["stand still"], *script), workers=workers, pause=LONG, **scene)


def _cancelled(*operations: list[Any], **options: Any) -> Scene:
    """Return a scene in which a call is cancelled by its parent while it does this."""
    return Scene(script=(["cancel", 0.2, _child(*operations, **options)],))


#: Every cell, and what leads there; what is met often anyhow needs nothing.
CELLS: dict[Cell, Scene] = {
    ("add", "absent"): Scene(),
    ("add", "there"): _again(("add", "absent"), errand="submit"),
    ("add child", "absent"): Scene(script=(["await", _child()],)),
    ("add child", "earlier child lives"): Scene(
        script=(["start", _child(["sleep", 1.0])], ["fail", 1]), options=_RETRY
    ),
    ("add child", "earlier child lost"): Scene(
        script=(["gather", True, [_child(["fail", 9])]], ["fail", 1]), options=_RETRY
    ),
    ("add child", "earlier child succeeded"): Scene(
        script=(["await", _child()], ["fail", 1]), options=_RETRY
    ),
    ("add child", "parent lost"): _stale(["await", _child()], workers=1),
    ("add child", "there"): _again(("add child", "absent"), script=(["await", _child()],)),
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
    ("cancel", "ended"): Scene(
        ((("cancel", "leased"), Fault.LOST),), script=(["cancel", 0.2, _child(["sleep", 1.0])],)
    ),
    ("cancel", "leased"): _cancelled(["sleep", 1.0]),
    ("cancel", "ready"): Scene(script=(["block", 0.5],), errand="cancel", workers=1),
    ("cancel", "scheduled"): Scene(options=_LATER, errand="cancel"),
    ("close session", "alive"): Scene(),
    ("close session", "overdue"): Scene(
        ((("serve (end)", "alive"), Fault.PAUSE_AFTER), _OVERDUE), pause=_SHORT, workers=1
    ),
    ("close session", "reaped"): Scene(
        (*_IDLE_AWAY, _REAPED), workers=2, pause=LONG, drains=True, who="worker"
    ),
    ("expire", "late"): Scene(options=(("expires", 0.2), ("delay", 1.0))),
    ("get", "ended"): Scene(options=(("on_done", 2),)),
    ("get", "leased"): Scene(script=(["sleep", 3.0],), errand="cancel"),
    ("get", "nothing"): _again(("lease", "nothing ready")),
    ("get", "ready"): Scene(script=(["block", 0.5],), errand="cancel", workers=1),
    ("get", "scheduled"): Scene(options=_LATER, errand="cancel"),
    ("holding", "more"): _again(_LEASE),
    ("holding", "nothing more"): Scene(),
    ("inbox", "cancels"): _cancelled(["sleep", 1.0]),
    ("inbox", "ends"): Scene(script=(["await", _child()], ["await", _child(["sleep", 0.2])])),
    ("lease", "again"): Scene(),
    ("lease", "no room"): Scene(script=(["gather", True, [_child(), _child(["sleep", 0.2])]],)),
    ("lease", "nothing ready"): Scene(),
    ("lease", "ready"): Scene(),
    ("lease", "suspect"): Scene(_KILLED, script=(["sleep", 0.2],)),
    ("open", "-"): Scene(),
    ("open session", "again"): Scene(_AWAY, workers=2, pause=LONG),
    ("open session", "first"): Scene(),
    ("progress", "-"): Scene(script=(["progress"], ["sleep", 0.2], ["progress"])),
    ("reap", "a session without leases"): Scene(
        ((("lease", "nothing ready"), Fault.CRASH_AFTER),), script=(["sleep", 3.0],)
    ),
    ("reap", "cancel asked"): Scene(
        ((("inbox", "cancels"), Fault.CRASH_AFTER),), script=(["cancel", 0.2, _child(["sleep", 1.0])],)
    ),
    ("reap", "last crash"): Scene(((_LEASE, Fault.CRASH_AFTER),), options=(("crashes", 0),)),
    ("reap", "leased"): Scene(((_LEASE, Fault.CRASH_AFTER),)),
    ("reap", "may not judge"): Scene(),
    ("reap", "nobody"): Scene(script=(["sleep", 3.0], ["sleep", 3.0])),
    ("renew", "alive"): Scene(),
    ("renew", "overdue"): Scene(_IDLE_AWAY, workers=1, pause=_SHORT, who="worker"),
    ("renew", "reaped"): Scene(_IDLE_AWAY, workers=2, pause=LONG, who="worker"),
    ("serve (begin)", "alive"): Scene(),
    ("serve (begin)", "overdue"): Scene(
        ((("open session", "first"), Fault.PAUSE_AFTER), _OVERDUE), workers=1, pause=_SHORT, who="worker"
    ),
    ("serve (begin)", "reaped"): Scene(
        ((("open session", "first"), Fault.PAUSE_AFTER), _REAPED), workers=2, pause=LONG, who="worker"
    ),
    ("serve (end)", "alive"): Scene(((_LEASE, Fault.DRAIN),)),
    ("serve (end)", "overdue"): Scene(
        (*_IDLE_AWAY, _OVERDUE), workers=1, pause=_SHORT, drains=True, who="worker"
    ),
    ("serve (end)", "reaped"): Scene(
        (*_IDLE_AWAY, _REAPED), workers=2, pause=LONG, drains=True, who="worker"
    ),
    ("serving", "-"): Scene(script=(["sleep", 3.0], ["sleep", 3.0])),
    ("settle cancel", "cancel asked"): _cancelled(["sleep", 1.0]),
    ("settle cancel", "ended"): Scene(
        ((("inbox", "cancels"), Fault.PAUSE_AFTER),),
        script=(["sleep", 3.0],),
        errand="cancel late",
        workers=1,
        pause=LONG,
    ),
    ("settle fail", "cancel asked"): _cancelled(["sour", 1.0]),
    ("settle fail", "ended"): _stale(["fail", 9], workers=2),
    ("settle fail", "leased"): Scene(script=(["fail", 9],)),
    ("settle fail", "lost"): _stale(["fail", 9], workers=1),
    ("settle release", "cancel asked"): _cancelled(["later", 1.0]),
    ("settle release", "ended"): _stale(["snooze", 1, 0.2], workers=2),
    ("settle release", "leased"): Scene(script=(["snooze", 1, 0.2],)),
    ("settle release", "lost"): _stale(["snooze", 1, 0.2], workers=1),
    ("settle retry", "cancel asked"): _cancelled(["sour", 1.0], retries=2),
    ("settle retry", "ended"): _stale(["fail", 1], workers=2, options=_RETRY),
    ("settle retry", "leased"): Scene(script=(["fail", 2],), options=_RETRY),
    ("settle retry", "lost"): _stale(["fail", 1], workers=1, options=_RETRY),
    ("settle succeed", "cancel asked"): _cancelled(["stubborn", 1.0]),
    ("settle succeed", "ended"): _stale(["progress"], workers=2),
    ("settle succeed", "leased"): Scene(),
    ("settle succeed", "lost"): _stale(["progress"], workers=1),
    ("tend", "-"): Scene(),
    ("turn", "reaped"): _stale(workers=2),
    ("wait", "ended"): _again(("inbox", "ends")),
    ("wait", "leased"): _again(("lease", "no room"), script=(["await", _child(["sleep", 1.0])],)),
    ("wait", "ready"): _again(
        ("add child", "absent"),
        workers=1,
        script=(["gather", True, [_child(["block", 0.1]) for _ in range(5)]],),
    ),
    ("wait", "scheduled"): _again(("add child", "absent"), script=(["await", _child(delay=1.0)],)),
    ("wait", "unknown"): Scene(
        ((("add", "absent"), Fault.PAUSE_AFTER), (("turn", "reaped"), Fault.ERROR)),
        workers=2,
        who="client",
        pause=LONG,
        errand="submit later",
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

_CLIENTS = ("add", "add with callback", "add keyed (join)", "add keyed (raise)", "add keyed (replace)")
_OF_CLIENTS = (
    *(("get", state) for state in ("ready", "scheduled", "leased")),
    *(("cancel", state) for state in ("ready", "scheduled")),
    ("serving", "-"),
    ("wait", "unknown"),
)
_ENDING = ("serve (end)", "close session")


def _why_no_drain(cell: Cell) -> str:
    """Say why who makes these requests is never asked to end with them; nothing where it can be."""
    if cell[0] in _ENDING:
        return "who ends already is not asked to"
    if cell[0] in _CLIENTS or cell in _OF_CLIENTS:
        return "a client makes it, which has no worker to drain"
    return ""


def reachable(cell: Cell, fault: Fault) -> bool:
    """Whether a cell can be met with a fault."""
    return fault is not Fault.DRAIN or not _why_no_drain(cell)


def unreachable() -> Iterator[tuple[tuple[str, str, str], str]]:
    """Give what cannot be met, and why."""
    for cell in CELLS:
        if not reachable(cell, Fault.DRAIN):
            yield (*cell, str(Fault.DRAIN)), _why_no_drain(cell)


#: How often each cell is aimed at: what is hard to come by, more often. Measured.
WEIGHTS: dict[Cell, float] = {
    ("add", "absent"): 0.23,
    ("add", "there"): 0.75,
    ("add child", "absent"): 0.24,
    ("add child", "earlier child lives"): 1.05,
    ("add child", "earlier child lost"): 1.46,
    ("add child", "earlier child succeeded"): 0.68,
    ("add child", "parent lost"): 1.06,
    ("add child", "there"): 0.94,
    ("add keyed (join)", "absent"): 0.73,
    ("add keyed (join)", "key held"): 0.85,
    ("add keyed (join)", "there"): 0.83,
    ("add keyed (raise)", "absent"): 0.7,
    ("add keyed (raise)", "key held"): 0.86,
    ("add keyed (raise)", "there"): 0.81,
    ("add keyed (replace)", "absent"): 0.5,
    ("add keyed (replace)", "key held"): 1.37,
    ("add keyed (replace)", "there"): 0.8,
    ("add with callback", "absent"): 0.45,
    ("add with callback", "there"): 0.67,
    ("cancel", "ended"): 1.37,
    ("cancel", "leased"): 0.44,
    ("cancel", "ready"): 2.59,
    ("cancel", "scheduled"): 1.39,
    ("close session", "alive"): 0.26,
    ("close session", "overdue"): 2.25,
    ("close session", "reaped"): 1.74,
    ("expire", "late"): 0.72,
    ("get", "ended"): 0.3,
    ("get", "leased"): 0.77,
    ("get", "nothing"): 1.15,
    ("get", "ready"): 2.27,
    ("get", "scheduled"): 0.94,
    ("holding", "more"): 0.32,
    ("holding", "nothing more"): 0.15,
    ("inbox", "cancels"): 0.36,
    ("inbox", "ends"): 0.28,
    ("lease", "again"): 0.15,
    ("lease", "no room"): 0.22,
    ("lease", "nothing ready"): 0.15,
    ("lease", "ready"): 0.15,
    ("lease", "suspect"): 1.08,
    ("open", "-"): 0.15,
    ("open session", "again"): 1.11,
    ("open session", "first"): 0.15,
    ("progress", "-"): 0.28,
    ("reap", "a session without leases"): 0.61,
    ("reap", "cancel asked"): 0.78,
    ("reap", "last crash"): 1.84,
    ("reap", "leased"): 0.46,
    ("reap", "may not judge"): 0.17,
    ("reap", "nobody"): 0.53,
    ("renew", "alive"): 0.15,
    ("renew", "overdue"): 1.21,
    ("renew", "reaped"): 1.42,
    ("serve (begin)", "alive"): 0.23,
    ("serve (begin)", "overdue"): 4.8,
    ("serve (begin)", "reaped"): 2.72,
    ("serve (end)", "alive"): 0.26,
    ("serve (end)", "overdue"): 3.39,
    ("serve (end)", "reaped"): 2.35,
    ("serving", "-"): 0.82,
    ("settle cancel", "cancel asked"): 0.74,
    ("settle cancel", "ended"): 1.59,
    ("settle fail", "cancel asked"): 0.81,
    ("settle fail", "ended"): 1.12,
    ("settle fail", "leased"): 0.76,
    ("settle fail", "lost"): 2.66,
    ("settle release", "cancel asked"): 0.9,
    ("settle release", "ended"): 2.83,
    ("settle release", "leased"): 0.66,
    ("settle release", "lost"): 2.34,
    ("settle retry", "cancel asked"): 1.02,
    ("settle retry", "ended"): 1.11,
    ("settle retry", "leased"): 0.56,
    ("settle retry", "lost"): 1.36,
    ("settle succeed", "cancel asked"): 0.85,
    ("settle succeed", "ended"): 1.48,
    ("settle succeed", "leased"): 0.15,
    ("settle succeed", "lost"): 1.18,
    ("tend", "-"): 0.22,
    ("turn", "reaped"): 0.2,
    ("wait", "ended"): 0.44,
    ("wait", "leased"): 0.96,
    ("wait", "ready"): 1.3,
    ("wait", "scheduled"): 1.28,
    ("wait", "unknown"): 2.61,
}
_CELLS = list(CELLS)
_SHARES = [WEIGHTS[cell] for cell in _CELLS]


def draw(rng: Random, aim: Cell | None) -> tuple[Cell, list[tuple[Cell, list[Fault]]], Scene]:
    """Return the cell that a schedule aims at, the faults there and on the way, and what leads there."""
    cell = aim or rng.choices(_CELLS, _SHARES)[0]
    scene = CELLS[cell]
    # What leads there comes first, also where it happens at the same cell.
    return cell, [*((other, [fault]) for other, fault in scene.before), (cell, _faults(rng, cell))], scene


def _faults(rng: Random, cell: Cell) -> list[Fault]:
    """Return what happens at a cell: half the time what a process goes on after, and then harder blows."""
    kinds = [kind for kind in HARD if reachable(cell, kind[0])]
    hard = [rng.choice(kind) for kind in rng.sample(kinds, min(3, len(kinds)))]
    return [*rng.sample(SOFT, rng.randint(1, 4)), *hard] if rng.random() < 0.5 else hard
