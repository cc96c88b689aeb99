"""What is passed as a parameter comes back as it was, for every type there is a literal of.

Each example is a statement of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relet.adapters.pg8000.types import MULTIRANGES, range_class

from .values import KINDS, arrays, convert, hstores, plain, texts

EXAMPLES = int(os.environ.get("RELET_ROUND_TRIPS") or os.environ.get("RELET_EXAMPLES") or "20")
#: For each test, how many statements it has sent.
SENT: Counter[str] = Counter()


@pytest.fixture
def sends(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return what sends a statement, counts it, and returns the row that comes back."""

    SENT[request.node.name] += 0

    def send(connection: Any, sql: str, *parameters: Any) -> Any:
        SENT[request.node.name] += 1
        (row,) = connection.cursor().execute(sql, parameters).fetchall()
        return row

    return send


def each(values: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check many of *values*."""
    given(values)(
        settings(
            max_examples=EXAMPLES,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(check)
    )()


@pytest.mark.parametrize("name", KINDS)
def test_values(name: str, connection: Any, sends: Any) -> None:
    kind = KINDS[name]

    def check(value: Any) -> None:
        expected = None if value is None else kind.back(value)
        (found,) = sends(connection, kind.sql(), value)
        assert plain(found) == plain(expected)

    each(kind.values, check)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_lists(name: str, connection: Any, sends: Any) -> None:
    kind = KINDS[name]

    def check(value: list[Any]) -> None:
        (found,) = sends(connection, kind.sql("[]"), value)
        assert plain(found) == plain(convert(kind.back, value))

    each(arrays(kind.values), check)


@pytest.fixture(scope="module")
def records(connection: Any) -> None:
    """Two types of records, one in the other."""
    connection.run("CREATE TYPE pg_temp.two AS (n numeric, t text)")
    connection.run("CREATE TYPE pg_temp.four AS (a text, b bytea, c text[], d pg_temp.two)")


_TEXT = st.none() | texts
_TWO = st.tuples(st.none() | KINDS["Decimal"].values, _TEXT)


@pytest.mark.usefixtures("records")
def test_tuples(connection: Any, sends: Any) -> None:
    sql = "SELECT a, b, c, (d).n, (d).t FROM (SELECT (%s::pg_temp.four).*) AS x"

    def check(value: Any) -> None:
        assert plain(sends(connection, sql, value)) == plain((*value[:3], *value[3]))

    each(st.tuples(_TEXT, st.binary(), st.lists(_TEXT), _TWO), check)


@pytest.mark.usefixtures("records")
def test_lists_of_tuples(connection: Any, sends: Any) -> None:
    column = "ARRAY(SELECT {} FROM unnest(%s::pg_temp.two[]))"
    sql = f"SELECT {column.format('n')}, {column.format('t')}"

    def check(value: Any) -> None:
        found = sends(connection, sql, value, value)
        assert plain(found) == plain(([n for n, _ in value], [t for _, t in value]))

    each(st.lists(_TWO, max_size=4), check)


def test_records_are_loaded_as_texts(connection: Any, sends: Any) -> None:
    def check(value: tuple[str | None, ...]) -> None:
        slots = ", ".join(["%s::text"] * len(value))
        assert sends(connection, f"SELECT ROW({slots}), 1", *value) == (value, 1)

    # One that has a single field, which is NULL, is written as one that has none.
    each(st.lists(_TEXT, min_size=2, max_size=4).map(tuple), check)


def test_hstore(with_hstore: Any, sends: Any) -> None:
    def check(value: dict[str, str | None]) -> None:
        assert sends(with_hstore, "SELECT %s", value) == (value,)

    each(hstores, check)


def test_lists_of_hstore(with_hstore: Any, sends: Any) -> None:
    def check(value: list[Any]) -> None:
        assert sends(with_hstore, "SELECT %s::hstore[]", value) == (value,)

    each(st.lists(st.none() | hstores, max_size=4), check)


def test_multiranges(connection: Any, sends: Any) -> None:
    if not MULTIRANGES:
        pytest.skip("only psycopg has a class of multiranges")
    if connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 has multiranges, and no server before")
    (multirange,) = MULTIRANGES

    def check(value: Any) -> None:
        # The server makes one of those that overlap; so these do not.
        assert sends(connection, "SELECT %s::nummultirange", value) == (value,)

    each(st.lists(st.integers(), unique=True).map(partial(_multirange, multirange)), check)


def _multirange(multirange: Any, bounds: list[int]) -> Any:
    bounds = sorted(map(Decimal, bounds))
    made = [
        range_class("numrange")(lower, upper, "()")
        for lower, upper in zip(bounds[::2], bounds[1::2], strict=False)
    ]
    return multirange(made)


def test_enough_has_been_sent(request: pytest.FixtureRequest) -> None:
    tests = {item.name for item in request.session.items if item.path == request.path}
    if not tests - {request.node.name} <= SENT.keys():
        pytest.skip("not all tests of the module have run")
    print(f"{SENT.total():,} statements")
    # Of some types there are fewer values.
    assert SENT.total() >= min(20_000, (len(tests) - 8) * EXAMPLES)
