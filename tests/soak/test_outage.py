"""Each store is away for EVERLOOP_OUTAGE_S seconds, with the lease of users: a thousand bodies run once."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.crash.outages import locked, outlived, without
from tests.crash.scene import Scene
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server

AWAY_S = float(os.environ.get("EVERLOOP_OUTAGE_S", "15"))
LEASE_S = 10.0

pytestmark = [pytest.mark.server, pytest.mark.timeout(AWAY_S + 300)]


async def write(name: str, scene: Scene, outage: AbstractContextManager[object]) -> None:
    found = await outlived(scene, outage, AWAY_S, LEASE_S)
    print(f"\n{name}: {found}")
    if folder := os.environ.get("EVERLOOP_EVIDENCE"):
        Path(folder, f"{name}.json").write_text(json.dumps([found]), encoding="utf-8")


async def test_the_sqlite_file_is_locked(tmp_path: Path) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        await write("sqlite", scene, locked(scene.store))


@pytest.mark.parametrize("kind", [MariaServer, PostgresServer], ids=["mariadb", "postgresql"])
async def test_the_server_is_killed(kind: type[Server], tmp_path: Path) -> None:
    with required(kind, fast=False) as server, ExitStack() as stack:
        await write(server.kind, Scene(tmp_path, stack, server.database()), without(server))
