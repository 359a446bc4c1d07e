"""EVERLOOP_KILLS real kills while calls run: half on SQLite, half on servers, which are killed as well."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hunting import Hunt
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server

KILLS = int(os.environ.get("EVERLOOP_KILLS", "40"))
#: So many at a time: each hunt has a store of its own, and ends with a judgement.
AT_A_TIME = 100
#: The lease that users have: a machine that has other things to do may starve a process for a shorter one.
LEASE_S = 10.0
#: Seconds for each kill, on a machine that has other things to do.
PATIENCE_S = 10

pytestmark = [pytest.mark.server, pytest.mark.timeout(120 + KILLS * PATIENCE_S)]


async def hunt(name: str, total: int, folder: Path, server: Server | None = None) -> None:
    """Kill in as many hunts as it takes, and write down what was found."""
    seeds = random.Random(int(os.environ.get("EVERLOOP_SEED", "0")) or None)
    began = time.monotonic()
    left, hunts = total, list[tuple[int, dict[str, Any]]]()
    while left > 0:
        seed = seeds.randrange(1, 1 << 30)
        print(f"\n{name}: {left} to go, EVERLOOP_SEED={seed}", flush=True)
        place = folder / str(len(hunts))
        place.mkdir()
        store = f"sqlite:///{place}/store.db" if server is None else server.database()
        found = await Hunt(place, store, random.Random(seed), server, LEASE_S).kill(min(left, AT_A_TIME))
        print(f"{name}: {found.numbers()}", flush=True)
        found.check()
        hunts.append((seed, found.numbers()))
        left -= found.kills.total()
    if evidence := os.environ.get("EVERLOOP_EVIDENCE"):
        text = json.dumps(told(hunts, time.monotonic() - began))
        Path(evidence, f"{name}.json").write_text(text, encoding="utf-8")


def told(hunts: list[tuple[int, dict[str, Any]]], seconds: float) -> dict[str, Any]:
    """Add up what the hunts have found, none of which has found anything wrong."""
    kinds = sorted({kind for _, numbers in hunts for kind in numbers["kills"]})
    return {
        "seeds": [seed for seed, _ in hunts],
        "seconds": round(seconds),
        "kills": {kind: sum(numbers["kills"].get(kind, 0) for _, numbers in hunts) for kind in kinds},
        **{name: sum(numbers[name] for _, numbers in hunts) for name in hunts[0][1] if name != "kills"},
    }


async def test_kills_on_sqlite(tmp_path: Path) -> None:
    await hunt("sqlite", KILLS - 2 * (KILLS // 4), tmp_path)


@pytest.mark.parametrize("kind", [MariaServer, PostgresServer], ids=["mariadb", "postgresql"])
async def test_kills_on_servers(kind: type[Server], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with required(kind, fast=False) as server:
        await hunt(server.kind, KILLS // 4, tmp_path, server)
