"""What a forked child does with what its parent has open: it uses none of it, and holds none of it open.

Threads of the parent do not exist in the child, its connections are the parent's, and its locks may be held
by nobody for ever. So whoever has such things begins anew (`begin_anew`). What the child does not use it
keeps all the same (`leave`): to collect a connection may close it for the parent, too. But what tells others
that the parent lives must not live on in the child (`close_in_children`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Protocol, TypeVar
from weakref import WeakSet


class RLock(Protocol):
    """A lock that its thread may take again."""

    def acquire(self) -> bool: ...
    def release(self) -> None: ...


class Forked(Protocol):
    """Something that begins anew in a forked child."""

    def after_fork(self) -> None: ...


class Detachable(Protocol):
    """A socket."""

    def detach(self) -> int: ...


L = TypeVar("L", bound=RLock)

_forked: WeakSet[Forked] = WeakSet()
_sockets: WeakSet[Detachable] = WeakSet()
_descriptors: set[int] = set()
_left: list[object] = []


def begin_anew(thing: Forked) -> None:
    """Call `thing.after_fork()` in each child, for as long as it lives."""
    _forked.add(thing)


def leave(*things: object) -> None:
    """Keep what is the parent's, unused."""
    _left.append(things)


def close_in_children(socket: Detachable) -> None:
    """Let no child hold this socket open."""
    _sockets.add(socket)


@contextlib.contextmanager
def closed_in_children(descriptor: int) -> Generator[None]:
    """Let no child that is forked in this block hold this descriptor open: it may be locked."""
    _descriptors.add(descriptor)
    try:
        yield
    finally:
        _descriptors.discard(descriptor)


def waiting_for(lock: L) -> L:
    """Let a fork wait until nobody holds this lock: the child would lack the thread that gives it back."""
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


def _after_fork() -> None:
    descriptors = [socket.detach() for socket in list(_sockets)]
    for descriptor in [*descriptors, *_descriptors]:
        with contextlib.suppress(OSError):  # closed already, as -1 says for one
            os.close(descriptor)
    _sockets.clear()
    _descriptors.clear()
    for thing in list(_forked):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork)
