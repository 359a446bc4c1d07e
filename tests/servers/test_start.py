"""Both servers start and answer."""

from __future__ import annotations


def test_a(postgresql_url: str, mariadb_url: str) -> None:
    assert postgresql_url and mariadb_url
