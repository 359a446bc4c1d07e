"""Several worker processes: started, watched, started anew when one ends, and drained together."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from everloop.cli import exits
from everloop.cli.control import READY, Died, Report, Stop, line, read_report
from everloop.cli.terminal import clean, say
from everloop.engine.processes.ends import last_words

#: Seconds before a worker that died is started anew: at first, and at most.
PAUSE_FROM, PAUSE_TO = 1.0, 30.0
#: A worker that has lived for so many seconds is started anew at once.
SOUND_AFTER = 60.0
#: Seconds within which what a process has said is heard after its end: another may hold its socket open.
HEARD_WITHIN = 1.0
#: Bytes of what Python writes down when native code ends a worker, at most.
WRITTEN = 65_536
_FRAME = re.compile(r'File "(?P<file>[^"\n]+)", line (?P<line>\d+) in (?P<name>.+)')
#: Seconds for which what a worker has said of itself counts.
FRESH = 10.0


class Member:
    """One of the workers, through all of its processes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.was_ready = False
        self.cannot_begin = False  # it has ended because of the app or the store, before it was ever ready
        self.writer: asyncio.StreamWriter | None = None
        self.last = Report("it is starting")
        self.starts()

    def starts(self) -> None:
        """Note that a process of it begins; how long that takes is the imports' to say."""
        self.last = Report("it is starting")
        self._said_at, self._starting = time.monotonic(), True

    def heard(self, report: Report) -> None:
        self.last, self._said_at, self._starting = report, time.monotonic(), False
        self.was_ready = self.was_ready or report.how == READY

    def ended(self) -> None:
        """Note the end of its process; which calls it held is remembered."""
        self.heard(Report("it has ended", self.last.session, self.last.holding, self.last.calls))

    @property
    def how(self) -> str:
        """How it is: `READY`, or why it takes no calls."""
        silent = time.monotonic() - self._said_at
        if self._starting or silent <= FRESH:
            return self.last.how
        return f"it has said nothing for {silent:.0f} s"

    @property
    def alive(self) -> bool:
        """Whether its process runs, and its loop answers."""
        running = self.process is not None and self.process.returncode is None
        return running and (self._starting or time.monotonic() - self._said_at <= FRESH)


class Supervisor:
    """Runs `count` workers with these arguments of `everloop worker`.

    Signals are its own to take: the workers lead process groups of their own, and are told how far the end
    is.
    """

    def __init__(self, count: int, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self.members = [Member(number) for number in range(1, count + 1)]
        self._level = 0
        self._signal = signal.SIGTERM
        self._changed = asyncio.Event()
        self._failure = exits.OK
        self._dead: list[Died] = []  # of whom nobody was told yet

    def _is_stopping(self) -> bool:
        return self._level > 0

    def dying(self) -> str:
        """Say what is wrong when no worker lives; one that died is being started anew."""
        if any(member.alive for member in self.members):
            return ""
        return "; ".join(f"worker {member.number}: {member.how}" for member in self.members)

    def why_not(self) -> str:
        """Say why no worker takes calls; an empty text when one does."""
        if self._is_stopping():
            return "it is draining"
        if any(member.alive and member.how == READY for member in self.members):
            return ""
        return "; ".join(f"worker {member.number}: {member.how}" for member in self.members)

    async def run(self) -> int:
        """Supervise until told to stop; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._came, number)
        loop.add_signal_handler(signal.SIGUSR1, self._ask_where_they_are)
        keepers = [loop.create_task(self._keep(member)) for member in self.members]
        await asyncio.wait(keepers)
        for keeper in keepers:
            keeper.result()
        say("everloop: all workers have stopped")
        if self._failure != exits.OK:
            return self._failure
        return exits.OK if self._level <= 1 else 128 + self._signal

    # -- the end ------------------------------------------------------------------------------------------

    def _came(self, number: signal.Signals) -> None:
        number = signal.Signals(number)
        self._signal = number
        self._reach(self._level + 1, number)

    def _reach(self, level: int, number: signal.Signals) -> None:
        self._level = level
        self._changed.set()
        for member in self.members:
            if level >= 3:
                _kill(member)
            elif member.writer is not None:
                member.writer.write(line(Stop(level, number.name)))
        which = ("", " again", " for the third time")[min(level, 3) - 1]
        say(f"everloop: {number.name}{which}: the workers are {'told to stop' if level < 3 else 'killed'}")

    def _ask_where_they_are(self) -> None:
        """Let each worker say which calls it runs, and where; one that has not begun would die of it."""
        for member in self.members:
            if member.process is not None and member.alive and member.last.session:
                member.process.send_signal(signal.SIGUSR1)

    def _is_hopeless(self, member: Member, code: int) -> bool:
        """Whether none can begin: not with this app, or none of them with this store, which may be busy."""
        member.cannot_begin = not member.was_ready
        if any(each.was_ready for each in self.members):
            return False
        return code == exits.USAGE or all(each.cannot_begin for each in self.members)

    def _give_up(self, code: int) -> None:
        """A worker cannot begin as things are: the others cannot either."""
        if not self._is_stopping():
            self._failure = code
            self._reach(1, signal.SIGTERM)

    # -- one worker ---------------------------------------------------------------------------------------

    async def _keep(self, member: Member) -> None:
        pause = PAUSE_FROM
        while not self._is_stopping():
            began = time.monotonic()
            code, how = await self._run_once(member)
            if self._is_stopping():
                if code not in (exits.OK, exits.RECYCLED, 128 + self._signal) and self._level < 3:
                    say(f"everloop: worker {member.number}: {how}{member.last.held}")
                    self._failure = self._failure or exits.FAILED
                return
            if code in (exits.USAGE, exits.STORE) and self._is_hopeless(member, code):
                self._give_up(code)  # it has said why
                return
            if code in (exits.OK, exits.RECYCLED):
                pause = 0.0
            elif time.monotonic() - began > SOUND_AFTER:
                pause = PAUSE_FROM
            if code != exits.RECYCLED:
                then = f"in {pause:g} s" if pause else "now"
                held = member.last.held if code != exits.OK else ""
                say(f"everloop: worker {member.number}: {how}{held}; another is started {then}")
            await self._wait(pause)
            pause = min(PAUSE_TO, 2 * pause) or PAUSE_FROM

    async def _wait(self, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
            if not self._is_stopping():
                self._changed.clear()

    async def _run_once(self, member: Member) -> tuple[int, str]:
        """Run one process to its end; return its exit code, and how it ended."""
        with tempfile.TemporaryFile() as last:
            code = await self._run(member, last)
            place = _place(last)
        how = f"{last_words(code)}{place}"
        if code not in (exits.OK, exits.RECYCLED) and member.last.session:
            self._dead.append(Died(member.last.session, how))
            for each in self.members:
                if each.writer is not None and each.alive and each.how == READY:
                    self._tell_of_the_dead(each.writer)
        return code, how

    def _tell_of_the_dead(self, writer: asyncio.StreamWriter) -> None:
        """Let a worker take over from those that have died, and write down how they did."""
        for each in self._dead:
            writer.write(line(each))
        self._dead.clear()

    async def _run(self, member: Member, last: IO[bytes]) -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            member.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "everloop", "worker", *self._arguments),
                *("--supervised", str(theirs.fileno()), "--last-words", str(last.fileno())),
                pass_fds=[theirs.fileno(), last.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,
            )
        member.starts()
        reader, member.writer = await asyncio.open_unix_connection(sock=ours)
        # Its successor at the latest is told of the dead.
        self._tell_of_the_dead(member.writer)
        if self._is_stopping():  # that began meanwhile
            member.writer.write(line(Stop(self._level, self._signal.name)))
        listening = asyncio.get_running_loop().create_task(_listen(member, reader))
        try:
            return await member.process.wait()
        finally:
            # What it has said last may be on its way: it ends with the end of its process.
            await asyncio.wait([listening], timeout=HEARD_WITHIN)
            listening.cancel()
            await asyncio.wait([listening])
            member.ended()
            member.writer.close()
            member.writer = None


async def _listen(member: Member, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while said := await reader.readline():
            if (report := read_report(said)) is not None:
                member.heard(report)


def _place(last: IO[bytes]) -> str:
    """Print what Python wrote down when native code ended a worker; return where that was."""
    last.seek(0)
    written = last.read(WRITTEN).decode(errors="replace")
    if written:
        say(clean(written.rstrip(), lines=True))
    found = _FRAME.search(written)
    return f", in {found['name']} ({found['file']}:{found['line']})" if found else ""


def _kill(member: Member) -> None:
    if member.process is not None:
        with contextlib.suppress(ProcessLookupError):
            member.process.kill()
