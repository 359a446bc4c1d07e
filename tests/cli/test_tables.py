"""Tables, widths and times, without a process."""

from __future__ import annotations

import pytest

from everloop.cli.tables import Column, table
from everloop.cli.terminal import cells, cut
from everloop.cli.times import ago, span

Row = tuple[str, str, str]
COLUMNS: list[Column[Row]] = [
    Column("ID", lambda row: row[0]),
    Column("NAME", lambda row: row[1], least=6, rank=1),
    Column("NOTE", lambda row: row[2], least=4, rank=2),
]
ROWS: list[Row] = [("1", "a long name that is cut", "and a note"), ("2", "東京", "")]


def test_whole_without_a_width() -> None:
    assert table(ROWS, COLUMNS, None) == [
        "ID  NAME                     NOTE",
        "1   a long name that is cut  and a note",
        "2   東京",
    ]


@pytest.mark.parametrize("width", range(4, 45))
def test_never_wider_than_the_terminal_while_the_id_fits(width: int) -> None:
    lines = table(ROWS, COLUMNS, width)

    assert max(map(cells, lines)) <= max(width, 2)
    assert [line[0] for line in lines[1:]] == ["1", "2"]


def test_the_least_important_column_goes_first() -> None:
    assert table(ROWS, COLUMNS, 15)[0] == "ID  NAME"


def test_an_empty_column_is_left_out() -> None:
    assert table([("1", "", "x")], COLUMNS, None) == ["ID  NOTE", "1   x"]


@pytest.mark.parametrize(
    ("text", "columns", "shown"), [("東京都", 5, "東京…"), ("東京都", 4, "東…"), ("abc", 0, "")]
)
def test_cutting_counts_columns(text: str, columns: int, shown: str) -> None:
    assert cut(text, columns) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0 ms"), (0, "0 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (9.96, "10 s"), (59.9, "60 s"),
     (90, "1.5 min"), (86_400, "1 d"), (10 * 86_400 + 1, "10 d")],
)  # fmt: skip
def test_spans(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_what_is_to_come() -> None:
    assert (ago(5_000_000, 1_000_000), ago(1_000_000, 5_000_000)) == ("in 4.0 s", "4.0 s")
