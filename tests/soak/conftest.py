"""What takes minutes, and is no part of `make test`: `make soak`, for EVERLOOP_SOAK_S seconds a test."""

from __future__ import annotations

from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url

__all__ = ["mariadb", "mariadb_url", "postgresql", "postgresql_url"]
