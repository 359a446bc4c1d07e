"""What must be true of a store's files after the power has come back."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from everloop._core.calls import Event
from everloop._core.clock import ManualClock
from everloop._core.records import Outcome, Turn
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance.at_once import WORKER
from everloop.testing.conformance.requests import LANES
from everloop.testing.conformance.scene import MINUTE, SECOND
from tests.helpers.impossible import wrong
from tests.powerloss.disk import Files, Image
from tests.powerloss.programs.writer import STORE, digest

NOTHING = digest([])


@dataclass(frozen=True)
class Ledger:
    """What the writer has acknowledged, line by line; a line is complete or not there."""

    text: bytes

    def allowed(self, acknowledged: int) -> list[str]:
        """Return the digests of what may be found: the last state that was acknowledged, and the next."""
        said = self.text[:acknowledged].count(b"\n")
        digests = [NOTHING, *(line.split()[1].decode() for line in self.text.splitlines())]
        return digests[said : said + 2]


class Judge:
    """Opens images in a folder, one after the other, as whoever starts the machine again would."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder
        self.ledger = ledger
        self.opened = 0
        self._seen: set[bytes] = set()

    async def judge(self, image: Image) -> bool:
        """Open an image that was not seen yet.

        Raises:
            AssertionError: It is not sound, or does not hold what was acknowledged.
        """
        mark = _mark(image)
        if mark in self._seen:
            return False
        self._seen.add(mark)
        _lay(self.folder, image.files)
        try:
            await self._open(image)
        except BaseException as error:
            error.add_note(f"the power went at change {image.step}: {image.how}")
            raise
        self.opened += 1
        return True

    async def _open(self, image: Image) -> None:
        path = self.folder / STORE
        # A day later: no session of the writer's is alive, and whatever was scheduled is due.
        store = SqliteStore(path, clock=ManualClock(ManualClock().now() + 86_400 * SECOND))
        await store.open()
        try:
            with closing(sqlite3.connect(path)) as connection:
                (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
                assert sound == "ok", f"integrity_check: {sound}"
                found = wrong(connection.cursor())
                assert not found, f"what no store may hold: {found}"
                ids = [id for (id,) in connection.execute("SELECT id FROM ever_calls ORDER BY seq")]
            stored = digest([call for call in await store.get(ids) if call is not None])
            allowed = self.ledger.allowed(image.acknowledged)
            assert stored in allowed, f"{len(ids)} calls are there, but not as acknowledged"
            if self.opened % 20 == 0:
                await _go_on(store, ids)
        finally:
            await store.close()


async def _go_on(store: SqliteStore, ids: list[str]) -> None:
    """See every call reach its end, now that nothing fails any more."""
    await store.reap()
    worker = await store.open_session(WORKER, MINUTE)
    outcomes: list[Outcome] = []
    for _ in range(200):
        turn = Turn(outcomes=outcomes, room=1_000, lanes=LANES)
        outcomes = [
            Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in (await store.turn(worker, turn)).leased
        ]
        if not outcomes:
            break
    calls = zip(ids, await store.get(ids), strict=True)
    left = [id for id, call in calls if call is None or not call.state.final]
    assert not left, f"calls that do not end although a worker takes them all: {left}"


def _mark(image: Image) -> bytes:
    known = hashlib.blake2b(str(image.acknowledged).encode(), digest_size=16)
    for name in sorted(image.files):
        known.update(name.encode() + b"\0" + len(image.files[name]).to_bytes(8, "big"))
        known.update(image.files[name])
    return known.digest()


def _lay(folder: Path, files: Files) -> None:
    for left in list(folder.iterdir()):
        left.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
