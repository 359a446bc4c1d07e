"""What a pool raises when it gets no connection."""

from __future__ import annotations

from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from everloop._core.text import without_password
from everloop.store.refusals import Door, refusal


class CannotConnect(OperationalError, ConnectionError):
    """No connection to the database could be opened; the message says why, and what to do.

    It is SQLAlchemy's `OperationalError` and Python's `ConnectionError`; `orig` is the driver's error.
    """

    def __init__(self, message: str, cause: BaseException) -> None:
        super().__init__(None, None, cause)
        self.message = message

    def __str__(self) -> str:
        return self.message


def cannot_connect(url: URL, error: Exception) -> CannotConnect:
    """Return the error that explains `error`, which a driver has raised while it connected."""
    door = Door(
        "postgresql" if url.get_backend_name() == "postgresql" else "mysql",
        without_password(url.render_as_string(hide_password=True)),
        url.username,
        url.password if isinstance(url.password, str) else None,
        url.host,
        url.port,
        url.database,
    )
    return CannotConnect(refusal(door, error).text, error)
