"""Arguments are bound as Python binds them, checked at the call, and come back ready for the body."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop._core.codec import Arguments
from everloop._core.errors import ArgumentError, FunctionError, NotStorable

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


@dataclass
class Item:
    sku: str
    price: float


class Settings(TypedDict, total=False):
    depth: int


def fetch(url: str, depth: int = 0) -> int: ...


def mixed(
    a: int, b: str = "b", /, c: float = 1.0, *rest: Item, d: datetime | None = None, **more: int
) -> None: ...


def named(*, url: str, depth: int = 0) -> None: ...


def untyped(a, b=2, *c, **d): ...  # type: ignore[no-untyped-def]


def by_position(a: int, /, **more: Any) -> None: ...


def half_resolved(a: int, b: Missing, c: datetime) -> Missing: ...


def unpacked(**settings: Unpack[Settings]) -> None: ...


def nothing() -> None: ...


def by_name_not(a, /): ...  # type: ignore[no-untyped-def]


def three(a, b, c): ...  # type: ignore[no-untyped-def]


def only(a="x" * 100, /): ...  # type: ignore[no-untyped-def]


BOUND: list[tuple[Any, tuple[Any, ...], dict[str, Any], bytes, tuple[Any, ...], dict[str, Any]]] = [
    (fetch, ("x",), {}, b'[["x"],{}]', ("x",), {}),
    (fetch, ("x", 1), {}, b'[["x",1],{}]', ("x", 1), {}),
    (fetch, (), {"depth": 1, "url": "x"}, b'[["x",1],{}]', ("x", 1), {}),
    (fetch, ("x",), {"depth": 0}, b'[["x",0],{}]', ("x", 0), {}),
    (nothing, (), {}, b"[[],{}]", (), {}),
    (named, (), {"depth": 1, "url": "x"}, b'[[],{"url":"x","depth":1}]', (), {"url": "x", "depth": 1}),
    (mixed, (1,), {"c": 2}, b'[[1],{"c":2}]', (1,), {"c": 2.0}),
    (mixed, (1, "x", 2.0, Item("s", 1.0)), {}, b'[[1,"x",2.0,{"sku":"s","price":1.0}],{}]', None or (), {}),
    (
        mixed,
        (1,),
        {"z": 1, "d": None, "y": 2},
        b'[[1],{"d":null,"z":1,"y":2}]',
        (1,),
        {"d": None, "z": 1, "y": 2},
    ),
    (mixed, (1,), {"a": 5}, b'[[1],{"a":5}]', (1,), {"a": 5}),
    (by_position, (1,), {"a": (2,)}, b'[[1],{"a":{"$tuple":[2]}}]', (1,), {"a": (2,)}),
    (untyped, ((1,),), {"x": b"y"}, b'[[{"$tuple":[1]}],{"x":{"$bytes":"eQ=="}}]', ((1,),), {"x": b"y"}),
    (untyped, (1.5, None, True), {}, b"[[1.5,null,true],{}]", (1.5, None, True), {}),
    (
        half_resolved,
        (1, (2,), datetime(2026, 1, 1, tzinfo=UTC)),
        {},
        b'[[1,{"$tuple":[2]},"2026-01-01T00:00:00Z"],{}]',
        (),
        {},
    ),
    (unpacked, (), {"depth": 1}, b'[[],{"depth":1}]', (), {"depth": 1}),
]


@pytest.mark.parametrize(("fn", "args", "kwargs", "data", "back", "named_back"), BOUND, ids=range(len(BOUND)))
def test_arguments_are_bound_and_come_back(
    fn: Any, args: Any, kwargs: Any, data: bytes, back: Any, named_back: Any
) -> None:
    arguments = Arguments(fn)
    for _ in range(2):  # the second time by the short way, if there is one
        assert arguments.bind(args, kwargs) == data
        assert arguments.load(data) == (back or args, named_back)
    assert Arguments(fn).load(data) == (back or args, named_back)


def test_both_ways_of_binding_write_the_same() -> None:
    for value in (1, 2**70, -(2**63) - 1, "x", "é", None, True, 1.5, float("nan"), float("inf"), 10**5000):
        arguments = Arguments(untyped)
        first = arguments.bind((value,), {})
        assert arguments.bind((value,), {}) == first
        assert arguments.bind((), {"a": value}) == first
        (came,), _ = arguments.load(first)
        assert came == value or came != came  # noqa: PLR0124  nan


@given(
    st.lists(st.one_of(st.integers(), st.text(), st.floats(), st.none(), st.booleans()), max_size=4),
    st.dictionaries(st.sampled_from("abcdef"), st.integers() | st.text(), max_size=3),
)
def test_binding_accepts_what_python_accepts(args: list[Any], kwargs: dict[str, Any]) -> None:
    def with_rest(a, /, b, c=1, *rest, d=2): ...  # type: ignore[no-untyped-def]

    def with_more(a, b=1, *, c, **more): ...  # type: ignore[no-untyped-def]

    def plain(a, b, c=3, *, d): ...  # type: ignore[no-untyped-def]

    for fn in (with_rest, with_more, plain):
        arguments = Arguments(fn)
        try:
            expected = inspect.signature(fn).bind(*args, **kwargs)
        except TypeError:
            with pytest.raises(ArgumentError):
                arguments.bind(tuple(args), kwargs)
            continue
        back, named_back = arguments.load(arguments.bind(tuple(args), kwargs))
        came = inspect.signature(fn).bind(*back, **named_back)
        assert repr(came.arguments) == repr(expected.arguments)


FETCH = "\nIts signature is fetch(url: str, depth: int = 0)."
WRONG = [
    (
        fetch,
        (),
        {"ulr": "x"},
        f"fetch() got an unexpected keyword argument 'ulr'; did you mean 'url'?{FETCH}",
    ),
    (fetch, ("x",), {"zzz": 1}, f"fetch() got an unexpected keyword argument 'zzz'{FETCH}"),
    (fetch, (5,), {}, "fetch(url=): expected `str`, got `int` (5)"),
    (fetch, ("x", "y"), {}, "fetch(depth=): expected `int`, got `str` ('y')"),
    (fetch, ("x", True), {}, "fetch(depth=): expected `int`, got `bool` (True)"),
    (fetch, (), {}, f"fetch() is missing 1 required argument: 'url'{FETCH}"),
    (fetch, ("x", 1, 2), {}, f"fetch() takes 1 to 2 positional arguments but 3 were given{FETCH}"),
    (fetch, ("x",), {"url": "y"}, f"fetch() got multiple values for argument 'url'{FETCH}"),
    (
        nothing,
        (1,),
        {},
        "nothing() takes 0 positional arguments but 1 was given\nIts signature is nothing().",
    ),
    (
        three,
        (),
        {},
        "three() is missing 3 required arguments: 'a', 'b' and 'c'\nIts signature is three(a, b, c).",
    ),
    (
        by_name_not,
        (),
        {"a": 1},
        "by_name_not() takes 'a' by position only\nIts signature is by_name_not(a, /).",
    ),
    (by_position, (), {"a": 1}, "by_position() is missing 1 required argument: 'a'\n"),
    (mixed, (1, "b", 2.0, {"sku": "s"}), {}, "mixed(rest=): expected `Item`, got `dict` ({'sku': 's'})"),
    (mixed, (1, "b", 2.0, Item("s", "p")), {}, "mixed(rest=): expected `float`, got `str` at `rest.price`"),  # type: ignore[arg-type]
    (mixed, (1,), {"z": "x"}, "mixed(z=): expected `int`, got `str` ('x')"),
    (mixed, (1,), {"d": "2026"}, "mixed(d=): expected `datetime | None`, got `str` ('2026')"),
]


@pytest.mark.parametrize(("fn", "args", "kwargs", "text"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments_are_a_type_error_that_helps(fn: Any, args: Any, kwargs: Any, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Arguments(fn).bind(args, kwargs)
    assert str(caught.value).startswith(text)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (
            ([1, {"x": 2j}],),
            {},
            "untyped(): `a[1].x` cannot be stored: a `complex` (2j) has no stored form; pass",
        ),
        ((1,), {"more": 2j}, "untyped(): `more` cannot be stored: a `complex` (2j) has no stored form; pass"),
        (
            ("\ud800",),
            {},
            r"untyped(): `a` cannot be stored: '\ud800' contains a lone surrogate, which UTF-8",
        ),
        ((1,), {"\ud800": 1}, r"untyped(): the name '\ud800' contains a lone surrogate"),
    ],
    ids=range(4),
)
def test_what_cannot_be_stored_is_named_by_its_path(args: Any, kwargs: Any, text: str) -> None:
    arguments = Arguments(untyped)
    arguments.bind(("x",), {})  # so that the short way is tried
    with pytest.raises(NotStorable) as caught:
        arguments.bind(args, kwargs)
    assert str(caught.value).startswith(text)


def test_defaults_are_not_stored_so_that_later_ones_apply() -> None:
    assert Arguments(fetch).bind(("x",), {}) == b'[["x"],{}]'


def test_annotations_are_resolved_late_and_one_by_one() -> None:
    @dataclass
    class Local:
        n: int

    def body(a: Local, b: Later, c: int) -> Local:
        return Local(a.n)

    arguments = Arguments(body)

    @dataclass
    class Later:
        n: int

    # `Local` is used by the body, so it is found; `Later` is not, so `b` is untyped.
    assert arguments.bind((Local(1), 2, 3), {}) == b'[[{"n":1},2,3],{}]'
    assert arguments.load(b'[[{"n":1},2,3],{}]') == ((Local(1), 2, 3), {})
    with pytest.raises(NotStorable, match=r"a `.*Later` .* has no stored form"):
        arguments.bind((Local(1), Later(2), 3), {})
    with pytest.raises(ArgumentError, match=r"body\(c=\): expected `int`"):
        arguments.bind((Local(1), 2, "3"), {})
    assert arguments.result.dump(Local(2)) == b'{"n":2}'
    assert arguments.signature == "body(a: Local, b: Later, c: int)"


def test_the_result_has_the_shape_of_the_return_annotation() -> None:
    assert Arguments(fetch).result.load(b"3") == 3
    assert Arguments(nothing).result.dump(None) == b"null"
    assert Arguments(untyped).result.dump((1,)) == b'{"$tuple":[1]}'
    assert Arguments(half_resolved).result.dump((1,)) == b'{"$tuple":[1]}'
    with pytest.raises(NotStorable, match=r"^`\$` cannot be stored: expected `int`, got `str` \('x'\)$"):
        Arguments(fetch).result.dump("x")


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (fetch, "fetch(url: str, depth: int = 0)"),
        (
            mixed,
            (
                "mixed(a: int, b: str = 'b', /, c: float = 1.0, *rest: Item, "
                "d: datetime | None = None, **more: int)"
            ),
        ),
        (named, "named(*, url: str, depth: int = 0)"),
        (untyped, "untyped(a, b=2, *c, **d)"),
        (nothing, "nothing()"),
        (only, "only(a='" + "x" * 38 + "…, /)"),
    ],
    ids=range(6),
)
def test_the_signature_is_short_text(fn: Any, text: str) -> None:
    assert Arguments(fn).signature == text


def test_the_signature_names_types_that_are_no_strings() -> None:
    def fn(a: Any, b: Any, c: Any, d: Any) -> None: ...

    fn.__annotations__ = {"a": list[Item], "b": int | None, "c": msgspec.Raw, "d": dict[str, tuple[int, ...]]}
    assert (
        Arguments(fn).signature == "fn(a: list[Item], b: int | None, c: Raw, d: dict[str, tuple[int, ...]])"
    )


def test_a_wrapped_function_has_the_signature_of_what_it_wraps() -> None:
    @functools.wraps(fetch)
    def wrapper(*args: Any, **kwargs: Any) -> Any: ...

    with pytest.raises(ArgumentError, match=r"fetch\(url=\): expected `str`"):
        Arguments(wrapper).bind((1,), {})


# -- injected parameters


def test_injected_parameters_are_left_out() -> None:
    def save(url: str, conn: object = None, status: int = 200, *, log: object = None) -> None: ...

    arguments = Arguments(save, injected=("conn", "log"))
    assert arguments.signature == "save(url: str, status: int = 200)"
    assert arguments.bind(("x",), {"status": 3}) == b'[["x"],{"status":3}]'
    assert arguments.load(b'[["x"],{"status":3}]') == (("x",), {"status": 3})
    with pytest.raises(ArgumentError) as caught:
        arguments.bind(("x",), {"conn": 1})
    assert str(caught.value).startswith(
        "save() is given 'conn' by Everloop when it runs; leave it out of the call\nIts signature is save("
    )
    with pytest.raises(ArgumentError, match="takes 1 positional argument but 2 were given"):
        arguments.bind(("x", 1), {})


def test_nothing_by_position_can_follow_an_injected_parameter() -> None:
    def save(conn: object = None, *urls: str) -> None: ...

    with pytest.raises(FunctionError) as caught:
        Arguments(save, injected=["conn"])
    assert str(caught.value) == (
        "save(): `*urls: 'str'` stands after the injected `conn`, where nothing can be passed to it; "
        "make `conn` the last parameter"
    )


# -- one more argument, later


def test_a_place_is_left_for_the_last_argument() -> None:
    def notify(channel: int, task: object, *, loud: bool = False) -> None: ...

    arguments = Arguments(notify)
    data = arguments.bind_before_last((2,), {})
    assert data == b"[[2],{},1]"
    assert arguments.load(data) == ((2,), {})
    assert arguments.load(arguments.bind_before_last((), {"channel": 2, "loud": True})) == (
        (2,),
        {"loud": True},
    )
    with pytest.raises(ArgumentError) as caught:
        arguments.bind_before_last((2, 3), {})
    assert str(caught.value) == (
        "notify() has no place for one more argument after these 2: the finished task\n"
        "Its signature is notify(channel: int, task: object, *, loud: bool = False)."
    )
    with pytest.raises(ArgumentError, match=r"notify\(channel=\): expected `int`"):
        arguments.bind_before_last(("x",), {})
    with pytest.raises(ArgumentError, match="is missing 1 required argument: 'task'"):
        arguments.bind_before_last((), {})
    assert Arguments(untyped).bind_before_last((1, 2, 3), {}) == b"[[1,2,3],{},1]"


# -- what is no stored arguments


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it is no valid JSON: Input data was truncated"),
        (b'"x"', "they are no array of positional and object of named values"),
        (b"[]", "they are no array of positional and object of named values"),
        (b'["x",{}]', "they are no array of positional and object of named values"),
        (b"[[],[]]", "they are no array of positional and object of named values"),
        (b'[["x"],{},7]', "they are no array of positional and object of named values"),
        (b'[["x"],{},1,2]', "they are no array of positional and object of named values"),
        (b'[["x"],{"depth":1,"depth":2}]', "it is no valid JSON: the key 'depth' stands twice in one object"),
        (b'[["\xff"],{}]', "it is no valid JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[[[[[" * 100_000, "it nests deeper than 100 levels"),
        (b"[[1],{}]", "at `url`: expected `str`, got `int`"),
        (b'[["x"],{"depth":"y"}]', "at `depth`: expected `int`, got `str`"),
        (b"[[],{}]", "they were stored for another signature: fetch() is missing 1 required argument: 'url'"),
        (b'[["x",1,2],{}]', "they were stored for another signature: fetch() takes 1 to 2 positional"),
        (b'[["x"],{"deep":1}]', "they were stored for another signature: fetch() got an unexpected keyword"),
    ],
    ids=range(15),
)
def test_what_is_no_stored_arguments_is_refused(data: bytes, text: str) -> None:
    arguments = Arguments(fetch)
    arguments.bind(("x",), {})
    with pytest.raises(NotStorable) as caught:
        arguments.load(data)
    assert str(caught.value).startswith(f"the stored arguments of fetch() cannot be read: {text}")


@given(st.binary(max_size=100))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(NotStorable):
        Arguments(fetch).load(data)


def test_json_written_by_hand_is_read() -> None:
    arguments = Arguments(mixed)
    assert arguments.load(b' [ [1], { "c" : 2, "z": 3 } ] ') == ((1,), {"c": 2.0, "z": 3})
    assert Arguments(fetch).load(b'[[], {"url": "x", "depth": 2}]') == (("x", 2), {})


def test_few_combinations_of_types_are_remembered() -> None:
    arguments = Arguments(untyped)
    kinds = [1, "x", None, True, 1.5]
    for number in range(5**4):
        args = tuple(kinds[number // 5**place % 5] for place in range(4))
        assert arguments.load(arguments.bind(args, {}))[0] == args
    assert len(arguments._exact) == 128
