"""What the templates of `mysql.sql` say beside SQL."""

from __future__ import annotations

from typing import Any

import pytest

from everloop import StoreError
from everloop.store.sql.dialect import Template, statements
from everloop.store.sql.runners import mysql_texts
from everloop.store.sql.runners.mysql_connection import MysqlConnection
from everloop.store.sql.runners.mysql_texts import render, texts_of, unfolded
from everloop.store.sql.verbs.statement import Statement


def written(sql: str, **parameters: Any) -> list[str]:
    return texts_of(Template("it", sql, ()), Statement("it", parameters))


def test_statements_are_written_one_by_one_with_their_parameters_left_open() -> None:
    assert written("DO :a;\nDO '$[*]'", a=1) == ["DO :a", "DO '$[*]'"]


def test_what_is_repeated_is_joined() -> None:
    sql = "SELECT {for :x in :xs, joined by ,: (:x, :now)}"
    assert written(sql, xs=[1], now=3) == ["SELECT (1, :now)"]
    assert written(sql, xs=[1, 2], now=3) == ["SELECT (1, :now),(2, :now)"]


class Quoting(MysqlConnection):
    """A connection that only writes literals."""

    def __init__(self) -> None:
        """Connect to nothing."""

    def literal(self, value: str) -> str:
        return f"'{value}'"


def test_one_is_written_otherwise_than_several() -> None:
    sql = "{one :x, :y in :xs: (:x, :y, :z)}{several :xs: :xs}{for several :x in :ns, joined by ,: :x}"
    template = Template("it", sql, ())

    def said(**parameters: Any) -> list[str]:
        return render(Quoting(), Statement("it", parameters), template)

    assert said(xs={7: "a"}, ns=[1], z=0) == [" (7, 'a', 0)"]
    assert said(xs=[[7, None]], ns=[1], z="b") == [" (7, NULL, 'b')"]
    assert said(xs={7: "a", 8: "b"}, ns=[1, 2], z=0) == [' \'[[7,"a"],[8,"b"]]\'1,2']
    # On a connection of the user's it is a parameter, however many there are.
    assert written(sql, xs={7: "a"}, ns=[1], z=0) == [" :xs1"]


@pytest.mark.parametrize("name", sorted(statements("mysql")))
def test_gaps_are_filled_as_the_pieces_are_written(name: str) -> None:
    template = statements("mysql")[name]
    form = mysql_texts._form(template.sql)
    if form is None:
        assert " among :" in template.sql
        return
    parameters: dict[str, Any] = {key: f"%s {key}" for key in form.whole}
    for key, groups in form.items:
        width = max((len(gaps) for gaps in groups), default=1)
        parameters[key] = [f"{key} 0" if width == 1 else [f"{key} {n}" for n in range(width)]]

    filled = render(Quoting(), Statement(name, parameters), template)

    assert filled == mysql_texts._write(template.sql, mysql_texts._Literals(Quoting(), parameters))
    assert not any(":" + key in text for key in parameters for text in filled)


def test_a_gap_is_nothing_but_a_gap() -> None:
    template = Template("it", "SELECT 100 % :n, '%(n)s'", ())
    assert render(Quoting(), Statement("it", {"n": 7}), template) == ["SELECT 100 % 7, '%(n)s'"]
    pairs = Template("it", "{one :x, :y in :xs: (:x, :y)}", ())
    with pytest.raises(ValueError, match="zip"):
        render(Quoting(), Statement("it", {"xs": [[1, 2, 3]]}), pairs)


def test_a_column_is_among_numbers_and_nobody_asks_for_none() -> None:
    sql = "DELETE {c.seq among :seqs};\nDELETE {seq among :rows of 'a'};\nDELETE {seq among :rows of 'b'}"
    assert written(sql, seqs=[3, 1], rows=[[1, "a"], [2, "c"], [5, "a"]]) == [
        "DELETE (c.seq IN (3,1))",
        "DELETE (seq IN (1,5))",
    ]
    with pytest.raises(TypeError):
        written(sql, seqs=["1) OR TRUE"], rows=[])


def test_a_long_list_is_written_in_parts() -> None:
    (text,) = written("{seq among :seqs}", seqs=[*range(1_801)])
    assert [part.count(",") + 1 for part in text.split(" OR ")] == [900, 900, 1]


def test_a_row_is_one_list() -> None:
    template = Template("it", "SELECT {row: a, IF(b, 1, 2)}", ("a", "b"))
    (text,) = texts_of(template, Statement("it", {}))
    assert text == (
        "SELECT CONCAT('[', CONCAT_WS(_utf8mb4',' COLLATE utf8mb4_bin, IFNULL(a, 'null'), "
        "IFNULL(IF(b, 1, 2), 'null')), ']')"
    )
    assert unfolded(template, [["[1,null]"], ['["a",2]']]) == [[1, None], ["a", 2]]
    with pytest.raises(StoreError, match=r"MySQL sent an empty row \(it\), as it does .* max_allowed_packet"):
        unfolded(template, [["[1,2]"], [None]])
    assert unfolded(Template("it", "SELECT 1", ("a",)), [[None]]) == [[None]]
