"""The machines need the servers of the session."""

from __future__ import annotations

from tests.helpers.servers.fixtures import mariadb, mariadb_kept, postgresql, postgresql_kept

__all__ = ["mariadb", "mariadb_kept", "postgresql", "postgresql_kept"]
