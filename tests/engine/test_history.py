"""What a task tells of its runs."""

from __future__ import annotations

import os
import socket

import pytest

from everloop import App, Retry, RetryAfter, TaskNotFound
from everloop.engine.session import Session


async def test_a_history_tells_of_each_run_with_its_error(app: App) -> None:
    tries = iter([ValueError("first"), RetryAfter(0), KeyError("second"), None])

    @app.task(retries=Retry(5, delay=0))
    async def flaky() -> str:
        error = next(tries)
        if error is not None:
            raise error
        return "done"

    async with app.worker():
        task = await app.submit(flaky())
        assert await task == "done"
        history = await task.history()

    assert [(run.number, run.kind) for run in history] == [
        (1, "failed"),
        (2, "released"),
        (2, "failed"),
        (3, "succeeded"),
    ]
    assert [(type(run.error).__name__, str(run.error)) for run in history if run.kind == "failed"] == [
        ("ValueError", "first"),
        ("KeyError", "'second'"),
    ]
    assert isinstance(history[0].error, ValueError)
    assert history[-1].error is None
    assert history.left_out == 0
    assert {(run.host, run.pid) for run in history} == {(socket.gethostname(), os.getpid())}
    for run in history:
        assert run.started is not None
        assert run.started <= run.ended


async def test_a_long_history_says_what_it_leaves_out(app: App) -> None:
    @app.task(retries=Retry(29, delay=0))
    async def hopeless() -> None:
        raise ValueError("no")

    async with app.worker():
        task = await app.submit(hopeless())
        with pytest.raises(ValueError, match="no"):
            await task
        history = await task.history()

    # The last of them was the outcome, which is kept beside the others.
    assert [run.number for run in history] == [*range(1, 6), *range(15, 31)]
    assert history.left_out == 9


async def test_the_history_of_nothing(app: App) -> None:
    @app.task
    async def idle() -> None: ...

    async with app:
        task = await app.submit(idle())
        assert (await task.history(), (await task.history()).left_out) == ([], 0)


async def test_a_history_of_a_call_that_is_gone(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task
    async def idle() -> None: ...

    async with app:
        task = await app.submit(idle())
        session: Session = app._sessions.current().session

        async def nothing(_ids: object) -> list[None]:
            return [None]

        monkeypatch.setattr(session.store, "get", nothing)
        with pytest.raises(TaskNotFound, match=f"no call has the id '{task.id}'"):
            await task.history()
