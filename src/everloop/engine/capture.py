"""Capturing what bodies log and print, each for its own run, however many of them interleave.

The run in whose body something is logged is known by a context variable, which follows every `await`, every
asyncio task and every thread that the body starts. `logging` is met where records are made, so neither its
handlers nor `basicConfig` notice; `print` where its name is looked up. Outside of a run both do what they
always did.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
from collections.abc import Callable
from io import StringIO
from typing import Any

from everloop.engine.attempt import CURRENT


class _Hooks:
    """What stands in front of `print` and of the making of log records, while somebody captures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._print: Callable[..., None] = builtins.print
        self._make: Callable[..., logging.LogRecord] = logging.getLogRecordFactory()
        # Bound once: what is put in front is compared with what is found there.
        self._printing, self._making = self.printing, self.making

    def begin(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1 and builtins.print is not self._printing:
                self._print = builtins.print
                builtins.print = self._printing
            if self._users == 1 and logging.getLogRecordFactory() is not self._making:
                self._make = logging.getLogRecordFactory()
                logging.setLogRecordFactory(self._making)

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            # Who has put something of his own in front of ours keeps it: that goes on through ours.
            if self._users == 0 and builtins.print is self._printing:
                builtins.print = self._print
            if self._users == 0 and logging.getLogRecordFactory() is self._making:
                logging.setLogRecordFactory(self._make)

    def making(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        attempt = CURRENT.get()
        # Without a name it is an empty one, about to be filled with one that was logged elsewhere.
        if attempt is not None and attempt.scribe is not None and record.name:
            attempt.scribe.logged(attempt, record)
        return record

    def printing(self, *values: object, file: Any = None, flush: bool = False, **how: Any) -> None:
        attempt = CURRENT.get()
        ours = file is None or file is sys.stdout or file is sys.stderr
        if attempt is None or attempt.scribe is None or not ours:
            self._print(*values, file=file, flush=flush, **how)
            return
        whole = StringIO()
        self._print(*values, file=whole, **how)  # each value is asked for its text once
        text = whole.getvalue()
        self._print(text, end="", file=file, flush=flush)
        attempt.scribe.printed(attempt, text)


_hooks = _Hooks()
begin = _hooks.begin  #: Capture from now on, in this process; each call of this needs one of `end`.
end = _hooks.end  #: Leave everything as it was, once nobody captures any more.
