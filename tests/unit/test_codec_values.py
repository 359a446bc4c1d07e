"""What goes into the codec comes out of it: the same values, of the same types; or it is refused."""

from __future__ import annotations

import asyncio
import collections
import enum
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop._core.codec import Shape, register
from everloop._core.codec.compare import require_same
from everloop._core.codec.refusal import Refused
from everloop._core.errors import NotStorable

NAN = float("nan")
T = TypeVar("T")
UserId = NewType("UserId", int)


@dataclass
class Line:
    sku: str
    total: float
    extra: Any = None


@dataclass
class Discount(Line):
    percent: int = 10


@dataclass(frozen=True)
class Order:
    id: int
    lines: list[Line] = field(default_factory=list[Line])
    tags: Sequence[str] = ()


@dataclass
class Box(Generic[T]):
    inside: T


@dataclass
class Either:
    what: Line | Order


@dataclass
class Node:
    below: Node | None = None


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise RuntimeError("odd")


class Point(msgspec.Struct):
    x: float
    y: Any = None


class Row(msgspec.Struct, array_like=True):
    x: float
    y: Any = None


class Renamed(msgspec.Struct, rename="camel", tag=True):
    full_name: str
    note: Any = None


@attrs.define
class Customer:
    name: str
    seen: set[str] = attrs.field(factory=set)


class Pair(NamedTuple):
    left: int
    right: Any = None


class Config(TypedDict, total=False):
    name: str
    depth: int


class Colour(enum.Enum):
    RED = "red"


class Odd(enum.Enum):
    ONE = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Model(pydantic.BaseModel):
    name: str
    at: datetime | None = None
    ratio: float = 0.0
    labels: set[str] = set()


class Aliased(pydantic.BaseModel):
    full_name: str = pydantic.Field(alias="fullName")
    inner: Model | None = None


class SubModel(Model):
    more: int = 0


class Handle:
    """Stands for a class of an upper layer that travels by its id."""

    def __init__(self, id: str) -> None:
        self.id = id


class SubHandle(Handle):
    pass


loaded: list[str] = []


def _load_handle(body: Any) -> Handle:
    loaded.append(body)
    return Handle(body)


register(Handle, "handle", lambda handle: handle.id, _load_handle)


@dataclass
class Holder:
    handle: Handle


def there_and_back(annotation: Any, value: Any) -> Any:
    shape = Shape(annotation)
    data = shape.dump(value)
    data.decode()  # UTF-8
    came = shape.load(data)
    require_same(value, came)
    assert Shape(annotation).dump(came) == data or annotation in (float, list[float])
    return came


TYPED = [
    (int, 1),
    (int, -(2**70)),
    (int, 10**5000),
    (float, 1.5),
    (float, NAN),
    (float, float("-inf")),
    (str, "naïve ☃"),
    (bool, True),
    (None, None),
    (type(None), None),
    (bytes, b"\xff\x00"),
    (bytearray, bytearray(b"x")),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6)),  # naive ones are values, too
    (datetime, datetime(2026, 1, 2, tzinfo=UTC)),
    (datetime, datetime(1890, 1, 1, tzinfo=timezone(timedelta(seconds=3208)))),
    (date, date(2026, 1, 2)),
    (time, time(1, 2, 3, 4)),
    (timedelta, timedelta(days=-1, seconds=2, microseconds=3)),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("sNaN")),
    (UUID, UUID(int=7)),
    (Path, Path("/tmp/x")),
    (PurePath, PurePosixPath("a/b")),
    (Path | None, Path("a")),
    (Path | str, Path("a")),
    (Path | str, "a"),
    (list[int], [1, 2]),
    (list[float], [1.0, NAN]),
    (list[Any], [1, (2, {3})]),
    (dict[str, Any], {"$a": 1, "b": (1,)}),
    (dict[str, int], {"$": 1}),
    (dict[int, str], {1: "a"}),
    (dict[tuple[int, int], int], {(1, 2): 3}),
    (set[int], {3, 1, 2}),
    (set[float], {NAN, 1.0}),
    (frozenset[str], frozenset({"b", "a"})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[Line | Order, int], (Line("a", 1.0), 2)),
    (Line, Line("a", 1.0)),
    (Line, Line("a", NAN, (1, {2}))),
    (Order, Order(1, [Line("a", 1.0)])),
    (Order, Order(1, [Line("a", 1.0)], ["x"])),
    (Box[int], Box(1)),
    (Box[tuple[int, ...]], Box((1, 2))),
    (Box[Any], Box((1, 2))),
    (Either, Either(Order(1))),
    (Line | Order, Order(1, [Line("a", 2.0)], ("t",))),
    (Line | Order | None, None),
    (list[Line | Discount], [Line("a", 1.0), Discount("b", 2.0, None, 5)]),
    (dict[str, Line | Discount], {"a": Line("a", 1.0)}),
    (Node, Node(Node(Node()))),
    (Point, Point(1.0, (1,))),
    (Row, Row(1.0)),
    (Row, Row(NAN, (1,))),
    (Renamed, Renamed("x")),
    (Renamed, Renamed("x", {1})),
    (Point | Line | None, Point(2.0)),
    (Customer, Customer("a", {"x", "y"})),
    (Pair, Pair(1, (2,))),
    (Config, {"name": "a", "depth": 1}),
    (Colour, Colour.RED),
    (Odd, Odd.ONE),
    (Level, Level.HIGH),
    (Mode, Mode.READ | Mode.WRITE),
    (list[Colour], [Colour.RED]),
    (Colour | str, Colour.RED),
    (Model, Model(name="a", at=datetime(2026, 1, 1, tzinfo=UTC))),
    (Model, Model(name="a", ratio=NAN, labels={"b", "a"})),
    (Aliased, Aliased(fullName="a", inner=Model(name="b"))),
    (list[Model], [Model(name="a")]),
    (Model | None, None),
    (Model | Aliased, Aliased(fullName="a")),
    (Literal["a", 1], "a"),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
    (UserId, UserId(4)),
    (int | None, None),
    (int | str, "1"),
    (float | int, 3),
    (bytes | str, b"a"),
    (datetime | str, "x"),
    (Sequence[int], (1, 2)),
    (Sequence[str], "abc"),
    (Sequence[int] | None, [1]),
    (list[Sequence[int]], [(1,), [2]]),
    (Mapping[str, int], {"a": 1}),
    (Iterable[int], {1, 2}),
    (T, (1, 2)),
    (object, (1, 2)),
    (list, [(1,)]),
    (dict, {"a": {1}}),
    (tuple, (1, [2])),
    (set, {1}),
    ("NotResolved", (1,)),
]


@pytest.mark.parametrize(("annotation", "value"), TYPED, ids=range(len(TYPED)))
def test_a_typed_value_comes_back_the_same(annotation: Any, value: Any) -> None:
    there_and_back(annotation, value)


UNTYPED = [
    *(1, -1, 2**64, 10**5000, 1.5, -0.0, NAN, float("inf"), True, None, "x", "$x", b"", b"\xff"),
    *((1, 2), {1, 2}, frozenset({"a"}), [(1,), [{2}]], {}, [], (), set()),
    *({"$tuple": 1}, {"$": {"$x": 2}}, {1: "a", "b": 2}, {(1, 2): {3: 4}}, {None: 1, True: 2}),
    *(datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), time(1, tzinfo=UTC), timedelta(microseconds=-1)),
    *(Decimal("NaN"), Decimal("1E+5"), UUID(int=1), Path("a"), PurePosixPath("b"), PureWindowsPath("c:/d")),
]


@pytest.mark.parametrize("value", UNTYPED, ids=range(len(UNTYPED)))
def test_an_untyped_value_comes_back_the_same(value: Any) -> None:
    came = there_and_back(Any, value)
    assert type(came) is type(value)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
)
keys = st.text() | st.integers() | st.booleans() | st.none() | st.sampled_from(["$", "$tuple", "$:Line"])
# A signalling nan cannot be hashed.
hashable = st.recursive(
    leaves.filter(lambda leaf: not (isinstance(leaf, Decimal) and leaf.is_snan())),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.frozensets(hashable, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_any_untyped_value_comes_back_the_same(value: Any) -> None:
    shape = Shape()
    require_same(value, shape.load(shape.dump(value)))


@given(values)
def test_any_value_inside_a_record_comes_back_the_same(value: Any) -> None:
    shape = Shape(Line)
    line = Line("a", 1.0, value)
    require_same(line, shape.load(shape.dump(line)))


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_garbage_is_read_or_refused(data: bytes | str) -> None:
    for annotation in (Any, int, dict[str, Any], Line, Line | Order, Model, set[int]):
        with suppress(NotStorable):  # and nothing else
            Shape(annotation).load(data)


tag_names = st.sampled_from(
    [
        "$",
        "$tuple",
        "$set",
        "$frozenset",
        "$dict",
        "$bytes",
        "$int",
        "$float",
        "$decimal",
        "$uuid",
        "$datetime",
        "$date",
        "$time",
        "$timedelta",
        "$path",
        "$posixpath",
        "$windowspath",
        "$:Line",
        "$handle",
        "$unknown",
        "plain",
    ]
)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["0x1", "nan", "sku"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(tag_names | st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=10,
)


@given(trees)
def test_any_tree_of_tags_is_read_or_refused(tree: Any) -> None:
    data = msgspec.json.encode(tree)
    for annotation in (Any, Line, Line | Order, list[Handle], dict[str, int]):
        with suppress(NotStorable):  # and nothing else
            Shape(annotation).load(data)


def test_plain_values_are_plain_json() -> None:
    assert Shape(Order).dump(Order(1, [Line("a", 1.0)], [])) == (
        b'{"id":1,"lines":[{"sku":"a","total":1.0,"extra":null}],"tags":[]}'
    )
    assert Shape(Model).dump(Model(name="a")) == (
        b'{"$":{"$:Model":{"name":"a","at":null,"ratio":0.0,"labels":{"$set":[]}}}}'
    )
    assert Shape(datetime).dump(datetime(2026, 1, 1, tzinfo=UTC)) == b'"2026-01-01T00:00:00Z"'
    assert Shape(float).dump(NAN) == b'{"$":{"$float":"nan"}}'
    assert Shape().dump({"a": (1, b"x")}) == b'{"a":{"$tuple":[1,{"$bytes":"eA=="}]}}'
    assert Shape().dump({"$a": 1, 2: 3}) == b'{"$dict":[["$a",1],[2,3]]}'


def test_what_was_stored_untyped_is_read_with_an_annotation() -> None:
    assert Shape(tuple[int, int]).load(Shape().dump((1, 2))) == (1, 2)
    assert Shape(float).load(b"3") == 3.0
    assert Shape().load(Shape(float).dump(float("inf"))) == float("inf")


def test_equal_sets_have_equal_bytes_in_every_process() -> None:
    code = (
        "from everloop._core.codec import Shape\n"
        "words = {f'word {n}' for n in range(50)}\n"
        "print(Shape().dump(words) + Shape(set[str]).dump(words) + Shape(list[set[str]]).dump([words]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_order_of_a_dict_is_kept() -> None:
    for annotation in (Any, dict[str, int], dict[str, Any], dict[str, set[int]]):
        value = {"b": {1}, "a": {2}} if annotation == dict[str, set[int]] else {"b": 1, "a": 2}
        assert list(there_and_back(annotation, value)) == ["b", "a"]


def test_a_time_in_a_repeated_hour_comes_back() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for fold in (0, 1):
        at = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold)
        assert there_and_back(datetime, at).utcoffset() == at.utcoffset()
        assert there_and_back(Any, at).utcoffset() == at.utcoffset()


FORMS = (
    "pass str, int, float, bool, None, list, dict, tuple, set, frozenset, bytes, datetime, date, time, "
    "timedelta, Decimal, UUID or Path, or annotate it with its class (dataclass, attrs, msgspec, pydantic, "
    "TypedDict, NamedTuple, Enum)"
)
REFUSED = [
    (int, True, "expected `int`, got `bool` (True)"),
    (int, 1.0, "expected `int`, got `float` (1.0)"),
    (int, "x", "expected `int`, got `str` ('x')"),
    (int, 1j, "expected `int`, got `complex` (1j)"),
    (float, True, "expected `float`, got `bool` (True)"),
    (float, 2**53 + 1, "expected `float`, got `int` (9007199254740993)"),
    (None, 3, "expected `None`, got `int` (3)"),
    (int | None, "x", "expected `int | None`, got `str` ('x')"),
    (Line | Order, 3, "expected `Line | Order`, got `int` (3)"),
    (str | Path, 3, "expected `str | Path`, got `int` (3)"),
    (datetime, "2026-01-01", "expected `datetime`, got `str` ('2026-01-01')"),
    (tuple[int, int], [1, 2], "expected `tuple`, got `list` ([1, 2])"),
    (list[int], (1, 2), "expected `list`, got `tuple` ((1, 2))"),
    (
        Path,
        PurePosixPath("a"),
        "expected `Path`, got `PurePosixPath` (PurePosixPath('a'))",
    ),
    (
        Line,
        {"sku": "a", "total": 1.0},
        "expected `Line`, got `dict` ({'sku': 'a', 'total': 1.0})",
    ),
    (list[Line], [Line("a", "b")], "`$[0].total` cannot be stored: expected `float`, got `str`"),  # type: ignore[arg-type]
    (dict[str, list[int]], {"a b": [1, "x"]}, "`$[...][1]` cannot be stored: expected `int`, got `str`"),
    (tuple[Line | Order, int], (Order(1), "x"), "`$[1]` cannot be stored: expected `int`, got `str` ('x')"),
    (
        tuple[Line | Order],
        (Order(1), 2),
        "expected `tuple[Line | Order]`, got `tuple` ((Order(id=1, lines=[], tags=()), 2))",
    ),
    (Sequence[int], [1, "2"], "`$[1]` cannot be stored: expected `int`, got `str` ('2')"),
    (Sequence[int], 5, "expected `Sequence[int]`, got `int` (5)"),
    (Literal["a", 1], "b", "expected `Literal['a', 1]`, got `str` ('b')"),
    (Annotated[int, msgspec.Meta(ge=0)], -1, "expected `int` >= 0, got -1"),
    (Level, 3, "expected `Level`, got `int` (3)"),
    (
        int,
        Level.HIGH,
        "a `Level` (<Level.HIGH: 3>) would come back as a plain `int`; annotate it with `Level`, or pass",
    ),
    (
        dict,
        collections.OrderedDict(a=1),
        (
            f"a `OrderedDict` ({collections.OrderedDict(a=1)!r}) would come back as a plain `dict`; "
            "annotate it with"
        ),
    ),
    (
        Line,
        Discount("a", 1.0),
        "expected `Line`, got `Discount` (Discount(sku='a', total=1.0",
    ),
    (Model, SubModel(name="a"), "a `SubModel` (SubModel(name='a', at=None, ratio=0.0"),
    (Model, {"name": "a"}, "expected `Model`, got `dict` ({'name': 'a'})"),
    (
        Any,
        {"orders": [1, 2, {"total": 1j}]},
        f"`$.orders[2].total` cannot be stored: a `complex` (1j) has no stored form; {FORMS}",
    ),
    (Any, {1: {2j}}, "`$[1][...]` cannot be stored: a `complex` (2j) has no stored form"),
    (complex, 1j, "a `complex` (1j) has no stored form"),
    (
        Any,
        Line("a", 1.0),
        "a `Line` (Line(sku='a', total=1.0, extra=None)) has no stored form",
    ),
    (
        Callable[[int], int],
        print,
        "a `builtin_function_or_method` (<built-in function print>)",
    ),
    (Iterator[int], iter([1]), "a `list_iterator` ("),
    (
        Any,
        ["a", "\ud800"],
        r"`$[1]` cannot be stored: '\ud800' contains a lone surrogate, which UTF-8 cannot say",
    ),
    (str, "\ud800", r"'\ud800' contains a lone surrogate, which UTF-8 cannot say"),
    (list[str], ["\ud800"], r"`$[0]` cannot be stored: '\ud800' contains a lone surrogate"),
    (Any, {"\ud800": 1}, "`$['\\ud800']` cannot be stored: '\\ud800' contains a lone surrogate"),
    (Even, object.__new__(Even), ""),
]


@pytest.mark.parametrize(("annotation", "value", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_would_not_come_back_is_refused(annotation: Any, value: Any, text: str) -> None:
    with pytest.raises(NotStorable) as caught:
        Shape(annotation).dump(value)
    assert str(caught.value).startswith(text if text.startswith("`$") else f"`$` cannot be stored: {text}")


def test_the_path_begins_where_the_caller_says() -> None:
    with pytest.raises(NotStorable, match=r"^`order\.x\[0\]` cannot be stored"):
        Shape().dump({"x": [1j]}, "order")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_deep_values_are_stored_to_a_hundred_levels_and_refused_beyond() -> None:
    too_deep = "it nests deeper than 100 levels, or contains itself; pass a flatter value"
    circle: list[Any] = []
    circle.append(circle)
    chain = Node()
    for _ in range(5000):
        chain = Node(chain)
    for annotation in (Any, list, list[Any], Sequence[Any]):
        there_and_back(annotation, nested(100))
        for value in (nested(101), nested(5000), circle):
            with pytest.raises(NotStorable) as caught:
                Shape(annotation).dump(value)
            assert str(caught.value).endswith(too_deep)
            assert len(str(caught.value)) < 400
    with pytest.raises(NotStorable, match="deeper than 100 levels"):
        Shape(Node).dump(chain)


UNREADABLE = [
    (Any, b"", "it is no valid JSON: Input data was truncated"),
    (
        Any,
        b'{"a":1,"a":2}',
        "it is no valid JSON: the key 'a' stands twice in one object",
    ),
    (
        dict[str, int],
        b'{"a":1,"a":2}',
        "it is no valid JSON: the key 'a' stands twice",
    ),
    (
        Any,
        b'"\xff"',
        "it is no valid JSON: 'utf-8' codec can't decode byte 0xff",
    ),
    (str, b'"\xff"', "'utf-8' codec can't decode byte 0xff"),
    (str, '"\ud800"', "'utf-8' codec can't decode"),
    (Any, b'"\\ud800"', "it is no valid JSON"),
    (Any, b"[" * 100_000, "it nests deeper than 100 levels"),
    (list[Any], b"[" * 100_000, "it nests deeper than 100 levels"),
    (Any, b"[" * 450 + b"{}" + b"]" * 450, "the stored `$[0]"),
    (Any, b'{"$tuple":[' * 100_000, "it nests deeper than 100 levels"),
    (int, b"9" * 100_000, "integer value out of range"),
    (int, b'"x"', "expected `int`, got `str`"),
    (list[Line], b'[{"sku":1}]', "the stored `$[0].sku` cannot be read: expected `str`, got `int`"),
    (list[Line], b'[{"sku":"a"}]', "the stored `$[0]` cannot be read: object missing required field `total`"),
    (
        Any,
        b'[{"$tuple":3}]',
        "the stored `$[0]` cannot be read: the stored $tuple cannot be read: it is no array",
    ),
    (Any, b'{"$int":"zz"}', "the stored $int cannot be read: invalid literal"),
    (
        Any,
        b'{"$x":3}',
        "the tag '$x' is unknown here; the value was stored with other annotations",
    ),
    (
        Any,
        b'{"$int":"0x1","b":2}',
        "a tag stands alone in its object, and this one has ['$int', 'b']",
    ),
    (
        Any,
        b'{"a":{"$set":[[]]}}',
        # Python's own words follow; each version has others.
        "the stored `$.a` cannot be read: the stored $set cannot be read: ",
    ),
    (Even, b'{"number":3}', "odd"),
    (Model, b'{"at":3}', "1 validation error for Model"),
]


@pytest.mark.parametrize(("annotation", "data", "text"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_stored_value_is_refused(annotation: Any, data: bytes | str, text: str) -> None:
    with pytest.raises(NotStorable) as caught:
        Shape(annotation).load(data)
    whole = text if text.startswith("the stored `$") else f"the stored `$` cannot be read: {text}"
    assert str(caught.value).startswith(whole)


# -- registered classes


@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (Any, lambda handle: handle),
        (Handle, lambda handle: handle),
        (Handle | None, lambda handle: handle),
        (Handle | str, lambda handle: handle),
        (list[Handle], lambda handle: [handle]),
        (list[Any], lambda handle: [(handle,)]),
        (Holder, Holder),
        (dict[str, Holder], lambda handle: {"a": Holder(handle)}),
    ],
    ids=range(8),
)
def test_a_registered_class_travels_by_its_tag(annotation: Any, wrap: Callable[[Handle], Any]) -> None:
    loaded.clear()
    data = Shape(annotation).dump(wrap(SubHandle("h1")))
    assert b'{"$handle":"h1"}' in data
    assert loaded == [], "a value that is only checked is not loaded"
    came = Shape(annotation).load(data)
    assert loaded == ["h1"]
    while not isinstance(came, Handle):
        came = next(iter(came.values())) if isinstance(came, dict) else came
        came = came.handle if isinstance(came, Holder) else came
        came = came[0] if isinstance(came, list | tuple) else came
    assert came.id == "h1"


def test_a_registered_class_is_no_other_class() -> None:
    with pytest.raises(NotStorable, match="expected `int`, got `Handle`"):
        Shape(int).dump(Handle("h"))
    with pytest.raises(NotStorable, match="expected `Handle`, got `int`"):
        Shape(Handle).dump(5)


@pytest.mark.parametrize("tag", ["tuple", "handle", "not a word", ""])
def test_a_tag_is_an_identifier_and_taken_once(tag: str) -> None:
    with pytest.raises(ValueError, match="is taken, or is no identifier"):
        register(asyncio.Event, tag, id, id)


# -- the comparison


@pytest.mark.parametrize(
    ("went", "came", "text"),
    [
        (1, True, "expected `bool`, got `int` (1)"),
        (1, 2, "1 would come back as 2"),
        ("a", "b", "'a' would come back as 'b'"),
        (1.0, NAN, "1.0 would come back as nan"),
        ([1], [1, 2], "[1] would come back as [1, 2]"),
        ({1}, {True}, "expected `bool`, got `int` (1)"),
        ({1, 2}, {1, 3}, "{1, 2} would come back as {1, 3}"),
        ({1}, {1, 2}, "{1} would come back as {1, 2}"),
        ({"a": 1}, {"a": 1, "b": 2}, "{'a': 1} would come back as {'a': 1, 'b': 2}"),
        (Decimal("1.0"), Decimal("1.00"), "Decimal('1.0') would come back as Decimal('1.00')"),
        (Line("a", 1.0), Line("a", 2.0), "1.0 would come back as 2.0"),
    ],
    ids=range(11),
)
def test_the_comparison_sees_types_and_values(went: Any, came: Any, text: str) -> None:
    with pytest.raises(Refused) as caught:
        require_same(went, came)
    assert caught.value.text == text


def test_the_comparison_takes_nan_for_nan_and_an_int_for_its_float() -> None:
    require_same([NAN, {NAN, 1.0}, Decimal("sNaN"), 3], [NAN, {1.0, NAN}, Decimal("sNaN"), 3.0])


def test_a_message_survives_a_repr_that_raises() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(
        NotStorable, match=r"a `.*Rude` .<Rude, whose repr raised RuntimeError>. has no stored form"
    ):
        Shape().dump(Rude())
