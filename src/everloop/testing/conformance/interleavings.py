"""Interleavings: a verb that fails at any of its statements, and another one before it comes again.

Writers of one database do not run inside each other, but a verb may fail between any two of its
statements, and its caller makes it again after others have had their turn. Of a failed run nothing may
remain; and when only its answer was lost, the repetition must find that it has happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from everloop._core.calls import Event
from everloop._core.clock import Clock, ManualClock
from everloop._core.records import KeyRule, Lane, NewCall, Outcome, Parent, Progress, Turn
from everloop.store.protocol import Store
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.scene import MINUTE, SECOND, uuid
from everloop.testing.conformance.side_by_side import SideBySide

#: Called with a statement's name and number before it, with "COMMIT" before and with "COMMITTED" after
#: each commit; when it raises, the verb fails there.
Fault = Callable[[str, int], None]
#: Makes a fresh, unopened store that calls the fault.
FaultyFactory = Callable[[Clock, Fault], Store]


class Struck(Exception):
    """The failure that is made to happen."""


class Striker:
    """Counts the places where a verb can fail, and fails at one of them."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self._at: int | None = None

    def __call__(self, statement: str, _number: int) -> None:
        self.places.append(statement)
        if self._at == len(self.places) - 1:
            raise Struck(statement)

    def arm(self, at: int | None) -> None:
        """Count anew, and strike at this place."""
        self.places, self._at = [], at


class Ask(NamedTuple):
    """A request as data: a verb of the store and its arguments."""

    verb: str
    args: tuple[Any, ...]

    def of(self, asked: Any) -> Awaitable[Any]:
        """Ask a store, or a store and the oracle side by side."""
        answer: Awaitable[Any] = getattr(asked, self.verb)(*self.args)
        return answer


class Stage:
    """A little of everything, and requests that want something of the same calls.

    `parent` is in its second run, with one child that waits, one that runs and one that succeeded.
    `lost` is held by a session whose time is over. `keyed` has a key and a callback. `late` has expired
    and `due` has become due, but no turn has seen it yet.
    """

    def __init__(self, both: SideBySide) -> None:
        self.both = both
        self._labels = ("parent", "succeeded", "running", "waiting", "lost", "keyed", "late", "due")
        self._ids: dict[str, str] = {}

    def _id(self, label: str) -> str:
        return self._ids.setdefault(label, uuid(len(self._ids) + 1))

    def _lane(self, label: str) -> Lane:
        return Lane("a", "p", label)

    def _call(self, label: str, **rest: Any) -> NewCall:
        lane = self._lane(label.rpartition(" ")[2])
        fields: dict[str, Any] = {"id": self._id(label), "lane": lane, "args": b"j", **rest}
        return NewCall(**fields)

    def _child(self, label: str, fence: int, **rest: Any) -> NewCall:
        parent = Parent(self._id("parent"), fence)
        return self._call(label, parent=parent, owned=True, child_key=label.rpartition(" ")[2], **rest)

    async def _take(self, session: int, *labels: str) -> None:
        for label in labels:
            await self.both.turn(session, Turn(room=1, lanes=(self._lane(label),)))

    async def set(self) -> dict[str, Ask]:
        """Set the stage, and return the requests."""
        both = self.both
        worker, other, client = [await both.open_session(MINUTE) for _ in range(3)]
        await both.add(client, [self._call("parent")])
        await self._take(worker, "parent")
        await both.add(worker, [self._child(label, 1) for label in ("succeeded", "running", "waiting")])
        await self._take(other, "succeeded", "running")
        await both.turn(other, Turn(outcomes=[Outcome(self._id("succeeded"), 1, Event.SUCCEED, b"jvalue")]))
        await both.turn(worker, Turn(holding=()))
        await self._take(worker, "parent")
        dying = await both.open_session(SECOND)
        keyed = self._call("keyed", key=KeyRule("k"), callbacks=(self._call("after keyed"),))
        lost = self._call("lost", crash_limit=0, callbacks=(self._call("after lost"),))
        await both.add(client, [keyed, lost])
        await self._take(dying, "lost")
        await both.add(client, [self._call("late", expires=SECOND), self._call("due", delay=SECOND)])
        both.clock.advance(1)
        await both.look()
        return self._requests(worker, other, client)

    def _requests(self, worker: int, other: int, client: int) -> dict[str, Ask]:
        parent, running, keyed = self._id("parent"), self._id("running"), self._id("keyed")
        key = KeyRule("k", on_conflict="replace")
        everything = tuple(self._lane(label) for label in self._labels)
        progress = [Progress(parent, 3, 1.0, 2.0, "half")]
        new = [self._call("new late"), self._call("new due", delay=SECOND)]
        again = [
            self._child("again waiting", 3),
            self._child("again succeeded", 3),
            self._child("new lost", 3),
        ]
        return {
            "end the parent": Ask(
                "turn", (worker, Turn(outcomes=[Outcome(parent, 3, Event.SUCCEED, b"jv")]))
            ),
            "retry the parent": Ask("turn", (worker, Turn(outcomes=[Outcome(parent, 3, Event.RETRY)]))),
            "end the running child": Ask("turn", (other, Turn(outcomes=[Outcome(running, 1, Event.FAIL)]))),
            "ask for children": Ask("turn", (worker, Turn(adds=again, progress=progress))),
            "lease everything": Ask("turn", (other, Turn(room=100, lanes=everything))),
            "look into the inbox": Ask("turn", (client, Turn())),
            "forget what is held": Ask("turn", (worker, Turn(holding=()))),
            "add plain calls": Ask("add", (client, new)),
            "replace by key": Ask("add", (client, [self._call("other keyed", key=key)])),
            "join by key": Ask("add", (other, [self._call("third keyed", key=KeyRule("k"))])),
            "cancel": Ask("cancel", ([parent, running, keyed], "enough")),
            "cancel children": Ask(
                "cancel", ([running, self._id("waiting")], "late", [Parent(parent, 3), Parent(parent, 1)])
            ),
            "wait": Ask("wait", (other, [parent, self._id("succeeded"), keyed])),
            "reap": Ask("reap", ()),
            "renew": Ask("renew", (worker, MINUTE)),
            "close the worker": Ask("close_session", (worker,)),
        }


async def check_interleavings(factory: FaultyFactory) -> int:
    """Let every verb fail at each of its statements and commits, with another verb in between.

    Args:
        factory: Makes a fresh, unopened store that calls the given fault around each statement.

    Returns:
        How many interleavings were tried; 0 when the store never calls the fault.

    Raises:
        AssertionError: Something of a failed verb remained, or its repetition did something else than
            it should; a note says which verb, and where it failed.
    """
    tried = 0
    for name, places in (await _survey(factory)).items():
        for place, statement in enumerate(places):
            try:
                await _strike(factory, name, place, answer_lost=place == len(places) - 1)
            except BaseException as error:
                error.add_note(f"{name!r} was made to fail at {statement} ({place} of {len(places)})")
                raise
            tried += 1
    return tried


async def _survey(factory: FaultyFactory) -> dict[str, list[str]]:
    """Return every request's name, and the places where it can fail when the stage has just been set."""
    places: dict[str, list[str]] = {}
    names: list[str] | None = None
    while names is None or len(places) < len(names):
        striker = Striker()
        both = await _open(factory, striker)
        try:
            requests = await Stage(both).set()
            names = list(requests)
            name = names[len(places)]
            striker.arm(None)
            await requests[name].of(both)
            places[name] = striker.places
        finally:
            await both.store.close()
    return places


async def _strike(factory: FaultyFactory, name: str, place: int, *, answer_lost: bool) -> None:
    """Let a request fail at one place, make another one, and make the first one again."""
    striker = Striker()
    both = await _open(factory, striker)
    try:
        requests = await Stage(both).set()
        names = list(requests)
        between = names[(names.index(name) + place) % len(names)]
        striker.arm(place)
        holds(await _fails(requests[name], both.store), "a verb whose statement fails raises")
        striker.arm(None)
        if answer_lost:
            happened(both, requests[name])
        await both.look()
        await requests[between].of(both)
        await both.look()
        await requests[name].of(both)
        await both.look()
    finally:
        await both.store.close()


async def _open(factory: FaultyFactory, striker: Striker) -> SideBySide:
    clock = ManualClock()
    store = factory(clock, striker)
    await store.open()
    return SideBySide(store, clock)


async def _fails(request: Ask, store: Store) -> bool:
    try:
        await request.of(store)
    except Struck:
        return True
    return False


def happened(both: SideBySide, request: Ask) -> None:
    """Tell the oracle of a request that the store carried out, and whose answer nobody got."""
    oracle, log, at = both.oracle, both.log, both.clock.now()
    match request.verb, request.args:
        case "turn", (session, turn):
            wanted = oracle.turn(session, turn, at)
            log.note_turn(session, turn, wanted.settled, wanted.added, wanted.leased)
            oracle.handed_out(session, wanted.may_end, wanted.may_cancel)
        case "add", (session, calls):
            for call, answer in zip(calls, oracle.add(session, calls, at), strict=True):
                log.note_added(call, answer)
        case "cancel", (ids, message, *parents):
            oracle.cancel(ids, message, at, *parents)
        case "wait", (session, ids):
            oracle.wait(session, ids)
        case "renew", (session, lease):
            oracle.renew(session, at, lease)
        case "close_session", (session,):
            oracle.close_session(session, at)
        case _:
            same(request.verb, "reap")
            oracle.reap(at)
    log.open &= oracle.until.keys()
