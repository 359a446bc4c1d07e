"""Power loss on SQLite: whatever fsync allows to be found opens, and holds what was acknowledged."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.seeds import seed
from tests.helpers.servers import install
from tests.helpers.servers.binaries import ServerMissing
from tests.powerloss.disk import SECTOR, Disk, images, torn
from tests.powerloss.judge import Judge, Ledger
from tests.powerloss.programs.writer import LEDGER
from tests.powerloss.tracing import Did, parse, strace, traced

ROOT = Path(__file__).resolve().parents[2]
#: How many images are opened; EVERLOOP_IMAGES in `make soak`.
IMAGES = int(os.environ.get("EVERLOOP_IMAGES", "1000"))
#: Steps of the writer: each gives about fifteen images.
STEPS = 60


@pytest.fixture
def folder(quick: Path) -> Path:
    """A folder for those tests that need strace."""
    if sys.platform != "linux":
        pytest.skip("strace is Linux's")
    if install.skipped():
        pytest.skip(f"{install.SKIP}=1")
    try:
        strace()
    except ServerMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    return quick


def written(folder: Path, number: int, synchronous: str = "FULL") -> tuple[list[Did], Ledger]:
    """Let the writer walk, and return what it did to its files and what it acknowledged."""
    place = folder / f"written-{number}"
    place.mkdir()
    program = ("-m", "tests.powerloss.programs.writer", str(place), str(number), str(STEPS), synchronous)
    trace = traced(place, *program, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"})
    ledger = Ledger((place / LEDGER).read_bytes())
    assert ledger.text.count(b"\n") == STEPS
    return trace, ledger


async def opened(folder: Path, number: int, most: int, synchronous: str = "FULL") -> Counter[str]:
    """Open up to `most` images of one walk; count them by what became of what was not synced."""
    trace, ledger = written(folder, number, synchronous)
    place = folder / f"image-{number}"
    place.mkdir()
    judge, counts = Judge(place, ledger), Counter[str]()
    for image in images(trace, LEDGER, random.Random(number), subsets=2):
        if judge.opened == most:
            break
        if await judge.judge(image):
            counts[image.how.split(" ", 1)[0]] += 1
    return counts


@pytest.mark.server  # once, on one Python
@pytest.mark.timeout(120 + IMAGES)
async def test_every_image_opens_and_holds_what_was_acknowledged(folder: Path) -> None:
    first, walks, counts = seed(), 0, Counter[str]()
    while counts.total() < IMAGES:
        counts += await opened(folder, first + walks, IMAGES - counts.total())
        walks += 1

    assert counts.keys() >= {"all", "the", "subset"}
    evidence = os.environ.get("EVERLOOP_EVIDENCE")
    if evidence:
        found = {"seed": first, "walks": walks, "images": counts.total(), "lost": 0, "kinds": counts}
        Path(evidence, "powerloss.json").write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.server  # once, on one Python
@pytest.mark.timeout(120 + IMAGES)
async def test_a_store_that_does_not_wait_for_the_disk_is_found_out(folder: Path) -> None:
    with pytest.raises(AssertionError, match="but not as acknowledged") as caught:
        await opened(folder, 1, 10_000, "NORMAL")
    assert caught.value.__notes__[0].startswith("the power went at change ")


def test_the_disk_loses_what_was_not_synced_and_keeps_what_was() -> None:
    disk = Disk()
    disk.pending += [Did("create", "a"), Did("write", "a", data=b"old"), Did("create", "b")]
    disk.sync("a", 0)
    disk.pending += [Did("write", "a", at=2, data=b"new"), Did("write", "b", data=b"b")]

    assert disk.image([]) == {"a": b"old", "b": b""}
    assert disk.image(disk.pending) == {"a": b"olnew", "b": b"b"}
    disk.sync("b", 0)
    assert disk.image([]) == {"a": b"old", "b": b"b"}


def test_another_file_of_the_same_name_is_another_file() -> None:
    disk = Disk()
    disk.pending += [Did("create", "a"), Did("write", "a", data=b"old")]
    disk.sync("a", 0)
    disk.pending += [Did("unlink", "a"), Did("create", "a", 1), Did("write", "a", 1, data=b"new")]

    assert disk.image(disk.pending[:1]) == {}
    assert disk.image(disk.pending[:2]) == {"a": b""}
    assert disk.image(disk.pending[2:]) == {"a": b"old"}
    assert disk.image(disk.pending) == {"a": b"new"}


def test_a_torn_write_ends_at_a_sector() -> None:
    whole = Did("write", "a", at=100, data=bytes(2 * SECTOR))
    cuts = {torn(whole, random.Random(n)).data for n in range(20)}  # type: ignore[union-attr]  # it can be torn

    assert {(100 + len(data)) % SECTOR for data in cuts} == {0}
    assert len(cuts) == 2
    assert torn(Did("write", "a", at=100, data=bytes(SECTOR - 100)), random.Random(1)) is None


def test_what_strace_says_of_threads_is_put_together() -> None:
    def hexed(text: str) -> str:
        return "".join(f"\\x{ord(c):02x}" for c in text)

    handle = f"3<{hexed('/f/store.db')}>"
    lines = [
        f'7 openat(AT_FDCWD<{hexed("/")}>, "{hexed("/f/store.db")}", O_RDWR|O_CREAT, 0644) = {handle}\n',
        f'7 pwrite64({handle}, "{hexed("ab")}", 2, 4096 <unfinished ...>\n',
        f"8 fdatasync(4<{hexed('/f')}>) = 0\n",
        "7 <... pwrite64 resumed>)              = 2\n",
        f'7 pwrite64(5<{hexed("/f/store.db-shm")}>, "{hexed("x")}", 1, 0) = 1\n',
        f'8 unlink("{hexed("/f/store.db-wal")}") = -1 ENOENT (No such file or directory)\n',
        f"8 ftruncate({handle}, 12) = 0\n",
    ]

    assert list(parse([line.encode() for line in lines], b"/f")) == [
        Did("create", "store.db"),
        Did("sync", "."),
        Did("write", "store.db", at=4096, data=b"ab"),
        Did("truncate", "store.db", at=12),
    ]
