"""The store in an SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from sqlite3 import Connection

from everloop._core.clock import Clock, SystemClock
from everloop._core.gate import write_gate
from everloop._core.looks import Vitals
from everloop._core.records import Lane
from everloop.store.protocol import NOBODY
from everloop.store.sql.dialect import Migration, migrations
from everloop.store.sql.runners.doorbell import Doorbell
from everloop.store.sql.runners.hand import Hand
from everloop.store.sql.runners.sqlite import SqliteRunner
from everloop.store.sql.runners.sqlite_entry import SQLITE, enter
from everloop.store.sql.runners.sqlite_file import SqliteFile
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.sql_store import SqlStore, known_lanes
from everloop.store.sql.verbs.scope import Scope


class SqliteStore(SqlStore):
    """Durable state in an SQLite file (see `everloop.store.protocol.Store`).

    Args:
        path: The file; it is created when it is not there.
        clock: Tells the store's time.
        fault: For tests: called before each statement and around each commit, and may raise.
    """

    dialect = "sqlite"
    _dialects = ("sqlite",)
    _folding = SQLITE

    def __init__(self, path: str | Path, *, clock: Clock | None = None, fault: Fault | None = None) -> None:
        super().__init__(clock or SystemClock())
        self.path = Path(path).absolute()
        self.url = f"sqlite:///{self.path}"
        self._shown = str(self.path)
        self._fault = fault
        self._file = SqliteFile(self.path)
        self._bell = Doorbell(self.path)
        self._hot: SqliteRunner | None = None
        self._reading: SqliteRunner | None = None

    def twin(self) -> SqliteStore:
        return SqliteStore(self.path, clock=self._clock, fault=self._fault)

    async def open(self) -> None:
        if self._hot is not None:
            return
        self._file.check_place()
        hot = self._thread("store")
        try:
            await hot.call(self._file.migrate)
        except BaseException:
            hot.close()
            raise
        self._hot = hot

    async def migrations(self) -> tuple[int, list[Migration]]:
        found = 0
        if self.path.exists():
            self._file.check_place()
            runner = self._thread("migrations")
            try:
                found = await runner.call(self._file.schema)
            finally:
                runner.close()
        return found, [each for each in migrations(self.dialect) if each.number > found]

    async def migrate(self) -> None:
        await self.open()
        await self.close()

    async def close(self) -> None:
        for runner in (self._hot, self._reading):
            if runner is not None:
                runner.close()
        self._bell.close()

    async def reap(self, *, overdue: bool = True, dead: Mapping[int, str] = NOBODY) -> int:
        gone = self._bell.gone()
        reaped = await super().reap(overdue=overdue, dead={**dict.fromkeys(gone, ""), **dead})
        for bell in gone.values():
            bell.unlink(missing_ok=True)
        return reaped

    async def vitals(self) -> Vitals:
        return await self._reader().call(self._file.vitals)

    # -- hints and upkeep -----------------------------------------------------------------------------------

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        worker = session in self._workers
        if worker:
            self._runner().post(self._file.lay_out)
        return self._bell.listen(session, wake, worker=worker)

    async def tend(self) -> None:
        await self._runner().call(self._checkpoint)

    def _checkpoint(self, connection: Connection) -> None:
        self._file.checkpoint(connection)

    # -- transactions ---------------------------------------------------------------------------------------

    def _wake(self, scope: Scope) -> None:
        if scope.rung or scope.ready:
            self._bell.ring(scope.rung, workers=scope.ready)

    _ring = _wake

    def _enter(self, hand: Hand) -> None:
        enter(hand, self.path)

    async def is_blocked_by(self, connection: object) -> bool:
        blocked: bool = await self._borrow(connection).run(lambda hand: hand.in_transaction)
        return blocked

    async def _learn_lanes(self, lanes: Collection[Lane]) -> None:
        """Remember the lanes that are committed: the user's transaction keeps nobody from reading."""
        if self._hot is not None and any(lane not in self._lanes for lane in lanes):
            self._remember(await self._read(lambda _: known_lanes()))

    def _runner(self) -> SqliteRunner:
        if self._hot is None:
            raise RuntimeError("the store is not open: `await store.open()` first")
        return self._hot

    def _apart(self) -> SqliteRunner:
        return self._runner()  # there is one writer

    def _reader(self) -> SqliteRunner:
        if self._reading is None:
            self._runner()
            self._reading = self._thread("reads")
        return self._reading

    def _thread(self, name: str) -> SqliteRunner:
        return SqliteRunner(self._file.connect, name, write_gate(self.path), self._fault)
