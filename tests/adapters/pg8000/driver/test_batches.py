"""``executemany()``: all or nothing, as psycopg's pipeline is, and what is said of what failed."""

from __future__ import annotations

import django.db
import pytest
from testapp.models import Item

from relet.adapters.pg8000 import batches, dbapi
from relet.core import TransactionStatus

INSERT = "INSERT INTO relet_batch VALUES (%s)"


@pytest.fixture
def table(admin):
    admin.run("CREATE TABLE relet_batch (n int UNIQUE DEFERRABLE INITIALLY DEFERRED, s text)")
    yield lambda: [n for (n,) in admin.run("SELECT n FROM relet_batch ORDER BY n")]
    admin.run("DROP TABLE relet_batch")


@pytest.fixture(params=["one message", "some", "one each"])
def size(request, monkeypatch):
    """How long messages may be."""
    longest = {"one message": batches._MAX_LENGTH, "some": 120, "one each": 0}[request.param]
    monkeypatch.setattr(batches, "_MAX_LENGTH", longest)


@pytest.fixture
def theirs(server_uri):
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(server_uri, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        (INSERT, [[1], [2], [3], [4]]),
        (INSERT, []),
        (INSERT, [[7]]),
        ("INSERT INTO relet_batch SELECT generate_series(1, %s)", [[2], [0]]),
        ("UPDATE relet_batch SET n = %s WHERE n < 0", [[1], [2]]),
        ("CREATE TEMP TABLE IF NOT EXISTS t ()", [[], []]),
        ("SELECT %s", [[1], [2]]),
        ("INSERT INTO relet_batch VALUES (%(n)s), (%(n)s + 1)", [{"n": 1}, {"n": 3}]),
        (f"{INSERT}; -- and", [[1], [2]]),
        (f"{INSERT} /* '%% */", iter([[1], [2]])),
    ],
)
def test_what_they_have_done(raw, table, theirs, size, sql, params):
    params = list(params)
    cursor, other = raw.cursor(), theirs.cursor()
    cursor.executemany(sql, iter(params))
    ours = cursor.rowcount, table()
    raw.run("TRUNCATE relet_batch")
    other.executemany(sql, params)
    if sql != "SELECT %s":  # psycopg leaves out what comes back
        assert ours == (other.rowcount, table())
    assert raw.transaction_status == TransactionStatus.IDLE


FAILURES = [
    (INSERT, [[1], [2], ["x"], [3]], 2),
    (INSERT, [[2**40], [1]], 0),
    ("SELECT 1 / %s", [[1], [1], [1], [0]], 3),
    (f"{INSERT} RETURNING 1 / (n - 3)", [[1], [2], [3]], 2),
    (f"{INSERT} RETURNING\n  nonexistent", [[1], [2]], 0),
    ("SELEC %s", [[1], [2]], 0),
    ("INSERT INTO relet_batch\nVALUES (%s,\n\u20ac)", [[1], [2]], 0),
    (INSERT, [[1], [2], [2]], None),  # when all is committed
    ("INSERT INTO relet_batch VALUES (%s); SELECT 1 / 0", [[1], [2]], None),
    ("DO $$BEGIN INSERT INTO relet_batch VALUES (1); PERFORM 1 / %s; END$$", [[1], [0]], None),
]


@pytest.mark.parametrize(("sql", "params", "index"), FAILURES)
def test_all_or_nothing(raw, table, theirs, size, sql, params, index):
    cursor = raw.cursor()
    with pytest.raises(dbapi.Error) as ours:
        cursor.executemany(sql, params)
    assert table() == []
    assert raw.transaction_status == TransactionStatus.IDLE
    assert cursor.description is None
    assert raw.run("SELECT 1") == [(1,)]
    if index is None:
        return
    assert ours.value.executemany_index == index
    message, _, told = str(ours.value).rpartition("\n")
    assert told == f"PARAMETERS:  set {index + 1} of {len(params)}"
    with pytest.raises(dbapi.Error) as alone:
        cursor.execute(sql, params[index])
    assert (str(alone.value), type(alone.value)) == (message, type(ours.value))
    assert alone.value.diag.statement_position == ours.value.diag.statement_position


@pytest.mark.parametrize(("sql", "params", "index"), FAILURES[:6])
def test_psycopg_leaves_nothing_either(table, theirs, sql, params, index):
    with pytest.raises(Exception, match=r".") as caught:
        theirs.cursor().executemany(sql, params)
    assert type(caught.value).__module__.startswith("psycopg")
    assert table() == []


@pytest.mark.parametrize("autocommit", [True, False])
def test_in_a_transaction(raw, table, size, autocommit):
    raw.autocommit = autocommit
    raw.run("BEGIN")
    raw.cursor().executemany(INSERT, [[1], [2]])
    assert raw.transaction_status == TransactionStatus.IN_TRANSACTION
    with pytest.raises(dbapi.DataError):
        raw.cursor().executemany(INSERT, [[3], ["x"]])
    assert raw.transaction_status == TransactionStatus.IN_ERROR
    raw.rollback()
    assert table() == []


def test_a_transaction_of_its_own_begins_as_others_do(raw, table, size):
    raw.autocommit = False
    raw.cursor().executemany(INSERT, [[1], [2]])
    assert raw.transaction_status == TransactionStatus.IN_TRANSACTION
    raw.commit()
    assert table() == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ([object()], dbapi.ProgrammingError),
        (["\0"], dbapi.DataError),
        (["\ud800"], UnicodeEncodeError),
        ([1, 2], dbapi.ProgrammingError),
        (1, TypeError),
    ],
)
@pytest.mark.parametrize("autocommit", [True, False])
def test_what_cannot_be_composed_sends_nothing(connect, wire, table, size, wrong, kind, autocommit):
    raw = connect(**wire.place)
    raw.autocommit = autocommit
    wire.forget()
    with pytest.raises(kind):
        raw.cursor().executemany("INSERT INTO relet_batch (s) VALUES (%s)", [["a"], wrong])
    # What cannot be encoded is found where it is sent, after a transaction has begun.
    assert [sql for sql in wire.statements if "BEGIN" not in sql] == []
    raw.rollback()
    assert table() == []


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO relet_batch (s) VALUES ('%s');--'",
        "INSERT INTO relet_batch (s) VALUES ($$%s$$) /* %%",
        "INSERT INTO relet_batch (s) VALUES (%s), ('",
        "INSERT INTO relet_batch (s) VALUES (%s), ('\\'), ('')",
    ],
)
def test_no_statement_ends_what_another_has_begun(raw, table, sql):
    """Each is what it would be alone."""
    params = [["x'); SELECT '"], ["y"]]
    with pytest.raises(dbapi.Error) as many:
        raw.cursor().executemany(sql, params)
        raise dbapi.InternalError("nothing is wrong with it")
    with pytest.raises(dbapi.Error) as one:
        raw.cursor().execute(sql, params[0])
        raise dbapi.InternalError("nothing is wrong with it")
    assert str(many.value).partition("\nPARAMETERS")[0] == str(one.value)


def test_much(connect, wire, table):
    """No message is so long that the server could not take it."""
    raw = connect(**wire.place)
    wire.forget()
    raw.cursor().executemany(
        "INSERT INTO relet_batch VALUES (%s, %s)", [(n, "x" * 10_000) for n in range(300)]
    )
    first, *messages, last = wire.statements
    assert (first, last) == ("BEGIN", "COMMIT")
    assert len(messages) == 3
    assert max(map(len, messages)) <= batches._MAX_LENGTH
    assert len(table()) == 300


def test_an_interrupt_between_messages(raw, table, size, monkeypatch):
    send = type(raw.wire).exchange

    def exchange(self, sql, *others):
        if "(2)" in sql:
            raise KeyboardInterrupt
        return send(self, sql, *others)

    monkeypatch.setattr(type(raw.wire), "exchange", exchange)
    with pytest.raises(KeyboardInterrupt):
        raw.cursor().executemany(INSERT, [[n] for n in (1, 2, 3)])
    assert raw.transaction_status == TransactionStatus.IDLE
    assert table() == []


def test_through_django(db, size):
    insert, items = "INSERT INTO testapp_item (name) VALUES (%s)", Item.objects.using(db.alias)
    with db.cursor() as cursor:
        cursor.executemany(insert, [["a"], ["b"], ["c"]])
        assert cursor.rowcount == 3
    failed = pytest.raises(django.db.IntegrityError, match="PARAMETERS:  set 2 of 3")
    with failed, db.cursor() as cursor:
        cursor.executemany(insert, [["d"], ["a"], ["e"]])
    assert db._runner.find_pool().pool.stats().in_use == 0
    assert items.filter(name__in="abcde").delete()[0] == 3


def test_a_statement_for_which_there_can_be_no_transaction(raw):
    raw.cursor().executemany("VACUUM pg_class", [[]])
    with pytest.raises(dbapi.InternalError, match="cannot run inside"):
        raw.cursor().executemany("VACUUM pg_class", [[], []])
