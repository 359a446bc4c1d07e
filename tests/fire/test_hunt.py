"""The same hunt on servers, which are killed as well."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.helpers.hunting import Hunt
from tests.helpers.servers.server import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

KILLS = 20


async def test_a_hunt_loses_nothing_and_repeats_only_what_was_struck(
    own: Server, tmp_path: Path, rng: random.Random
) -> None:
    found = await Hunt(tmp_path, own.database(), rng, own).kill(KILLS)
    print(found.numbers())
    found.check()
    assert found.kills.total() >= KILLS
    assert found.repeated
    assert found.calls > KILLS
