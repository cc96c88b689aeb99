"""Every statement is one Query message, and one round trip."""

from __future__ import annotations

import datetime
from contextlib import suppress
from decimal import Decimal

import pytest
from django.db import transaction
from testapp.models import Item

from relet import hold
from relet.adapters.pg8000 import dbapi

VALUES = [
    None,
    (),
    ("it's", 1, -1.5, Decimal("-0.10"), None, True, b"\0", [1, None], datetime.date(2020, 1, 1)),
]


@pytest.fixture
def raw(connect, wire):
    raw = connect(**wire.place)
    wire.forget()
    return raw


@pytest.fixture
def db(make, wire):
    wrapper = make(HOST="127.0.0.1", PORT=str(wire.port))
    with hold(wrapper.alias):  # what it does to a new connection is not what is counted
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
        wire.forget()
        yield wrapper
        with wrapper.cursor() as cursor:
            cursor.execute("DELETE FROM testapp_item")


@pytest.fixture
def items(db):
    return Item.objects.using(db.alias)


def simple(wire):
    """Return the statements that were sent, each of them in one message and one round trip."""
    statements = wire.statements
    assert wire.sent() == {"Q": len(statements)}
    assert wire.round_trips() == len(statements)
    return statements


def words(wire):
    """Return the first words of what `simple` returns."""
    return [sql.split()[0] for sql in simple(wire)]


@pytest.mark.parametrize("values", VALUES)
def test_a_statement(raw, wire, values):
    slots = ", ".join(["%s"] * len(values or ()))
    cursor = raw.cursor()
    cursor.execute(f"SELECT {slots}", values)
    assert len(cursor.fetchall()) == 1
    assert len(simple(wire)) == 1


def test_named_parameters(raw, wire):
    assert raw.cursor().execute("SELECT %(a)s, %(a)s", {"a": "x"}).fetchone() == ("x", "x")
    assert simple(wire) == ["SELECT 'x', 'x'"]


def test_several_statements_are_one_message(raw, wire):
    raw.cursor().execute("SELECT %s; SELECT %s", [1, 2])
    assert simple(wire) == ["SELECT 1; SELECT 2"]


@pytest.mark.parametrize("sql", ["", "SELECT 1/0", "SELEC", "SET TIME ZONE 'UTC'"])
def test_whatever_it_is(raw, wire, sql):
    with suppress(dbapi.DataError, dbapi.ProgrammingError):
        raw.cursor().execute(sql)
    assert simple(wire) == [sql]


@pytest.mark.parametrize("autocommit", [True, False])
def test_many_are_one_message(raw, wire, autocommit):
    raw.run("CREATE TEMP TABLE t (n int)")
    raw.autocommit = autocommit
    wire.forget()
    raw.cursor().executemany("INSERT INTO t VALUES (%s) -- a row", [(1,), (2,)])
    *begin, many = simple(wire)
    assert begin == ([] if autocommit else ["BEGIN"])
    assert many == "INSERT INTO t VALUES (1) -- a row\n;\nINSERT INTO t VALUES (2) -- a row"
    wire.forget()
    raw.cursor().executemany("INSERT INTO t VALUES (%s)", [(1,)])
    raw.cursor().executemany("INSERT INTO t VALUES (%s)", [])
    assert simple(wire) == ["INSERT INTO t VALUES (1)"]


def test_transactions(raw, wire):
    raw.autocommit = False
    raw.cursor().execute("SELECT %s", [1])
    raw.cursor().execute("SELECT %s", [2])
    raw.commit()
    raw.rollback()  # there is nothing to undo
    assert simple(wire) == ["BEGIN", "SELECT 1", "SELECT 2", "COMMIT"]


def test_a_named_cursor(raw, wire):
    raw.autocommit = False
    with raw.cursor("rows") as cursor:
        cursor.itersize = 2
        cursor.execute("SELECT generate_series(1, %s)", [3])
        assert [number for (number,) in cursor] == [1, 2, 3]
    raw.commit()
    begin, declare, *others = simple(wire)
    assert (begin, others[-1]) == ("BEGIN", "COMMIT")
    assert declare == 'DECLARE "rows" CURSOR FOR SELECT generate_series(1, 3)'
    assert others[:3] == ['FETCH FORWARD 2 FROM "rows"'] * 3


def test_a_callproc(raw, wire):
    cursor = raw.cursor()
    cursor.callproc("upper", ["a"])
    assert cursor.fetchall() == [("A",)]
    assert len(simple(wire)) == 1


def test_a_wait_for_notifications_sends_nothing(raw, wire, admin):
    raw.run("LISTEN here")
    wire.forget()
    raw.poll()
    assert wire.sent() == {}


def test_create(items, wire):
    items.create(name="it's")
    assert len(simple(wire)) == 1


def test_get(items, wire):
    items.bulk_create([Item(name="a"), Item(name="b")])
    wire.forget()
    assert items.get(name="a").name == "a"
    assert len(simple(wire)) == 1


def test_filter_and_count(items, wire):
    assert list(items.filter(name__startswith="it's", pk__in=[1, 2]).order_by("-name")) == []
    assert not items.filter(name__iregex=r"\d").exists()
    assert items.count() == 0
    assert len(simple(wire)) == 3


def test_update_and_delete(items, wire):
    items.create(name="a")
    wire.forget()
    assert items.filter(name="a").update(name="b") == 1
    assert items.filter(name="b").delete() == (1, {"testapp.Item": 1})
    assert [word for word in words(wire) if word in ("UPDATE", "DELETE")] == ["UPDATE", "DELETE"]


def test_bulk_create(items, wire):
    items.bulk_create(Item(name=f"{number}") for number in range(500))
    (insert,) = (sql for sql in simple(wire) if sql.startswith("INSERT"))
    assert "499" in insert
    assert items.count() == 500


def test_a_new_object_of_update_or_create(items, wire):
    _, created = items.update_or_create(name="a", defaults={"name": "b"})
    assert created
    # BEGIN, SELECT FOR UPDATE, SAVEPOINT, INSERT, RELEASE, COMMIT
    assert len(simple(wire)) == 6


def test_server_side_cursors(items, wire, db):
    items.bulk_create(Item(name=f"{number:02}") for number in range(25))
    wire.forget()
    names = [item.name for item in items.order_by("name").iterator(chunk_size=10)]
    assert names == [f"{number:02}" for number in range(25)]
    assert words(wire) == ["DECLARE", *["FETCH"] * 4, "CLOSE"]
    assert "WITH HOLD" in wire.statements[0]


def test_server_side_cursors_in_a_transaction(items, wire, db):
    with transaction.atomic(using=db.alias):
        assert list(items.iterator(chunk_size=10)) == []
    # Whether it is there to be closed is asked before.
    assert words(wire) == ["BEGIN", "DECLARE", "FETCH", "SELECT", "CLOSE", "COMMIT"]
    assert "WITH HOLD" not in wire.statements[1]


def test_savepoints(items, wire, db):
    with transaction.atomic(using=db.alias):
        items.create(name="a")
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=db.alias):
            items.create(name="b")
            raise ZeroDivisionError
        with transaction.atomic(using=db.alias):
            items.create(name="c")
    assert words(wire) == [
        *("BEGIN", "INSERT", "SAVEPOINT", "INSERT", "ROLLBACK"),
        *("RELEASE", "SAVEPOINT", "INSERT", "RELEASE", "COMMIT"),
    ]


def test_from_connecting_to_closing(make, wire):
    """With all that Django and relet do to a connection that is new."""
    wrapper = make("fresh", HOST="127.0.0.1", PORT=str(wire.port))
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT %s", ["x"])
        assert cursor.fetchone() == ("x",)
    assert "SELECT 'x'" in simple(wire)


def test_what_is_counted_is_told_apart(wire, parameters):
    """pg8000's own cursor does what these tests look for."""
    import pg8000.dbapi

    names = {"dbname": "database"}
    given = {names.get(name, name): value for name, value in parameters.items()}
    with pg8000.dbapi.connect(**{**given, **wire.place}, ssl_context=False) as theirs:
        theirs.autocommit = True
        wire.forget()
        theirs.cursor().execute("SELECT %s", ["x"])
        assert wire.sent().keys() >= set("PBDES")
        assert "Q" not in wire.sent()
        with pytest.raises(AssertionError):
            wire.round_trips()


# Several messages at once.


def test_messages_that_are_sent_at_once(raw):
    wire = raw.wire
    (found,) = wire.exchange("SELECT 2", before=["SELECT 1", "CREATE TEMP TABLE at_once (a int)"])
    assert found.rows == [(2,)]
    (found,) = wire.exchange("SELECT a FROM at_once", before=["INSERT INTO at_once VALUES (7)"])
    assert found.rows == [(7,)]


def test_the_first_error_of_several_messages(raw):
    wire = raw.wire
    raw.autocommit = True
    for number, before in enumerate((["SELECT 1/0", "SELECT 1"], ["SELECT 1", "SELECT 1/0"])):
        with pytest.raises(dbapi.DataError, match="division by zero") as caught:
            wire.exchange("SELECT x", before=before)
        assert caught.value.failed_message == number
    with pytest.raises(dbapi.ProgrammingError, match="column") as caught:
        wire.exchange("SELECT x", before=["SELECT 1"])
    assert not hasattr(caught.value, "failed_message")
    (found,) = wire.exchange("SELECT 3")
    assert found.rows == [(3,)]


def test_nothing_is_sent_if_one_of_them_cannot_be(raw):
    wire = raw.wire
    for wrong in ("SELECT '\ud800'", "SELECT '\0'"):
        for before, last in (([wrong], "SELECT 1"), (["SELECT 1"], wrong)):
            with pytest.raises((UnicodeEncodeError, dbapi.ProgrammingError)):
                wire.exchange(last, before=["CREATE TABLE never (a int)", *before])
    ((found,),) = wire.exchange("SELECT to_regclass('never')")[0].rows
    assert found is None
