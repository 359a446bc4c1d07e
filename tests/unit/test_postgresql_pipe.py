"""What libpq is given for a statement of the dialect's file."""

from __future__ import annotations

import psycopg
import pytest

from everloop._core.calls import State
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.postgresql_pipe import asked
from everloop.store.sql.verbs.statement import Statement


def template(sql: str) -> Template:
    return Template("any", sql, ())


def test_parameters_get_numbers_in_the_order_of_the_text() -> None:
    sql = "SELECT :b::text, :a::bigint, :b::json WHERE x::text = :c"
    sent = asked(Statement("any", {"a": 7, "b": [["x", None]], "c": None}), template(sql))
    assert sent.sql == b"SELECT $1::text, $2::bigint, $1::json WHERE x::text = $3"
    assert sent.values == [b'[["x",null]]', b"7", None]


def test_a_state_travels_as_its_word() -> None:
    assert asked(Statement("any", {"state": State.READY}), template("SELECT :state")).values == [b"ready"]


def test_a_text_with_a_zero_is_refused_and_not_cut() -> None:
    with pytest.raises(psycopg.DataError, match=r"cannot have a zero in it, as 'a\\x00b' has"):
        asked(Statement("any", {"message": "a\0b"}), template("SELECT :message"))
