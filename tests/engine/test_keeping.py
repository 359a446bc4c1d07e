"""What a worker prunes, and what is said of what is gone."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from everloop import App, Keep, OptionError, ResultPruned, TaskNotFound
from everloop._core.errors import StoreUnavailable
from everloop._core.keeping import Pruned, Pruning
from everloop._core.records import CallFilter
from everloop.engine.services import pruner
from everloop.engine.services.pruner import Pruner
from everloop.store.memory import MemoryStore
from tests.helpers.waiting import until


class Counting(MemoryStore):
    """A store that notes what it is asked to prune, and answers with what it is told to."""

    def __init__(self, *answers: Pruned | Exception) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[Pruning] = []

    async def prune(self, request: Pruning) -> Pruned:
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else Pruned()
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_sweep_goes_on_page_by_page() -> None:
    request = Pruning("a", calls=1)
    store = Counting(Pruned(2, 0, request.behind(500)), Pruned(0, 0, request.behind(1000)), Pruned(1, 4))
    assert await Pruner(store, request).sweep() == Pruned(3, 4)
    assert [asked.after for asked in store.asked] == [None, 500, 1000]


async def test_sweeps_go_on_when_the_store_has_been_away() -> None:
    store = Counting(StoreUnavailable("gone"), Pruned(1))
    service = Pruner(store, Pruning("a", calls=1, every=1000))
    service.start()
    service.start()
    await until(lambda: len(store.asked) > 3)
    await service.stop()
    await service.stop()
    asked = len(store.asked)
    await asyncio.sleep(0.01)
    assert len(store.asked) == asked


async def test_a_worker_prunes_what_the_app_keeps_no_longer(
    app: App, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner, "FIRST", 0.0)
    monkeypatch.setattr("everloop._app.EVERY", 0.01)
    monkeypatch.setattr("everloop._core.keeping.RECENT", 0)
    for module in ("everloop.store.memory_keeping", "everloop.store.sql.verbs.keeping"):
        monkeypatch.setattr(f"{module}.RECENT", 0)
    keeping = App("test", store, keep=Keep(count=0))

    @keeping.task
    async def work() -> int:
        return 7

    async with keeping.worker():
        task = await keeping.submit(work())
        assert await task == 7
        session = keeping._sessions.current().session
        async with asyncio.timeout(20):
            while await session.store.find(CallFilter()):
                await asyncio.sleep(0.005)
        with pytest.raises(TaskNotFound) as caught:
            await keeping.get_task(task.id)
        assert str(caught.value) == (
            f"no call has the id '{task.id}'; it was not submitted here, or it was pruned: calls that "
            "succeeded are kept for 7 days, others for 30 days, and at most 0 in all (see App(keep=))"
        )
        with pytest.raises(TaskNotFound, match="it was pruned"):
            await task.refresh()
        assert await task == 7, "what has been told stays told"


async def test_an_app_that_keeps_everything_prunes_nothing(sqlite: str) -> None:
    everything = App("test", sqlite, keep=None)
    async with everything.worker():
        assert everything._sessions.current().session._pruner is None
        with pytest.raises(TaskNotFound, match=r"or it was pruned$"):
            await everything.get_task("0198c0de-0000-7000-8000-000000000001")


async def test_a_result_that_is_gone_is_told_apart_from_one_that_is_none(app: App) -> None:
    @app.task
    async def work() -> None: ...

    async with app.worker():
        task = await app.submit(work())
        assert await task is None
        store = app._sessions.current().session.store
        (seen,) = await store.get([task.id])
        assert seen is not None
        assert seen.ended is not None
        done: Pruned | None = None
        request: Pruning | None = Pruning(app.name, results=0)
        while request is not None:
            done = await store.prune(request)
            request = done.next
        assert done == Pruned(0, 1)
        late = await app.get_task(task.id)
        assert (late.state, late.attempts) == ("succeeded", 1)
        with pytest.raises(ResultPruned) as caught:
            await late
        assert str(caught.value) == (
            f"work() succeeded, and its result is no longer kept (see App(keep=)); app.retry('{task.id}') "
            "submits it again"
        )


def test_a_wrong_rule_is_refused() -> None:
    for wrong, said in (
        ({"calls": 1}, r"^`Keep\(calls=\)` is 1 s; it may be 60 s to"),
        ({"failed": "week"}, r"^`Keep\(failed=\)` is a number of seconds or a timedelta, not 'week'$"),
        ({"results": -1}, r"^`Keep\(results=\)` is -1 s"),
        ({"logs": 0}, r"^`Keep\(logs=\)` is 0 s"),
        ({"count": 1.5}, r"^`Keep\(count=\)` is a whole number, 0 or more, not 1.5$"),
    ):
        with pytest.raises(OptionError, match=said):
            Keep(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError) as caught:
        App("test", "memory://", keep=86400)  # type: ignore[arg-type]
    assert str(caught.value) == "`App(keep=)` is a `Keep` or None, not 86400; write keep=Keep(calls=86400)"


def test_a_rule_in_words() -> None:
    assert Keep(calls=None, failed=timedelta(hours=36), count=None).told == (
        "calls that succeeded are kept for ever, others for 36 hours"
    )
    assert Keep(calls=90, failed=60).told == (
        "calls that succeeded are kept for 90 seconds, others for 1 minute, and at most 1,000,000 in all"
    )
