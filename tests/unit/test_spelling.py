"""How a statement with `:name` parameters is spelled for a driver."""

from __future__ import annotations

import pytest

from everloop.store.sql.spelling import spelled

SQL = (
    "SELECT ':no', \"a:b\", `c:d`, x::text -- :not\nWHERE a = :a AND b LIKE '50%' AND c = :b_2 AND d = :a % 2"
)
REST = "SELECT ':no', \"a:b\", `c:d`, x::text -- :not\nWHERE "


@pytest.mark.parametrize(
    ("style", "rest", "names"),
    [
        ("named", "a = :a AND b LIKE '50%' AND c = :b_2 AND d = :a % 2", None),
        ("qmark", "a = ? AND b LIKE '50%' AND c = ? AND d = ? % 2", ("a", "b_2", "a")),
        ("format", "a = %s AND b LIKE '50%%' AND c = %s AND d = %s %% 2", ("a", "b_2", "a")),
        ("pyformat", "a = %(a)s AND b LIKE '50%%' AND c = %(b_2)s AND d = %(a)s %% 2", None),
        ("numeric", "a = :1 AND b LIKE '50%' AND c = :2 AND d = :1 % 2", ("a", "b_2")),
        ("numeric_dollar", "a = $1 AND b LIKE '50%' AND c = $2 AND d = $1 % 2", ("a", "b_2")),
    ],
)
def test_parameters_are_spelled_as_the_driver_takes_them(
    style: str, rest: str, names: tuple[str, ...] | None
) -> None:
    text = spelled(SQL, style)

    assert text.sql == REST + rest
    assert text.names == names
    values = {"a": 1, "b_2": 2}
    assert text.bind(values) == (values if names is None else tuple(values[name] for name in names))


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError, match="b_2"):
        spelled(SQL, "qmark").bind({"a": 1})
