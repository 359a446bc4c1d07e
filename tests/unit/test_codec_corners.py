"""What of the codec is seldom met."""

from __future__ import annotations

import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from everloop._core.codec import hints, known, tags, values
from everloop._core.codec.known import Known, registered
from everloop._core.codec.records import build
from everloop._core.codec.refusal import DEPTH, Refused, explain
from everloop._core.policy import Key


@dataclass
class Line:
    sku: str
    total: float = 0.0


class Model(pydantic.BaseModel):
    a: int


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no such names before")
def test_a_name_for_a_hint_is_that_hint() -> None:
    alias: Any = getattr(typing, "TypeAliasType")  # noqa: B009 - type checkers look at it as Python 3.11

    assert hints.strip(alias("Number", int)) is int


def test_two_classes_of_one_name_have_tags_of_their_own() -> None:
    def other() -> type:
        class Other:
            pass

        return Other

    both = Known()
    first, second = other(), other()
    second.__module__ = "elsewhere"
    for cls in (first, second, first):
        both.add(cls)

    assert both.tags[first].startswith("$:test_two_classes")
    assert both.tags[second] == f"$:elsewhere.{second.__qualname__}"
    assert len(both.classes) == 2


def test_where_nothing_is_registered_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_by_class", {})

    assert registered(Line) is None


def test_a_field_that_is_no_parameter_is_left_as_it_was_made() -> None:
    @dataclass
    class Odd:
        items: Sequence[int]
        count: int = field(default=1, init=False)

    made = build(Odd, {"items": (1, 2), "count": 1})

    assert (list(made.items), made.count) == ([1, 2], 1)


def test_what_is_wrong_with_a_key_is_told_with_its_place() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"a": 1}', type=dict[int, int])

    refused = explain(caught.value)

    assert refused.text == "expected `int`, got `str` at `key` in `$`"


def test_numbers_beside_a_huge_one_stay_as_they_are() -> None:
    data = tags.dump([10**5_000, 5, "text"])

    assert data == b'[{"$int":"' + hex(10**5_000).encode() + b'"},5,"text"]'


def test_what_recurses_too_deeply_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def recurse(*_: object) -> Any:
        raise RecursionError

    monkeypatch.setattr(tags, "to_tree", recurse)

    with pytest.raises(Refused, match="nests deeper than"):
        tags.dump([1])


@pytest.mark.parametrize("tree", [{}, [{}]])
def test_what_was_stored_too_deep_is_refused(tree: object) -> None:
    with pytest.raises(Refused, match="nests deeper than"):
        tags.from_tree(tree, Known(), 4 * DEPTH + 1)


def test_what_is_wrong_inside_a_container_is_told_once() -> None:
    with pytest.raises(Refused) as inner:
        tags.from_tree({"$datetime": "never"}, Known())
    with pytest.raises(Refused) as outer:
        tags.from_tree({"$tuple": [{"$datetime": "never"}]}, Known())

    assert outer.value.text == inner.value.text
    assert outer.value.where("value") == "value[0]"


def test_what_a_record_was_stored_with_is_checked() -> None:
    lines = Known()
    lines.add(Line)

    assert tags.from_tree({"$:Line": {"sku": "a"}}, lines) == Line("a")
    with pytest.raises(Refused, match="expected `str`, got `int`"):
        tags.from_tree({"$:Line": {"sku": 5}}, lines)


def test_what_msgspec_does_not_know_is_written_and_read_by_its_own_words() -> None:
    assert values._to_json(Model(a=1)) == {"a": 1}
    assert values._from_json(Model, {"a": 1}) == Model(a=1)
    with pytest.raises(ValueError, match="got `str`"):
        values._from_json(Literal[1], "x")


def test_a_key_that_is_as_it_should_be() -> None:
    assert Key("order 7", among="done", on_conflict="raise").value == "order 7"
