"""Servers, for the long version."""

from __future__ import annotations

from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url

__all__ = ["mariadb", "mariadb_url", "postgresql", "postgresql_url"]
