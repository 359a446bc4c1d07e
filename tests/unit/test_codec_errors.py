"""An exception crosses processes: its class, text, arguments, notes, members; and never fails to."""

from __future__ import annotations

import asyncio
import builtins
import copy
import errno
import pickle
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop._core.codec import RemoteTraceback, dump_error, error_record, load_error
from everloop._core.errors import (
    CallError,
    EverloopError,
    ResultNotStorable,
    TaskCrashed,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    WouldDeadlock,
)


class HTTPError(Exception):
    """Takes another thing than it passes on, as many do."""

    def __init__(self, status: int, *, reason: str = "") -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.reason = reason
        self.socket = object()


class DiskError(OSError):
    pass


class Several(ExceptionGroup[Exception]):
    pass


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("no subclasses")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def cross(error: BaseException, raises: Iterable[type[BaseException]] = ()) -> TaskFailed:
    return load_error(dump_error(raised(error)), raises, task_id="the id")


CONSTRUCTED = [
    (name, args)
    for name, cls in vars(builtins).items()
    if isinstance(cls, type) and issubclass(cls, Exception) and name == cls.__name__
    for args in ((), ("a",), (2, "No such file", "f"), ("utf-8", b"x", 0, 1, "why"), ("m", [ValueError("x")]))
    # BlockingIOError alone, and no subclass of it, takes a number where others take a file name.
    if not issubclass(cls, (StopIteration, StopAsyncIteration))
    and not (name == "BlockingIOError" and len(args) == 5)
]


@pytest.mark.parametrize(("name", "args"), CONSTRUCTED, ids=range(len(CONSTRUCTED)))
def test_every_builtin_arrives_as_itself(name: str, args: tuple[Any, ...]) -> None:
    cls = getattr(builtins, name)
    try:
        error = cls(*args)
    except TypeError:
        return
    came = cross(error)
    assert isinstance(came, TaskFailed) and isinstance(came, cls)
    assert str(came) == str(error)
    assert came.type_name == type(error).__name__
    assert type(came).__name__ == type(error).__name__ and type(came).__module__ == "builtins"
    if not isinstance(error, ExceptionGroup) and not any(isinstance(arg, list) for arg in args):
        assert came.args == error.args
        assert {k: v for k, v in vars(came).items() if not k.startswith("_")} == {
            "type_name": type(error).__name__,
            "task_id": "the id",
        }


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt("x"), SystemExit(3), GeneratorExit(), StopIteration(1), StopAsyncIteration()]
)
def test_what_would_do_more_than_fail_arrives_as_a_plain_failure(error: BaseException) -> None:
    came = cross(error, [type(error)])
    assert type(came) is TaskFailed
    assert came.type_name == type(error).__name__
    assert str(came) == (f"{came.type_name}: {error}" if str(error) else came.type_name)
    assert type(cross(asyncio.CancelledError(), [asyncio.CancelledError])) is TaskFailed


def test_fields_of_builtins_arrive() -> None:
    missing = cross(FileNotFoundError(errno.ENOENT, "No such file", "f"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.strerror, missing.filename) == (errno.ENOENT, "No such file", "f")
    imported = cross(ImportError("x", name="a", path="b"))
    assert isinstance(imported, ImportError) and (imported.name, imported.path) == ("a", "b")
    try:
        _ = object().nothing  # type: ignore[attr-defined]
    except AttributeError as error:
        attribute = cross(error)
    assert isinstance(attribute, AttributeError) and attribute.name == "nothing"
    decoded = cross(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"))
    assert isinstance(decoded, UnicodeDecodeError) and decoded.object == b"\xff"
    key = cross(KeyError("a"))
    assert str(key) == "'a'" and key.args == ("a",)


def test_a_declared_class_arrives_as_itself() -> None:
    for raises in ([HTTPError], {"HTTPError": HTTPError}, (ValueError, HTTPError)):
        came = load_error(dump_error(raised(HTTPError(404, reason="gone"))), raises, task_id="1")
        assert isinstance(came, HTTPError) and isinstance(came, TaskFailed)
        assert (str(came), came.args, came.status, came.reason) == ("HTTP 404", ("HTTP 404",), 404, "gone")
        assert not hasattr(came, "socket")
        assert (came.type_name, came.task_id) == ("HTTPError", "1")
        assert type(came).__qualname__ == "HTTPError"
    first, second = cross(HTTPError(1), [HTTPError]), cross(HTTPError(2), [HTTPError])
    assert type(first) is type(second)
    disk = cross(DiskError(5, "io"), [DiskError])
    assert isinstance(disk, DiskError) and disk.errno == 5


def test_another_class_arrives_as_a_failure_with_its_name() -> None:
    for raises in ((), [OSError], [DiskError]):
        came = cross(HTTPError(404), raises)
        assert type(came) is TaskFailed
        assert (str(came), came.args, came.type_name) == (
            "HTTPError: HTTP 404",
            ("HTTPError: HTTP 404",),
            "HTTPError",
        )


def test_a_class_that_cannot_be_combined_arrives_as_a_failure() -> None:
    assert type(cross(Final("x"), [Final])) is TaskFailed
    unstorable = cross(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "why"))
    assert type(unstorable) is TaskFailed and unstorable.type_name == "UnicodeEncodeError"


def test_our_own_errors_arrive_as_themselves() -> None:
    for cls in (TaskFailed, TaskExpired, TaskCrashed, ResultNotStorable):
        came = load_error(error_record(cls, "why"), task_id="1")
        assert (type(came), str(came), came.task_id, came.type_name) == (cls, "why", "1", cls.__name__)
        assert came.__cause__ is None
    for other in (WouldDeadlock, TaskNotFound, CallError, EverloopError):
        came = cross(other("why"))
        assert isinstance(came, other) and isinstance(came, TaskFailed) and str(came) == "why"


def test_the_remote_traceback_is_the_cause() -> None:
    def inner() -> None:
        raise ValueError("deep") from KeyError("root")

    try:
        inner()
    except ValueError as error:
        came = load_error(dump_error(error))
        short = load_error(dump_error(error, skip_frames=1))
        none = load_error(dump_error(error, skip_frames=99))
    cause = came.__cause__
    assert isinstance(cause, RemoteTraceback)
    text = str(cause)
    assert text.startswith("KeyError: 'root'\n\nThe above exception was the direct cause")
    assert "in test_the_remote_traceback_is_the_cause" in text and "in inner" in text
    assert text.endswith("ValueError: deep\n")
    assert "in test_the" not in str(short.__cause__) and "in inner" in str(short.__cause__)
    assert "in inner" not in str(none.__cause__)


def test_notes_arrive() -> None:
    error = ValueError("x")
    error.add_note("while fetching")
    came = cross(error)
    assert came.__notes__ == ["while fetching"]
    assert cross(came).__notes__ == ["while fetching"]


def test_a_group_arrives_member_by_member() -> None:
    group = ExceptionGroup("two", [ValueError(1), ExceptionGroup("more", [HTTPError(3), KeyError("k")])])
    came = cross(group, [HTTPError])
    assert isinstance(came, ExceptionGroup) and isinstance(came, TaskFailed)
    assert str(came) == "two (2 sub-exceptions)" and came.message == "two"
    value, more = came.exceptions
    assert isinstance(value, ValueError) and isinstance(value, TaskFailed) and value.task_id == "the id"
    assert isinstance(more, ExceptionGroup) and isinstance(more.exceptions[0], HTTPError)
    assert isinstance(value.__cause__, RemoteTraceback)
    caught: list[str] = []
    try:
        raise came
    except* KeyError:
        caught.append("key")
    except* TaskFailed:
        caught.append("rest")
    assert caught == ["key", "rest"]
    several = cross(Several("s", [ValueError(1)]), [Several])
    assert isinstance(several, Several)
    base = cross(BaseExceptionGroup("b", [KeyboardInterrupt(), ValueError()]))
    assert isinstance(base, BaseExceptionGroup) and type(base.exceptions[0]) is TaskFailed


def test_a_failure_crosses_twice() -> None:
    once = cross(HTTPError(404), [HTTPError])
    twice = cross(once, [HTTPError])
    assert isinstance(twice, HTTPError) and (str(twice), twice.status) == ("HTTP 404", 404)
    assert "RemoteTraceback" in str(twice.__cause__)
    plain = cross(cross(HTTPError(404)))
    assert (type(plain), str(plain), plain.type_name) == (TaskFailed, "HTTPError: HTTP 404", "HTTPError")
    missing = cross(cross(FileNotFoundError(2, "No such file", "f")))
    assert isinstance(missing, FileNotFoundError) and missing.filename == "f"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("k"),
        FileNotFoundError(2, "No", "f"),
        HTTPError(404),
        ExceptionGroup("g", [ValueError(1)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_can_be_copied_and_pickled(error: Exception) -> None:
    came = cross(error, [HTTPError])
    for twin in (copy.copy(came), pickle.loads(pickle.dumps(came))):
        assert type(twin) is type(came) and str(twin) == str(came)
        assert (twin.task_id, twin.type_name) == ("the id", type(error).__name__)
        assert getattr(twin, "filename", None) == getattr(came, "filename", None)
        assert getattr(twin, "status", None) == getattr(came, "status", None)


# -- whatever an exception does


class Rude(Exception):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__

    @property
    def args(self) -> Any:
        raise KeyboardInterrupt

    @property
    def __notes__(self) -> Any:
        raise KeyboardInterrupt

    @property
    def __dict__(self) -> Any:
        raise KeyboardInterrupt


class Odd(Exception):
    def __init__(self) -> None:
        super().__init__(object(), "\ud800", [print])
        self.fine = (1, 2)
        self.bad = "\ud800"
        self.worse = object()
        self.__notes__ = [3, "\ud800", object()]

    def __str__(self) -> str:
        return "\ud800 text"


def deep(depth: int) -> None:
    deep(depth + 1)


def chain(length: int) -> BaseException:
    error = ValueError(0)
    for number in range(length):
        outer = ValueError(number)
        outer.__cause__ = error
        error = outer
    return error


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("g", [error])
    return error


def test_no_exception_fails_to_be_recorded() -> None:
    rude = cross(Rude())
    assert (str(rude), rude.type_name) == ("Rude: <Rude, whose __str__ raised>", "Rude")
    odd = cross(Odd(), [Odd])
    assert isinstance(odd, Odd)
    assert (str(odd), odd.args, odd.fine) == ("\\ud800 text", ("\\ud800 text",), (1, 2))
    assert odd.__notes__[:2] == ["3", "\\ud800"]
    assert not hasattr(odd, "worse")
    try:
        deep(0)
    except RecursionError as error:
        recursion = load_error(dump_error(error))
    assert isinstance(recursion, RecursionError)
    circle = ValueError("circle")
    circle.__cause__ = circle.__context__ = circle
    assert isinstance(cross(circle), ValueError)
    assert isinstance(cross(chain(5000)), ValueError)


def test_records_are_bounded() -> None:
    big = "\0" * 200_000
    for error in (ValueError(big), chain(5000), nested(3000), ExceptionGroup(big, [ValueError(big)] * 1000)):
        data = dump_error(raised(error))
        assert len(data) <= 512 * 1024
        assert isinstance(load_error(data), TaskFailed)
    text = str(cross(ValueError("a" * 100_000 + "z" * 100_000)))
    assert len(text) < 66_000
    assert text.startswith("aaa") and text.endswith("zzz") and "\n… 134464 characters left out …\n" in text
    group = cross(ExceptionGroup("many", [ValueError(n) for n in range(150)]))
    assert isinstance(group, ExceptionGroup) and len(group.exceptions) == 100
    assert group.__notes__ == ["50 more exceptions of this group were not kept"]
    assert len(error_record(TaskCrashed, big * 10)) < 512 * 1024


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"3",
        b"{}",
        b'{"type":3,"module":[],"text":{}}',
        b'{"members":3,"type":"ExceptionGroup","module":"builtins"}',
        b'{"members":[3],"type":"ExceptionGroup","module":"builtins"}',
        b'{"members":[],"type":"ExceptionGroup","module":"builtins"}',
        b'{"type":"ValueError","module":"builtins","args":{"$x":1},"state":[1]}',
        b'{"type":"ValueError","module":"builtins","args":3,"notes":[[]]}',
        b'{"type":"print","module":"builtins"}',
        b'{"type":"ValueError","module":"builtins","state":{"__class__":3,"args":5,"__cause__":4}}',
        b'{"type":"ValueError","module":"builtins","notes":3}',
        b'{"members":[{"members":[' * 50_000,
    ],
    ids=range(14),
)
def test_any_record_is_read(data: bytes) -> None:
    came = load_error(data, task_id="1")
    assert isinstance(came, TaskFailed) and came.task_id == "1"


@given(st.binary(max_size=100))
def test_garbage_is_read_as_a_failure(data: bytes) -> None:
    came = load_error(data)
    assert type(came) is TaskFailed
    assert str(came).startswith("the record of the failure cannot be read: it is ") or data.strip() == b"{}"


names = st.sampled_from(
    [
        *("type", "module", "text", "args", "state", "notes", "traceback", "members", "message", "type_name"),
        *(
            "left_out",
            "builtins",
            "everloop",
            "ValueError",
            "OSError",
            "ExceptionGroup",
            "TaskFailed",
            "errno",
        ),
        *("IdConflict", "UnicodeError", "StopIteration", "__dict__"),
    ]
)
records = st.recursive(
    names | st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=8),
    max_leaves=12,
)


@given(
    records, st.sampled_from(["ValueError", "OSError", "ExceptionGroup", "UnicodeDecodeError", "TaskExpired"])
)
def test_any_object_is_read_as_a_failure(record: Any, name: str) -> None:
    import json

    module = "everloop" if name == "TaskExpired" else "builtins"
    whole = {"type": name, "module": module, **record} if isinstance(record, dict) else record
    came = load_error(json.dumps(whole).encode())
    assert isinstance(came, TaskFailed)
    str(came)
    repr(came)


def test_no_module_is_imported_for_a_name() -> None:
    record = b'{"type":"Popen","module":"subprocess","text":"x"}'
    assert type(load_error(record)) is TaskFailed
