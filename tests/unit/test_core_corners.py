"""What of the core is seldom met: limits, texts of refusals, and hints that nobody expects."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, Final, NewType

import pytest

from everloop._core import gate as gates
from everloop._core.calls import Event, State, step
from everloop._core.clock import SECOND, instant, microseconds, moment
from everloop._core.codec import dump_error, hints, load_error
from everloop._core.errors import OptionError
from everloop._core.gate import WriteGate, write_gate
from everloop._core.ids import is_id, new_id
from everloop._core.names import class_name, module_name
from everloop._core.policy import Retry
from everloop._core.text import first_line, without_password

Number = NewType("Number", int)


def test_an_event_that_cannot_happen_says_what_can() -> None:
    assert step(State.READY, Event.LEASE) is State.LEASED
    with pytest.raises(
        ValueError, match=re.escape("a ready call cannot reap (it accepts lease, cancel, expire)")
    ):
        step(State.READY, Event.REAP)
    with pytest.raises(ValueError, match=r"a failed call cannot cancel \(it accepts nothing: it is final\)"):
        step(State.FAILED, Event.CANCEL)


def test_instants_are_moments_and_back() -> None:
    when = datetime(2026, 11, 26, 18, 30, 0, 123_456, tzinfo=UTC)

    assert moment(instant(when)) == when
    assert instant(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == SECOND
    assert microseconds(timedelta(seconds=1.5)) == microseconds(1.5) == 1_500_000


def test_ids_are_new_ordered_and_of_one_shape() -> None:
    ids = [new_id() for _ in range(70_000)]  # more than fit into the last four digits

    assert len(set(ids)) == len(ids)
    assert all(map(is_id, ids[::1_000]))
    assert not is_id(ids[0].upper() + "x")


@pytest.mark.parametrize(
    ("main", "name"),
    [
        (SimpleNamespace(__spec__=SimpleNamespace(name="shop.tasks")), "shop.tasks"),
        (SimpleNamespace(__spec__=None, __file__="/srv/shop.py"), "shop"),
        (SimpleNamespace(__spec__=None, __file__=None), "__main__"),
        (None, "__main__"),
    ],
)
def test_the_main_module_has_the_name_that_a_worker_knows(
    main: ModuleType | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", main)  # type: ignore[arg-type]  # as in an interpreter without one

    assert module_name("__main__") == name
    assert class_name(Path) == f"{Path.__module__}.Path"


def test_a_rule_lists_classes() -> None:
    one_class: Any = ValueError
    with pytest.raises(
        OptionError, match=r"`Retry\(never=\)` is a list of exception classes, not <class 'ValueError'>"
    ):
        Retry(1, never=one_class)


def test_long_lines_are_cut_and_passwords_are_hidden() -> None:
    assert first_line("short\nand more") == "short"
    assert first_line("x" * 300) == "x" * 199 + "…"
    assert (
        without_password("mysql://me:secret@host/db?password=other") == "mysql://me:***@host/db?password=***"
    )


def test_hints_are_looked_at_under_their_names_and_wrappers() -> None:
    @dataclass
    class Lost:
        field: Gone  # type: ignore[name-defined]  # noqa: F821 - of a name that is gone

    assert hints.strip(Number) is int
    assert hints.strip(Final[int]) is int
    assert hints.strip(None) is type(None)
    assert list(hints.parts(Lost)) == [Lost]
    assert hints.describe(Annotated[int, "a unit"]) == "int"
    assert hints.describe("Gone") == "Gone"
    assert hints.describe(dict[str, int] | None) == "dict[str, int] | None"


def test_an_exception_arrives_as_the_declared_class_nearest_to_its_own() -> None:
    class Declared(Exception):
        pass

    class Own(Declared):
        pass

    came = load_error(dump_error(Own("text")), (Declared,))

    assert isinstance(came, Declared)
    assert not isinstance(came, Own)


def test_a_gate_shows_who_is_in_line() -> None:
    gate = WriteGate("shop.db")
    assert repr(gate) == "<WriteGate shop.db: free, 0 waiting>"
    with gate.hold(timeout=1):
        assert repr(gate) == "<WriteGate shop.db: held, 0 waiting>"


def test_after_a_fork_no_gate_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_gates", gates._gates)  # put back at the end
    monkeypatch.setattr(gates, "_gates_lock", gates._gates_lock)
    before = write_gate(tmp_path / "shop.db")

    gates._forget()

    assert write_gate(tmp_path / "shop.db") is not before


async def test_a_turn_that_comes_with_the_end_of_patience_is_taken() -> None:
    gate = WriteGate("shop.db")
    first = await gate.enter(1)
    waiting = asyncio.ensure_future(gate.enter(0))
    await asyncio.sleep(0)  # it is in line, and its patience is over in the next step

    first.leave()
    second = await waiting

    assert second.taken
    second.leave()
