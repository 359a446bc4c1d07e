"""A disk that loses its power: which images of some files may be found after it, by what was synced.

A sync of a file makes durable what was written to that file before it, and which files there are by then,
as journaling file systems do. Of the rest anything may have arrived: nothing, the first writes, some sectors
of the next one, or any of them without those before. Which files there are changes in order, though.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from tests.powerloss.tracing import Did

SECTOR = 512

Files = dict[str, bytes]
#: A name, and how many files had it before.
Inode = tuple[str, int]


@dataclass(frozen=True)
class Image:
    """What is found after the power has come back.

    Attributes:
        how: What became of the changes that were not synced.
        acknowledged: How many bytes of the ledger were written by then: what it says must be in the files.
        step: The number of the change at which the power went.
    """

    how: str
    files: Files
    acknowledged: int
    step: int


@dataclass
class Disk:
    """The files as they are durable, and what was done since, in order."""

    data: dict[Inode, bytearray] = field(default_factory=dict[Inode, bytearray])
    names: dict[str, Inode] = field(default_factory=dict[str, Inode])
    pending: list[Did] = field(default_factory=list[Did])

    def sync(self, name: str, birth: int) -> None:
        """Make durable what was done to this file, and which files there are."""
        kept: list[Did] = []
        for did in self.pending:
            if did.what in ("create", "unlink"):
                _rename(self.names, did)
            elif (did.name, did.birth) == (name, birth):
                _write(self.data, did)
            else:
                kept.append(did)
        self.pending = kept

    def image(self, survived: Sequence[Did]) -> Files:
        """Return the files when just these of the pending changes have arrived."""
        data, names, touched = dict(self.data), dict(self.names), set[Inode]()
        for did in survived:
            if did.what in ("create", "unlink"):
                _rename(names, did)
                continue
            inode = did.name, did.birth
            if inode not in touched:
                touched.add(inode)
                data[inode] = bytearray(data.get(inode, b""))
            _write(data, did)
        return {name: bytes(data.get(inode, b"")) for name, inode in names.items()}


def _rename(names: dict[str, Inode], did: Did) -> None:
    if did.what == "create":
        names[did.name] = did.name, did.birth
    else:
        names.pop(did.name, None)


def _write(files: dict[Inode, bytearray], did: Did) -> None:
    data = files.setdefault((did.name, did.birth), bytearray())
    if did.what == "truncate" and did.at < len(data):
        del data[did.at :]
        return
    if len(data) < did.at:
        data.extend(bytes(did.at - len(data)))
    data[did.at : did.at + len(did.data)] = did.data


def torn(did: Did, random: Random) -> Did | None:
    """Return a write of which only the first sectors have arrived; None of one that lies in one sector."""
    cuts = range(SECTOR - did.at % SECTOR, len(did.data), SECTOR)
    return replace(did, data=did.data[: random.choice(cuts)]) if did.what == "write" and cuts else None


def images(trace: Sequence[Did], ledger: str, random: Random, subsets: int) -> Iterator[Image]:
    """Give the images that may be found, whenever the power goes.

    At each change, all pending ones have arrived: over time, that is each prefix of them. At each write, only
    some of its sectors have. Whenever something was acknowledged meanwhile, nothing that is pending has
    arrived, or each prefix of it again. Before each sync, `subsets` times, any of them have arrived.
    """
    disk, acknowledged = Disk(), 0
    seen: list[int] = []  # how much was acknowledged when each of the pending changes was the last
    looked = -1
    for step, did in enumerate(trace):
        if did.name == ledger:
            acknowledged += len(did.data)
            continue
        if acknowledged > looked:
            looked = acknowledged
            yield Image("all lost", disk.image([]), acknowledged, step)
            for n, before in enumerate(seen, 1):
                if before < acknowledged:
                    yield Image(f"the first {n} arrived", disk.image(disk.pending[:n]), acknowledged, step)
        if did.what == "sync":
            for number in range(subsets if len(disk.pending) > 1 else 0):
                some = _some(disk.pending, random)
                yield Image(f"subset {number}", disk.image(some), acknowledged, step)
            disk.sync(did.name, did.birth)
            yield Image("synced", disk.image([]), acknowledged, step)
        else:
            part = torn(did, random)
            if part is not None:
                yield Image("the last torn", disk.image([*disk.pending, part]), acknowledged, step)
            disk.pending.append(did)
            yield Image("all arrived", disk.image(disk.pending), acknowledged, step)
        seen = [acknowledged] * len(disk.pending)


def _some(pending: Sequence[Did], random: Random) -> list[Did]:
    """Draw which changes have arrived, some in part; those of the names are the first few."""
    names = sum(did.what in ("create", "unlink") for did in pending)
    few = random.randint(0, names)
    some: list[Did] = []
    for did in pending:
        if did.what in ("create", "unlink"):
            few -= 1
            if few >= 0:
                some.append(did)
        elif random.random() < 0.5:
            part = torn(did, random) if random.random() < 0.3 else None
            some.append(part or did)
    return some
