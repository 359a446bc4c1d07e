"""A process dies at any statement of any verb: another one finds the store whole, and everything goes on.

While a verb runs on SQLite, its files are copied before each of its statements, before its COMMIT and after
it: a process that is killed there leaves just these behind. (Between two writes of one COMMIT is what the
images of a power loss look at.) Each copy is then opened by a new store, in two ways: the sessions of the
dead process are reaped and a new one repeats the request, or the same session does, whose answer was lost.
"""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path

import pytest

from everloop._core.calls import Event
from everloop._core.clock import ManualClock
from everloop._core.records import Lane, NewCall, Outcome, Parent, Progress, Turn
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance.expect import same
from everloop.testing.conformance.interleavings import Ask, Stage, happened
from everloop.testing.conformance.invariants import Log
from everloop.testing.conformance.oracle import Oracle
from everloop.testing.conformance.scene import MINUTE, SECOND, uuid
from everloop.testing.conformance.side_by_side import SideBySide

#: Of a request: the place, the folder with the files as they were there, and whether it had happened.
Death = tuple[str, Path, bool]


class Copying:
    """A fault that does no harm: it copies the files of a store wherever a verb could fail."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers_lanes = False  # a transaction of its own, before the one that is asked for
        self.deaths: list[Death] | None = None

    def __call__(self, place: str, number: int) -> None:
        if self.deaths is None:
            return
        if number == 0:
            self._numbers_lanes = place == "lane_add"
        folder = copied(self._folder / "alive", self._folder / f"{len(self.deaths)}")
        self.deaths.append((place, folder, place == "COMMITTED" and not self._numbers_lanes))


def copied(source: Path, target: Path) -> Path:
    """Copy a store's files as they are; what is shared memory dies with the processes."""
    target.mkdir()
    for path in source.glob("store.db*"):
        if not path.name.endswith("-shm"):
            shutil.copyfile(path, target / path.name)
    return target


def store_in(folder: Path, clock: ManualClock, fault: Copying | None = None) -> SqliteStore:
    return SqliteStore(folder / "store.db", clock=clock, fault=fault)


class Before:
    """What was there when a request was made: the files, and what the oracle knows."""

    def __init__(self, both: SideBySide, folder: Path) -> None:
        self.folder = folder
        self._at = both.clock.now()
        self._oracle: Oracle = both.oracle
        self._log: Log = both.log

    async def opened(self, folder: Path, fault: Copying | None = None) -> SideBySide:
        """Open a copy of the files, beside a copy of the oracle."""
        clock = ManualClock(self._at)
        both = SideBySide(store_in(folder, clock, fault), clock)
        both.oracle, both.log = deepcopy(self._oracle), deepcopy(self._log)
        await both.store.open()
        return both


def everything(requests: dict[str, Ask]) -> dict[str, Ask]:
    """Add turns that do a lot at once to the requests of the stage."""
    worker, end = requests["end the parent"].args
    other, lease = requests["lease everything"].args
    (parent,), adds = end.outcomes, requests["ask for children"].args[1].adds
    running = requests["end the running child"].args[1].outcomes
    new = NewCall(id=uuid(900), lane=Lane("a", "p", "due"), args=b"j", delay=SECOND)
    child = NewCall(
        id=uuid(901), lane=Lane("a", "p", "late"), args=b"j", parent=Parent(parent.id, 3), child_key="more"
    )
    progress = [Progress(parent.id, 3, 1.0, 2.0, "half")]
    failed = [Outcome(parent.id, 3, Event.FAIL, error=b"jerror")]
    room = {"room": 10, "lanes": lease.lanes}
    return {
        **requests,
        "end and lease": Ask("turn", (worker, Turn(outcomes=[parent], **room))),
        "fail, add and lease": Ask("turn", (worker, Turn(outcomes=failed, adds=[*adds, new, child], **room))),
        "everything": Ask(
            "turn",
            (worker, Turn(outcomes=failed, adds=[*adds, child], progress=progress, holding=(), **room)),
        ),
        "plain and quick": Ask("turn", (other, Turn(outcomes=running, adds=[new], **room))),
    }


async def set_up(folder: Path) -> tuple[Before, dict[str, Ask]]:
    """Set the stage once; the process that set it is gone."""
    place = folder / "set"
    place.mkdir()
    clock = ManualClock()
    both = SideBySide(store_in(place, clock), clock)
    await both.store.open()
    requests = everything(await Stage(both).set())
    await both.store.close()
    return Before(both, place), requests


async def deaths_during(before: Before, request: Ask, folder: Path) -> list[Death]:
    """Let a request happen, and return where its process could have died."""
    folder.mkdir()
    copying = Copying(folder)
    both = await before.opened(copied(before.folder, folder / "alive"), copying)
    try:
        copying.deaths = []
        await request.of(both)
        return copying.deaths
    finally:
        await both.store.close()


def repeated(request: Ask, session: int | None) -> Ask:
    """Return the request as it comes again: by the same session, or by the one that takes its place."""
    verb, args = request
    if verb == "turn":
        asking, turn = args
        fields = {name: getattr(turn, name) for name in turn.__struct_fields__}
        return Ask(verb, (session or asking, Turn(**{**fields, "holding": ()})))
    if verb in ("add", "wait", "renew", "close_session") and session is not None:
        return Ask(verb, (session, *args[1:]))
    return request


async def goes_on(both: SideBySide, request: Ask, *, survived: bool) -> None:
    """Ask again, and see every call reach its end, with the oracle beside it."""
    await both.look()
    successor = None
    if not survived:
        both.clock.advance(2 * MINUTE / SECOND)
        await both.reap()
        await both.look()
        successor = await both.open_session(MINUTE)
    await repeated(request, successor).of(both)
    await both.look()
    lanes = tuple({life.birth.lane for life in both.oracle.lives.values()})
    for _ in range(50):
        both.clock.advance(2 * MINUTE / SECOND)
        await both.reap()
        worker = await both.open_session(MINUTE)
        leased = (await both.turn(worker, Turn(room=100, lanes=lanes))).leased
        outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]
        await both.turn(worker, Turn(outcomes=outcomes))
        await both.look()
        if all(call.state.final for call in both.calls.values()):
            return
    left = {id: call.state.value for id, call in both.calls.items() if not call.state.final}
    same(left, {}, "calls that do not end although a worker takes them all")


@pytest.mark.parametrize("survived", [False, True], ids=["another session", "the same session"])
async def test_whatever_a_dead_process_leaves_is_whole_and_goes_on(quick: Path, survived: bool) -> None:
    before, requests = await set_up(quick)
    met: set[str] = set()
    tried = 0
    for number, (name, request) in enumerate(requests.items()):
        folder = quick / f"{number}"
        for place, left, done in await deaths_during(before, request, folder):
            both = await before.opened(left)
            try:
                if done:
                    happened(both, request)
                await goes_on(both, request, survived=survived)
            except BaseException as error:
                error.add_note(f"{name!r}: its process died at {place}, whose files are in {left}")
                raise
            finally:
                await both.store.close()
            met.add(place)
            tried += 1
        shutil.rmtree(folder)

    assert met >= {
        "COMMIT",
        "COMMITTED",
        "look",
        "move",
        "end_outcomes",
        "add_calls",
        "lease_take",
        "end_children",
    }
    print(f"{tried} deaths")
    assert tried > 150
