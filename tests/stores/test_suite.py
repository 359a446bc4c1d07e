"""The suite itself: it finds stores out that do something else, and its oracle stands alone."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everloop._core.calls import Event
from everloop._core.records import (
    Added,
    CallFilter,
    Cancelled,
    Leased,
    NewCall,
    Outcome,
    Parent,
    SessionInfo,
    Snapshot,
    Turn,
    TurnAnswer,
)
from everloop.store.memory import MemoryStore
from everloop.testing import conformance
from everloop.testing.conformance import check_at_once, check_store, walk

Verb = Callable[..., Awaitable[Any]]


def takes_an_outcome_whatever_its_fence(right: Verb) -> Verb:
    async def turn(self: MemoryStore, session: int, turn: Turn) -> TurnAnswer:
        seen = await self.get([o.id for o in turn.outcomes])
        now = {call.id: call.fence for call in seen if call is not None}
        outcomes = [msgspec.structs.replace(o, fence=now.get(o.id, 0)) for o in turn.outcomes]
        answer: TurnAnswer = await right(self, session, msgspec.structs.replace(turn, outcomes=outcomes))
        return answer

    return turn


def tells_of_an_end_twice(right: Verb) -> Verb:
    async def turn(self: MemoryStore, session: int, turn: Turn) -> TurnAnswer:
        answer: TurnAnswer = await right(self, session, turn)
        await self.wait(session, [ended.id for ended in answer.ended])
        return answer

    return turn


def answers_the_second_of_two_settlements(right: Verb) -> Verb:
    async def turn(self: MemoryStore, session: int, turn: Turn) -> TurnAnswer:
        await right(self, session, Turn(outcomes=turn.outcomes))
        answer: TurnAnswer = await right(self, session, turn)
        return answer

    return turn


def loses_the_fourth_call_of_a_request(right: Verb) -> Verb:
    async def add(self: MemoryStore, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        return [*await right(self, session, calls[:3]), *(Added(call.id) for call in calls[3:])]

    return add


def cancels_what_runs_without_asking(right: Verb) -> Verb:
    async def cancel(
        self: MemoryStore, ids: Sequence[str], message: str = "", parents: Sequence[Parent | None] = ()
    ) -> list[Cancelled]:
        for call in await self.get(ids):
            if call is not None and call.session is not None and not call.state.final:
                await self.turn(call.session, Turn(outcomes=[Outcome(call.id, call.fence, Event.CANCEL)]))
        answer: list[Cancelled] = await right(self, ids, message, parents)
        return answer

    return cancel


def never_reaps(_right: Verb) -> Verb:
    async def reap(_self: MemoryStore, **_how: object) -> int:
        return 0

    return reap


def uses_session_numbers_again(right: Verb) -> Verb:
    async def open_session(self: MemoryStore, info: SessionInfo, lease: int) -> int:
        self._tables.last_session = max(self._tables.sessions, default=0)
        number: int = await right(self, info, lease)
        return number

    return open_session


def shows_the_oldest_first(right: Verb) -> Verb:
    async def find(self: MemoryStore, filter: CallFilter) -> list[Snapshot]:
        return list(reversed(await right(self, filter)))

    return find


def leases_a_call_to_two(right: Verb) -> Verb:
    last: list[Leased] = []

    async def turn(self: MemoryStore, session: int, turn: Turn) -> TurnAnswer:
        answer: TurnAnswer = await right(self, session, turn)
        again = last[:1] if turn.room else []
        last[:] = answer.leased
        return msgspec.structs.replace(answer, leased=answer.leased + again)

    return turn


#: What a store may do wrong, and the verb in which it does.
WRONG: dict[Callable[[Verb], Verb], str] = {
    takes_an_outcome_whatever_its_fence: "turn",
    tells_of_an_end_twice: "turn",
    answers_the_second_of_two_settlements: "turn",
    loses_the_fourth_call_of_a_request: "add",
    cancels_what_runs_without_asking: "cancel",
    never_reaps: "reap",
    uses_session_numbers_again: "open_session",
    shows_the_oldest_first: "find",
    leases_a_call_to_two: "turn",
}


@pytest.fixture(params=WRONG, ids=lambda wrong: wrong.__name__)
def _wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = WRONG[request.param]
    monkeypatch.setattr(MemoryStore, verb, request.param(getattr(MemoryStore, verb)))


@pytest.mark.usefixtures("_wrong")
async def test_the_cases_find_a_wrong_store_out() -> None:
    with pytest.raises(AssertionError) as caught:
        await check_store(MemoryStore, seeds=[])
    assert caught.value.__notes__[0].startswith("MemoryStore: ")


async def _walks() -> None:
    for seed in range(20):
        await walk(MemoryStore, seed)


@pytest.mark.usefixtures("_wrong")
async def test_the_walks_find_a_wrong_store_out() -> None:
    with pytest.raises(AssertionError) as caught:
        await _walks()
    assert "to walk the same way again: walk(factory, " in caught.value.__notes__[-1]


async def test_a_walk_is_the_same_each_time_for_the_same_seed() -> None:
    assert await walk(MemoryStore, 7) == await walk(MemoryStore, 7)


async def test_workers_at_once_find_a_store_out_that_leases_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "turn", leases_a_call_to_two(MemoryStore.turn))

    with pytest.raises(AssertionError, match="leased under one fence twice"):
        await check_at_once(MemoryStore)


@pytest.mark.parametrize("name", ["oracle.py", "lives.py"])
def test_the_oracle_shares_no_code_with_what_it_judges(name: str) -> None:
    source = Path(conformance.__file__).with_name(name).read_text(encoding="utf-8")
    imported = {
        node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    ours = {module for module in imported if module.startswith("everloop")}

    assert ours <= {"everloop._core.keeping", "everloop._core.records", "everloop.testing.conformance.lives"}
