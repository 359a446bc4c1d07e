"""What a fork does to the things that were named to it, on both sides; as if it had happened."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from weakref import WeakSet

import pytest

from everloop._core import forks


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave alone what this process has named: it is not forked."""
    for name in ("_forked", "_sockets", "_busy"):
        monkeypatch.setattr(forks, name, WeakSet())
    monkeypatch.setattr(forks, "_descriptors", set[int]())
    for name in ("_held", "_left"):
        monkeypatch.setattr(forks, name, list[object]())


class Thing:
    def __init__(self) -> None:
        self.begun = 0

    def after_fork(self) -> None:
        self.begun += 1


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_child_begins_anew_what_still_lives_and_keeps_what_is_the_parents() -> None:
    kept, forgotten, parents = Thing(), Thing(), object()
    forks.begin_anew(kept)
    forks.begin_anew(forgotten)
    forks.leave(parents, "its name")
    del forgotten

    forks._after_fork()

    assert kept.begun == 1
    assert forks._left == [(parents, "its name")]


def test_a_child_closes_what_only_its_parent_may_hold_open(tmp_path: Path) -> None:
    open_, closed, other = (socket.socket() for _ in range(3))
    forks.close_in_children(open_)
    forks.close_in_children(closed)
    closed.close()
    number, file = open_.fileno(), os.open(tmp_path, os.O_RDONLY)

    with forks.closed_in_children(file):
        forks._after_fork()
        assert not is_open(number) and open_.fileno() == -1
        assert not is_open(file)
    assert is_open(other.fileno())
    other.close()


def test_a_descriptor_is_closed_in_children_that_are_forked_in_its_block_only(tmp_path: Path) -> None:
    file = os.open(tmp_path, os.O_RDONLY)
    with forks.closed_in_children(file):
        pass

    forks._after_fork()

    assert is_open(file)
    os.close(file)


def test_a_fork_waits_for_who_is_at_work_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "PATIENCE", 0.01)
    free, taken = threading.Lock(), threading.Lock()
    forks.busy_with(free)
    forks.busy_with(taken)
    taken.acquire()

    forks._before_fork()
    assert free.locked()
    forks._after_in_parent()

    assert not free.locked()
    assert taken.locked(), "it is not ours to give back"


def test_a_child_holds_nobodys_lock() -> None:
    lock = threading.Lock()
    forks.busy_with(lock)
    forks._before_fork()

    forks._after_fork()
    forks._after_in_parent()

    assert lock.locked(), "there it stays held, and nobody asks for it"
    lock.release()


def test_a_fork_waits_for_a_lock_that_a_child_would_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: dict[str, object] = {}
    monkeypatch.setattr(os, "register_at_fork", registered.update)
    lock = threading.RLock()

    assert forks.waiting_for(lock) is lock
    assert registered == {
        "before": lock.acquire,
        "after_in_parent": lock.release,
        "after_in_child": lock.release,
    }
