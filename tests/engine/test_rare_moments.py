"""What the simulation has found (`tests/sim`), each in a test of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from everloop import App, Key, StoreUnavailable, Task
from everloop import _functions as functions
from everloop._core.clock import ManualClock, SystemClock
from everloop._core.records import Added, Cancelled, NewCall, Parent, SessionInfo, Turn, TurnAnswer
from everloop.engine import session as session_module
from everloop.engine import turns, worker
from everloop.engine.attempt import CURRENT
from everloop.engine.keeper import Keeper
from everloop.engine.session import Session
from everloop.store.sql.store import SqliteStore
from everloop.store.url import sqlite_path
from tests.engine.conftest import make
from tests.engine.faults import Faults
from tests.helpers.waiting import until


async def test_a_callback_waits_for_a_store_that_cannot_say_what_it_is_about(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "AWAY", 0.01)
    app = make(sqlite)
    faults = Faults(app)
    refused = 0
    told: list[tuple[str, int]] = []

    def plan(name: str, before: list[str]) -> None:
        nonlocal refused
        if name == "read_calls" and refused < 2:
            refused += 1
            raise StoreUnavailable("not now")

    @app.task
    async def work() -> int:
        return 7

    @app.task
    async def tell(task: Task[int]) -> None:
        told.append((task.state, task.result()))

    async with app.worker():
        faults.plan = plan
        await app.submit(work(), on_done=tell)
        await until(lambda: bool(told))
        assert (told, refused) == ([("succeeded", 7)], 2)
        while (await app.counts())["succeeded"] != 2:
            await asyncio.sleep(0)
        assert [task.attempts for task in await app.tasks(name="tell")] == [1]


async def test_a_session_that_is_lost_while_it_is_closed_gets_no_successor(sqlite: str) -> None:
    sessions: list[Session] = []

    class LostInTheEnd(SqliteStore):
        async def close_session(self, session: int) -> None:
            sessions[0]._was_reaped()  # as its keeper says that has just been told
            await super().close_session(session)

    app = make(sqlite)
    app.open_store = lambda: LostInTheEnd(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam
    async with app:
        sessions.append(app._sessions.current().session)

    assert sessions[0]._recovery is None
    assert sessions[0]._keeper is None


@pytest.mark.parametrize("key", [None, "one of them"])
async def test_the_end_is_told_of_a_call_that_was_added_in_the_name_of_a_session_that_was_reaped(
    sqlite: str, key: str | None
) -> None:
    held = asyncio.Event()
    go_on = asyncio.Event()

    async def hold(calls: Sequence[NewCall]) -> None:
        if calls:
            held.set()
            await go_on.wait()

    class Slow(SqliteStore):
        async def turn(self, session: int, turn: Turn) -> TurnAnswer:
            await hold(turn.adds)
            return await super().turn(session, turn)

        async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
            await hold(calls)
            return await super().add(session, calls)

    app, client = make(sqlite), make(sqlite)

    @app.task(name="work")
    async def serve() -> int:
        return 7

    @client.task
    async def work() -> int:
        return 0

    other = SqliteStore(sqlite_path(sqlite), clock=ManualClock(SystemClock().now() + 3_600_000_000))
    async with app.worker():
        await other.open()
        client.open_store = lambda: Slow(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam
        async with client:
            session = client._sessions.current().session
            first = session.number
            task = client.create_task(work().options(key=key) if key else work())
            await held.wait()
            await other.close_session(first)  # as a reaper does
            session._was_reaped()
            await until(lambda: session.number != first)
            await session.apart._waits.idle()  # it has asked for the ends, in vain
            go_on.set()
            async with asyncio.timeout(5):
                assert await task == 7
        await other.close()


async def test_what_a_session_leased_that_was_reaped_before_it_was_told_does_not_run(sqlite: str) -> None:
    held = asyncio.Event()
    go_on = asyncio.Event()
    ran: list[int] = []

    class Slow(SqliteStore):
        async def turn(self, session: int, turn: Turn) -> TurnAnswer:
            answer = await super().turn(session, turn)
            if answer.leased and not held.is_set():
                held.set()
                await go_on.wait()
            return answer

    app = make(sqlite)
    app.open_store = lambda: Slow(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam
    other = SqliteStore(sqlite_path(sqlite), clock=ManualClock(SystemClock().now() + 3_600_000_000))

    @app.task
    async def work() -> None:
        attempt = CURRENT.get()
        assert attempt is not None
        ran.append(attempt.leased.fence)

    async with app.worker():
        await other.open()
        session = app._sessions.current().session
        first = session.number
        task = app.create_task(work())
        await held.wait()
        await other.close_session(first)  # as a reaper does
        session._was_reaped()
        await until(lambda: session.number != first)
        go_on.set()
        async with asyncio.timeout(5):
            await task
        await other.close()

    assert ran == [3]  # released at 2


async def test_the_end_of_a_call_that_was_joined_may_come_before_the_answer_that_says_so(sqlite: str) -> None:
    told: list[str] = []
    go_on = asyncio.Event()

    class Slow(SqliteStore):
        async def turn(self, session: int, turn: Turn) -> TurnAnswer:
            answer = await super().turn(session, turn)
            told.extend(end.id for end in answer.ended)
            return answer

        async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
            answers = await super().add(session, calls)
            if answers[0].status == "exists":
                await go_on.wait()
            return answers

    app = make(sqlite)
    app.open_store = lambda: Slow(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam

    @app.task(key=Key("one", among="done"))
    async def work() -> int:
        return 7

    async with app.worker():
        assert await work() == 7
        joining = app.create_task(work())
        await until(lambda: len(told) == 2)
        go_on.set()
        async with asyncio.timeout(5):
            assert await joining == 7


async def test_a_call_that_was_cancelled_before_it_was_stored_is_cancelled_though_the_app_closes(
    sqlite: str,
) -> None:
    class Slow(SqliteStore):
        async def cancel(
            self, ids: Sequence[str], message: str = "", parents: Sequence[Parent | None] = ()
        ) -> list[Cancelled]:
            await asyncio.sleep(0.05)
            return await super().cancel(ids, message, parents)

    app = make(sqlite)
    app.open_store = lambda: Slow(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam

    @app.task
    async def work() -> int:
        return 7

    async with app:
        app.create_task(work()).cancel()

    async with app:
        assert (await app.counts())["cancelled"] == 1


async def test_an_end_is_told_that_went_with_an_answer_which_was_lost_and_committed_late(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "DOUBT", 0.05)
    lost, held, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    go_on.set()

    class Slow(SqliteStore):
        async def turn(self, session: int, turn: Turn) -> TurnAnswer:
            if not go_on.is_set():
                held.set()
            await go_on.wait()
            answer = await super().turn(session, turn)
            if not turn.adds and not lost.is_set():
                lost.set()
                raise StoreUnavailable("the answer got lost")
            return answer

    app = make(sqlite)
    app.open_store = lambda: Slow(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam
    other = SqliteStore(sqlite_path(sqlite))

    @app.task
    async def work() -> int:
        return 7

    async with app:
        await other.open()
        session = app._sessions.current().session
        task = await app.submit(work())
        session.turns.look()
        await lost.wait()
        await until(lambda: not session.turns._uncertain)
        await session.apart._waits.idle()  # it has asked for the ends once, in vain
        go_on.clear()
        session.turns.look()
        await held.wait()  # what was under way is done
        await other.cancel([task.id])
        ended = (await other.turn(session.number, Turn())).ended
        go_on.set()
        assert [end.id for end in ended] == [task.id]
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await task
        await other.close()


async def test_a_worker_that_has_lost_a_parent_cancels_nothing_that_its_next_run_awaits(sqlite: str) -> None:
    answers: list[Cancelled] = []
    runs: list[str] = []
    again = asyncio.Event()

    class Listening(SqliteStore):
        async def cancel(
            self, ids: Sequence[str], message: str = "", parents: Sequence[Parent | None] = ()
        ) -> list[Cancelled]:
            said = await super().cancel(ids, message, parents)
            answers.extend(said)
            return said

    app = make(sqlite)
    app.open_store = lambda: Listening(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam
    other = SqliteStore(sqlite_path(sqlite))

    @app.task
    async def child() -> int:
        await again.wait()
        return 7

    @app.task
    async def parent() -> int:
        task = app.create_task(child())
        await task.stored()
        runs.append(task.id)
        if len(runs) > 1:
            again.set()
            return await task
        session = app._sessions.current().session
        await other.close_session(session.number)
        task.cancel("too late")
        await session.apart._cancels.idle()
        session._was_reaped()  # as its keeper is told a moment later
        return await task

    async with app.worker():
        await other.open()
        async with asyncio.timeout(10):
            assert await parent() == 7
        counts = await app.counts()
        await other.close()
    assert [(answer.id, answer.asked, answer.lost) for answer in answers] == [(runs[0], False, True)]
    assert runs == [runs[0]] * 2
    assert (counts["succeeded"], counts["cancelled"]) == (2, 0)


class Stubborn:
    """A function whose first run goes on, whatever it is told, until it may end."""

    def __init__(self, app: App) -> None:
        self.runs = 0
        self.go_on = asyncio.Event()

        @app.task
        async def stubborn() -> int:
            self.runs += 1
            while self.runs == 1 and not self.go_on.is_set():
                with suppress(asyncio.CancelledError):
                    await self.go_on.wait()
            return self.runs

        self.call = stubborn


async def test_a_body_that_goes_on_without_its_worker_keeps_its_lease(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "UNWINDING", 0.05)
    app = make(sqlite)
    stubborn = Stubborn(app)

    async def doubt(session: Session) -> None:
        before = session.turns.turns
        session.turns.doubt()
        await until(lambda: session.turns.turns >= before + 2)

    async with app:
        task = await app.submit(stubborn.call())
        async with app.worker(grace=0):
            await until(lambda: stubborn.runs == 1)
        session = app._sessions.current().session
        try:
            await doubt(session)
            assert (await app.counts())["leased"] == 1
            async with app.worker():
                await doubt(session)
                stubborn.go_on.set()
                assert await task == 1
        finally:
            stubborn.go_on.set()  # so that a test that fails ends
    assert stubborn.runs == 1


async def test_a_lease_that_was_lost_is_not_held_for_the_body_that_has_not_noticed(sqlite: str) -> None:
    app = make(sqlite)
    stubborn = Stubborn(app)

    async with app.worker():
        task = await app.submit(stubborn.call())
        await until(lambda: stubborn.runs == 1)
        session = app._sessions.current().session
        try:
            assert session._holding() == (task.id,)
            session._was_reaped()
            await until(lambda: session._holding() == ())
        finally:
            stubborn.go_on.set()


async def test_a_session_whose_opening_was_answered_late_is_not_sure_to_live(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Keeper] = []

    class NotStarted(Keeper):
        def start(self) -> None:
            kept.append(self)

    class Late(SqliteStore):
        async def open_session(self, info: SessionInfo, lease: int) -> int:
            number = await super().open_session(info, lease)
            await asyncio.sleep(0.1)  # the process stands still for longer than its lease
            return number

    monkeypatch.setattr(session_module, "Keeper", NotStarted)
    late, prompt = Late(sqlite_path(sqlite)), SqliteStore(sqlite_path(sqlite))
    for store, lease in ((late, 0.1), (prompt, 60.0)):
        await store.open()
        session = Session(store, "app", lease=lease)
        await session._enter()
        assert session._stop_listening is not None
        session._stop_listening()
        await store.close()
    assert [keeper.is_sure for keeper in kept] == [False, True]
