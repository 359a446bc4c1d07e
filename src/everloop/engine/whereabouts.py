"""Whereabouts: where the running bodies of a worker are, for whoever wonders what they wait for."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from everloop.engine.attempt import Attempt
from everloop.engine.executor import OURS
from everloop.engine.worker import Worker

#: Calls that are told of at most: a worker may run thousands.
MOST = 50


def whereabouts(worker: Worker) -> list[str]:
    """Return, line by line, which calls run, those first that began first, and where each is.

    What is awaited is followed as far as Python tells: into coroutines and generators, not into other tasks.
    """
    lines: list[str] = []
    for attempt in worker.attempts(MOST):
        lines.append(f"{attempt.leased.lane.fn} {attempt.leased.id}{_state(worker, attempt)}")
        lines += [f"    {place}" for place in places(attempt)]
    left = len(worker.holding) - MOST
    return [*lines, f"and {left} more"] if left > 0 else lines


def _state(worker: Worker, attempt: Attempt) -> str:
    if attempt.suspended:
        return ", which waits for its children"
    if attempt.thread is not None:
        return ", in a thread"
    return ", in a process of its own" if worker.runs_in_process(attempt) else ""


def places(attempt: Attempt) -> list[str]:
    """Return where a body is: file, line and function, the innermost last; Everloop's own are left out."""
    frames = list(_frames(attempt))
    names = [frame.f_code.co_filename for frame, _ in frames]
    ours = [name.startswith(OURS) for name in names]
    # A thread begins in frames of Python's own, before ours.
    first = ours.index(True) if True in ours else 0
    return [
        f"{_short(name)}:{line} in {frame.f_code.co_name}"
        for (frame, line), name, mine in list(zip(frames, names, ours, strict=True))[first:]
        if not mine
    ]


def _frames(attempt: Attempt) -> Iterator[tuple[FrameType, int]]:
    if attempt.thread is not None:
        frame = sys._current_frames().get(attempt.thread)  # noqa: SLF001 - documented, if underscored
        yield from reversed(list(traceback.walk_stack(frame) if frame is not None else ()))
    elif attempt.task is not None:
        yield from _awaited(attempt.task.get_coro())


def _awaited(awaitable: Any) -> Iterator[tuple[FrameType, int]]:
    """Follow what a coroutine awaits; what is neither coroutine nor generator tells nothing."""
    while awaitable is not None:
        for kind, following in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame: FrameType | None = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                yield frame, frame.f_lineno
                awaitable = getattr(awaitable, following)
                break
        else:
            return


def _short(path: str) -> str:
    """Return a path as it is seen from the current folder."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path
