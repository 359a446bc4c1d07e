"""`export`: finished calls, page by page, one JSON value per line."""

from __future__ import annotations

import asyncio
import json

import pytest

from everloop._core.records import CallFilter, Lane, NewCall
from everloop.cli.exits import Exit
from everloop.cli.export import _pages
from everloop.store.memory import MemoryStore
from tests.cli.conftest import Shop

Filled = tuple[Shop, dict[str, str]]


def test_finished_calls_are_exported_with_their_histories(filled: Filled) -> None:
    shop, ids = filled
    ran = shop.run("export", "shop:app").checked()
    told = [json.loads(line) for line in ran.lines]

    assert [call["id"] for call in told] == [ids[n] for n in ("cancelled", "mail", "failed", "done")]
    assert told[2] == shop.show(ids["failed"])
    assert len(told[2]["history"]) == 2
    assert ran.err.endswith("everloop: exported 4 calls\n")


def test_filters_and_logs(filled: Filled) -> None:
    shop, ids = filled
    first, last = (str(shop.show(ids[name])["created"]) for name in ("done", "cancelled"))
    kinds: dict[tuple[str, ...], list[str]] = {
        ("--state", "failed,scheduled"): ["due", "failed"],
        ("--queue", "mail"): ["mail"],
        ("--name", "fail"): ["failed"],
        ("--tag", "b"): ["done"],
        ("--until", first): [],
        ("--since", "2999-01-01T00:00Z"): [],
        ("--since", first, "--name", "add"): ["cancelled", "done"],
    }
    exports = shop.run_each([["export", "shop:app", *options] for options in kinds])
    for wanted, ran in zip(kinds.values(), exports, strict=True):
        assert [json.loads(line)["id"] for line in ran.checked().lines] == [ids[kind] for kind in wanted]
    assert last > first
    (mail,) = shop.run("export", "--db", shop.store, "--queue", "mail", "--logs").checked().lines
    assert json.loads(mail)["logs"] == []


def test_what_is_no_time_is_refused(filled: Filled) -> None:
    shop, _ = filled
    shop.check_refusals(
        2,
        {
            ("export", "shop:app", "--since", "monday"): "--since is no time: 'monday'; write ISO 8601",
            ("export", "shop:app", "--until", "2030-01-01T00:00"): "--until 2030-01-01T00:00 does not say of",
            ("export", "shop:app", "--state", "faild"): "there is no state 'faild'; did you mean 'failed'?",
        },
    )


def test_pages_go_on_when_where_they_ended_was_pruned_meanwhile() -> None:
    async def export(gone: int) -> list[int]:
        store = MemoryStore()
        ids = [f"{n:08x}-0000-7000-8000-000000000000" for n in range(7)]
        await store.add(None, [NewCall(id=id_, lane=Lane("a", "q", "f"), args=b"j") for id_ in ids])
        seen: list[int] = []
        async for calls in _pages(store, CallFilter(limit=3)):
            seen += [ids.index(call.id) for call in calls]
            if len(seen) == 3:  # 6, 5 and 4
                for id_ in ids[4 : 4 + gone]:
                    store._tables.remove(store._tables.rows[id_])
        return seen

    for gone in (0, 1, 2):
        assert asyncio.run(export(gone)) == [6, 5, 4, 3, 2, 1, 0]
    with pytest.raises(Exit, match="calls were pruned faster than they were exported"):
        asyncio.run(export(3))
