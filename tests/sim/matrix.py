"""Which cells of (verb, state before, fault) there are, and how a schedule comes to meet a rare one."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.sim.faults import Cell, Fault

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
    """

    before: tuple[Aim, ...] = ()
    kinds: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()
    errand: str = ""
    key: str = ""
    workers: int = 0


_LEASE: Cell = ("lease", "ready")
_AWAY: tuple[Aim, ...] = ((_LEASE, Fault.PAUSE_AFTER),)
_KILLED: tuple[Aim, ...] = ((_LEASE, Fault.CRASH_AFTER), (("lease", "again"), Fault.CRASH_AFTER))
_TWICE: tuple[Aim, ...] = ((("add", "absent"), Fault.LOST),)
_RETRY = (("retries", 2),)

#: Cells that are met often, whatever a schedule does.
COMMON: tuple[Cell, ...] = (
    ("add", "absent"),
    ("add child", "absent"),
    ("add with callback", "absent"),
    ("cancel", "leased"),
    ("close session", "alive"),
    ("get", "ended"),
    ("get", "leased"),
    ("holding", "nothing more"),
    ("inbox", "cancels"),
    ("inbox", "ends"),
    ("lease", "again"),
    ("lease", "no room"),
    ("lease", "nothing ready"),
    ("lease", "ready"),
    ("open", "-"),
    ("open session (client)", "-"),
    ("progress", "-"),
    ("reap", "may not judge"),
    ("reap", "nobody"),
    ("renew", "alive"),
    ("serve (begin)", "alive"),
    ("serve (end)", "alive"),
    ("serving", "-"),
    ("settle cancel", "cancel asked"),
    ("settle fail", "leased"),
    ("settle release", "leased"),
    ("settle retry", "leased"),
    ("settle succeed", "cancel asked"),
    ("settle succeed", "leased"),
    ("tend", "-"),
)

#: Cells that a schedule has to be made for.
RARE: dict[Cell, Scene] = {
    ("add", "there"): Scene(_TWICE, errand="submit"),
    ("add child", "earlier child lives"): Scene(((_LEASE, Fault.DRAIN),), ("await", "gather", "start")),
    ("add child", "earlier child lost"): Scene(kinds=("await", "fail"), options=_RETRY),
    ("add child", "earlier child succeeded"): Scene(kinds=("await", "fail"), options=_RETRY),
    ("add child", "parent lost"): Scene(_AWAY, ("await", "gather"), workers=2),
    ("add child", "there"): Scene(((("add child", "absent"), Fault.LOST),), ("await", "gather")),
    ("add keyed (join)", "absent"): Scene(key="join"),
    ("add keyed (join)", "key held"): Scene(key="join"),
    ("add keyed (join)", "there"): Scene(((("add keyed (join)", "absent"), Fault.LOST),), key="join"),
    ("add keyed (raise)", "absent"): Scene(key="raise"),
    ("add keyed (raise)", "key held"): Scene(key="raise"),
    ("add keyed (raise)", "there"): Scene(((("add keyed (raise)", "absent"), Fault.LOST),), key="raise"),
    ("add keyed (replace)", "absent"): Scene(key="replace"),
    ("add keyed (replace)", "key held"): Scene(key="replace"),
    ("add keyed (replace)", "there"): Scene(
        ((("add keyed (replace)", "absent"), Fault.LOST),), key="replace"
    ),
    ("add with callback", "there"): Scene(
        ((("add with callback", "absent"), Fault.LOST),), options=(("on_done", 1),), errand="submit"
    ),
    ("cancel", "ended"): Scene(kinds=("cancel", "wait_for"), errand="cancel late"),
    ("cancel", "ready"): Scene(kinds=("cancel", "wait_for"), errand="cancel"),
    ("cancel", "scheduled"): Scene(options=(("delay", 1.0),), errand="cancel"),
    ("close session", "overdue"): Scene(((("serve (end)", "alive"), Fault.PAUSE_AFTER),)),
    ("close session", "reaped"): Scene(((("serve (end)", "alive"), Fault.PAUSE_AFTER),), workers=3),
    ("expire", "late"): Scene(options=(("expires", 0.2), ("delay", 0.1)), kinds=("block", "gather")),
    ("get", "nothing"): Scene(((("lease", "nothing ready"), Fault.LOST),)),
    ("get", "ready"): Scene(errand="cancel"),
    ("get", "scheduled"): Scene(options=(("delay", 1.0),), errand="cancel"),
    ("holding", "more"): Scene(((_LEASE, Fault.LOST),)),
    ("lease", "suspect"): Scene(_KILLED, ("sleep",)),
    ("open session (worker)", "-"): Scene(_AWAY, workers=2),
    ("reap", "a session without leases"): Scene(((("lease", "nothing ready"), Fault.CRASH_AFTER),)),
    ("reap", "cancel asked"): Scene(((("inbox", "cancels"), Fault.CRASH_AFTER),), ("cancel", "wait_for")),
    ("reap", "last crash"): Scene(((_LEASE, Fault.CRASH_AFTER),), options=(("crashes", 0),)),
    ("reap", "leased"): Scene(((_LEASE, Fault.CRASH_AFTER),)),
    ("renew", "overdue"): Scene(((("renew", "alive"), Fault.PAUSE_AFTER),), workers=1),
    ("renew", "reaped"): Scene(((("renew", "alive"), Fault.PAUSE_AFTER),), workers=3),
    ("serve (begin)", "overdue"): Scene(((("open session (client)", "-"), Fault.PAUSE_AFTER),), workers=1),
    ("serve (begin)", "reaped"): Scene(((("open session (client)", "-"), Fault.PAUSE_AFTER),), workers=3),
    ("serve (end)", "overdue"): Scene(((("lease", "nothing ready"), Fault.PAUSE_AFTER),), workers=1),
    ("serve (end)", "reaped"): Scene(((("lease", "nothing ready"), Fault.PAUSE_AFTER),), workers=3),
    ("settle cancel", "ended"): Scene(((("inbox", "cancels"), Fault.PAUSE_AFTER),), ("cancel", "wait_for")),
    ("settle fail", "cancel asked"): Scene(kinds=("sour",), errand="cancel"),
    ("settle fail", "ended"): Scene(_AWAY, ("fail",), workers=2),
    ("settle fail", "lost"): Scene(_AWAY, ("fail",), workers=2),
    ("settle release", "cancel asked"): Scene(kinds=("snooze", "sleep"), errand="cancel"),
    ("settle release", "ended"): Scene(_AWAY, ("snooze",), workers=2),
    ("settle release", "lost"): Scene(_AWAY, ("snooze",), workers=2),
    ("settle retry", "cancel asked"): Scene(kinds=("sour",), options=_RETRY, errand="cancel"),
    ("settle retry", "ended"): Scene(_AWAY, ("fail",), _RETRY, workers=2),
    ("settle retry", "lost"): Scene(_AWAY, ("fail",), _RETRY, workers=2),
    ("settle succeed", "ended"): Scene(_AWAY, workers=2),
    ("settle succeed", "lost"): Scene(_AWAY, workers=2),
    ("turn", "reaped"): Scene(_AWAY, workers=2),
    ("wait", "ended"): Scene(((("inbox", "ends"), Fault.LOST),)),
    ("wait", "leased"): Scene(((("lease", "no room"), Fault.LOST),), ("await",)),
    ("wait", "ready"): Scene(((("lease", "no room"), Fault.LOST),), ("gather",)),
    ("wait", "scheduled"): Scene(((("lease", "no room"), Fault.LOST),), ("await",), (("delay", 1.0),)),
    ("wait", "unknown"): Scene(((("renew", "alive"), Fault.PAUSE_AFTER),), ("await",), workers=2),
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
    ("renew", "-"): "",
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


AIMS: list[Aim] = [(cell, fault) for cell in RARE for fault in Fault if reachable(cell, fault)]
COMMON_AIMS: list[Aim] = [(cell, fault) for cell in COMMON for fault in Fault if reachable(cell, fault)]


def draw(rng: Random) -> tuple[list[Aim], Scene]:
    """Return what a schedule aims at, and what helps to get there."""
    aims = rng.choices(COMMON_AIMS, k=2)
    if rng.random() < 0.25:
        return aims, Scene()
    main = rng.choice(AIMS)
    return [main, *aims[:1]], RARE[main[0]]
