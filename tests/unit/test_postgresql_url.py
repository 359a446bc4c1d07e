"""The URL of a store on PostgreSQL: what cannot be meant is refused before anybody connects."""

from __future__ import annotations

import pytest

from everloop import StoreURLError
from everloop.store.sql.runners.postgresql_connection import connector, parts_of


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "postgresql://u:secret@h/d?sslmode=bogus",
            (
                "the store URL 'postgresql://u:***@h/d?sslmode=bogus' has sslmode=bogus; write one of "
                "disable, allow, prefer, require, verify-ca, verify-full"
            ),
        ),
        (
            "postgresql://h/d?ssl=verify_full",
            (
                "the store URL 'postgresql://h/d?ssl=verify_full' has sslmode=verify_full; did you mean "
                "'verify-full'?; write one of disable, allow, prefer, require, verify-ca, verify-full"
            ),
        ),
        (
            "postgresql://h:54321x/d",
            (
                "the store URL 'postgresql://h:54321x/d' has the port '54321x'; write a number from 1 to "
                "65535, as in host:5432"
            ),
        ),
        (
            "postgresql://h:5432,i:70000/d",
            (
                "the store URL 'postgresql://h:5432,i:70000/d' has the port '70000'; write a number from 1 "
                "to 65535, as in host:5432"
            ),
        ),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, message: str) -> None:
    with pytest.raises(StoreURLError) as caught:
        connector(url)
    assert str(caught.value) == message


def test_what_can_be_meant_is_taken() -> None:
    assert parts_of("postgresql://u@h:5433/d?ssl=require") == {
        "user": "u",
        "host": "h",
        "port": "5433",
        "dbname": "d",
        "sslmode": "require",
    }
