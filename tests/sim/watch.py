"""What is looked at before and after each request: the invariants of the store and of who holds what."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from everloop._core.calls import Event
from everloop._core.policy import SUSPECT
from everloop._core.records import Turn, TurnAnswer
from everloop.store.memory_rows import Row, Tables
from tests.sim.ledger import Ledger, Run
from tests.sim.loop import Clockwork

if TYPE_CHECKING:
    from tests.sim.nodes import Node

#: Verbs that change no call.
_HARMLESS = frozenset(("open", "renew", "tend", "serve", "serving", "get"))
#: Seconds after a disturbance in which a session may still be lost for it.
EXCUSED = 5.0


class Violated(AssertionError):
    """An invariant does not hold."""


class Watch:
    """Judges a schedule while it runs."""

    def __init__(self, tables: Tables, clockwork: Clockwork, now: Callable[[], int]) -> None:
        self.ledger = Ledger()
        self.sometimes: Counter[str] = Counter()
        self.gone: set[int] = set()  # sessions that were reaped or closed
        self.settled: dict[tuple[str, int], Event] = {}
        self.trace: deque[str] = deque(maxlen=4_000)
        self.violation = ""  # the first, if there is any
        self.on_quiet: Callable[[], None] = lambda: None  # called when no call is live any more
        self._tables = tables
        self._clockwork = clockwork
        self._now = now
        self._owners: dict[int, Node] = {}
        self._fences: dict[str, int] = {}
        self._ends: dict[str, tuple[object, ...]] = {}
        self._outage_until = -1e9
        self._sessions: tuple[int, ...] = ()

    def note(self, line: str) -> None:
        self.trace.append(f"{self._clockwork.now:9.4f} {line}")

    def outage(self, until: float) -> None:
        self._outage_until = until
        self.sometimes["the store was away"] += 1

    def fail(self, what: str) -> None:
        """Say that an invariant does not hold."""
        self.note(f"VIOLATED: {what}")
        self.violation = self.violation or f"at {self._clockwork.now:.4f} s: {what}"
        self._clockwork.over = True  # also where somebody catches what is raised here
        raise Violated(self.violation)

    # -- around each request ---------------------------------------------------------------------------------

    def before(self, verb: str, args: Sequence[Any]) -> None:
        """Look at what a request may take from others."""
        if verb == "turn":
            self._before_turn(args[0], args[1])
            return
        self._sessions = tuple(self._tables.sessions)
        if verb == "reap" and args[0]:
            self._before_reap()
        elif verb == "cancel":
            self.ledger.cancelled.update(args[0])

    def _before_turn(self, session: int, turn: Turn) -> None:
        if turn.holding is None:
            return
        ending = {(outcome.id, outcome.fence) for outcome in turn.outcomes}
        for row in self._tables.held(session):
            lease = (row.id, row.fence)
            if row.id in turn.holding or lease in ending:
                continue
            self.sometimes["leases of a lost answer were given back"] += 1
            if self.ledger.run(*lease) is not None:
                self.fail(f"session {session} gives back {row.id} at {row.fence}, which has begun to run")

    def _before_reap(self) -> None:
        now = self._now()
        for number, there in self._tables.sessions.items():
            if there.until > now:
                continue
            self._excuse(number)
            for row in self._tables.held(number):
                run = self.ledger.run(row.id, row.fence)
                if run is not None and not run.how and not self._owners[number].dead:
                    self.sometimes["a lease expired while its body ran"] += 1
                if row.cancel_asked is not None:
                    self.sometimes["a call died that was asked to cancel"] += 1
                if row.crashes >= row.new.crash_limit:
                    self.sometimes["a call crashed once too often"] += 1

    def _excuse(self, session: int) -> None:
        """See to it that only who was away is taken for dead."""
        node = self._owners[session]
        if session not in node.sessions:
            return  # the answer with its number was lost: nobody knows of it
        if node.main_task is not None and node.main_task.done():
            return  # the store was away when it ended
        recent = self._clockwork.now - EXCUSED
        if not (node.dead or node.disturbed > recent or self._outage_until > recent):
            self.fail(f"session {session} of {node.name} is reaped, and nothing has happened to it")

    def after(self, node: Node, verb: str, args: Sequence[Any], value: Any) -> None:
        """Look at what a request has changed."""
        if verb in _HARMLESS:
            return
        if verb == "turn":
            self._after_turn(args[0], args[1], value)
        elif verb == "open_session":
            self._owners[value] = node
        elif verb == "cancel" and any(answer.lost for answer in value):
            self.sometimes["a worker that had lost a parent was not let cancel its child"] += 1
        if verb in ("reap", "close_session"):
            self.gone.update(set(self._sessions) - set(self._tables.sessions))
        if verb in ("add", "turn"):
            self._judge_keys()
        self._judge_rows()

    def _after_turn(self, session: int, turn: Turn, answer: TurnAnswer) -> None:
        for outcome, settled in zip(turn.outcomes, answer.settled, strict=True):
            if settled:
                self.settled[outcome.id, outcome.fence] = outcome.event
                continue
            self.sometimes["a late outcome was refused"] += 1
            if session in self.gone:
                self.sometimes["an outcome of a session that was reaped was refused"] += 1
        for leased in answer.leased:
            if leased.crashes >= SUSPECT:
                self.sometimes["a suspect was leased"] += 1

    # -- what is always true ---------------------------------------------------------------------------------

    def _judge_rows(self) -> None:
        fences, live = self._fences, self._tables.live
        for id_, row in live.items():
            if row.fence != fences.get(id_):
                if row.fence < fences.get(id_, 0):
                    self.fail(f"the fence of {id_} shrinks from {fences[id_]} to {row.fence}")
                fences[id_] = row.fence
        if len(self._ends) + len(live) != len(self._tables.rows):
            for id_, row in self._tables.rows.items():
                if id_ not in live and id_ not in self._ends:
                    self._ends[id_] = _end(row)
                    if not row.state.final:
                        self.fail(f"{id_} is {row.state} and not live")
            if not live:
                self.on_quiet()

    def _judge_keys(self) -> None:
        for key, rows in self._tables.keyed.items():
            live = [row.id for row in rows if not row.state.final and row.cancel_asked is None]
            if len(live) > 1:
                self.fail(f"{len(live)} live calls have the key {key}: {live}")

    def judge_ends(self) -> None:
        """See to it that nothing final has changed."""
        for id_, end in self._ends.items():
            row = self._tables.rows.get(id_)
            if row is None or _end(row) != end:
                self.fail(f"undone: the ended call {id_} has changed from {end} to {row and _end(row)}")

    # -- bodies ----------------------------------------------------------------------------------------------

    def begins(self, node: Node, run: Run, given: float) -> None:
        """A body begins: nobody else may run it, or have run it to its end.

        Only a process that has stood still since it took up the lease, at `given`, may be late, or one whose
        loop another body has blocked: what it does is void. One that stood still before that, while the
        answer was on its way, has to notice.
        """
        row = self._tables.rows[run.id]
        known = self.ledger.runs.get(run.id, [])
        if any(other.fence == run.fence for other in known):
            self.fail(f"{run.name} {run.id} begins again at {run.fence}")
        earlier = [other for other in known if other.fence < run.fence]
        if row.fence != run.fence:
            if node.stopped < given:
                self.fail(f"{run.name} begins at {run.fence} on {node.name}; its fence is {row.fence}")
            self.sometimes["a body began whose lease was lost already"] += 1
        run.session = row.session if row.fence == run.fence else None
        for other in earlier:
            self._judge_again(other, run)
        if earlier:
            self.sometimes["a call ran again"] += 1
        self.ledger.begin(run)

    def _judge_again(self, earlier: Run, later: Run) -> None:
        event = self.settled.get((earlier.id, earlier.fence))
        if event in (Event.RETRY, Event.RELEASE):
            return
        if event is not None:
            self.fail(f"{later.name} runs again at {later.fence} after {event} at {earlier.fence}")
        if earlier.session is not None and earlier.session not in self.gone:
            self.fail(
                f"{later.name} runs at {later.fence} on {later.node}, and its run at {earlier.fence} on "
                f"{earlier.node} ({earlier.how or 'running'}) is that of a living session"
            )


def _end(row: Row) -> tuple[object, ...]:
    return row.state, row.value, row.error, row.ended, row.attempt, row.fence
