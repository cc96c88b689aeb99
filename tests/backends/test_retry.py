"""policy.retry: a read goes on another connection where its own is dead, and nothing else does."""

import pytest
from django.db import OperationalError, transaction

from relet import hold, policies
from relet.core.sql.readonly import FUNCTIONS

from ..support import driver
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill, until_true
from ..support.threads import Thread

READ = "SELECT name FROM testapp_item"
WRITE = "INSERT INTO testapp_item (name) VALUES ('once')"


@pytest.fixture
def retrying(db):
    with policies.override("default", retry="reads"):
        yield db


def run(wrapper, sql):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def test_a_read_goes_on_another_connection(retrying, observer):
    first = backend_pid(retrying)
    kill(observer, first)
    assert run(retrying, READ) == []
    assert backend_pid(retrying) != first
    assert at_rest(retrying)


def test_not_by_default(db, observer):
    kill(observer, backend_pid(db))
    with pytest.raises(OperationalError):
        run(db, READ)


@pytest.mark.parametrize(
    "sql",
    [
        WRITE,
        "SELECT name FROM testapp_item FOR UPDATE",
        "SELECT nextval('testapp_item_id_seq')",
        "WITH gone AS (DELETE FROM testapp_item RETURNING name) SELECT * FROM gone",
        f"{READ}; {WRITE}",
    ],
)
def test_nothing_that_may_write(retrying, observer, sql):
    kill(observer, backend_pid(retrying))
    with pytest.raises(driver.CONNECTION_LOST):
        run(retrying, sql)
    assert run(retrying, READ) == []


def test_nothing_in_a_transaction(retrying, observer):
    kill(observer, backend_pid(retrying))
    with pytest.raises(OperationalError), transaction.atomic():
        run(retrying, READ)
    pid = backend_pid(retrying)
    with pytest.raises(OperationalError), transaction.atomic():
        assert backend_pid(retrying) == pid
        kill(observer, pid)
        run(retrying, READ)
    assert at_rest(retrying)


def test_nothing_on_a_connection_that_is_kept(retrying, observer):
    with hold():
        kill(observer, backend_pid(retrying))
        with pytest.raises(OperationalError):
            run(retrying, READ)


def test_nothing_that_was_sent(retrying, observer):
    """A query that somebody has ended on purpose does not begin anew."""
    pid = backend_pid(retrying)
    observer.execute("BEGIN")
    observer.execute("LOCK TABLE testapp_item")
    worker = Thread()
    worker(lambda: None)
    outcome = []

    def read():
        with policies.override("default", retry="reads"):
            from django.db import connection

            try:
                run(connection, READ)
            except OperationalError as error:
                outcome.append(error)
            connection.close()

    worker._todo.put(read)
    waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted)"
    until_true(observer, waits, pid)
    kill(observer, pid)
    worker._done.get(timeout=30)
    observer.execute("ROLLBACK")
    worker.end()
    assert len(outcome) == 1
    assert stats(retrying).in_use == 0


def test_in_a_policy_from_settings(make, observer):
    wrapper = make("retrying", policy={"retry": "reads"})
    kill(observer, backend_pid(wrapper))
    assert run(wrapper, READ) == []


#: They are volatile, and what they change is nothing.
HARMLESS = {"clock_timestamp", "random"}


def test_functions_that_only_read(observer):
    """What the server knows of them: in all their forms, they are there and not volatile."""
    rows = observer.execute(
        "SELECT proname, bool_or(provolatile = 'v') FROM pg_proc"
        " WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY proname"
    ).fetchall()
    volatile = dict(rows)
    assert FUNCTIONS - set(volatile) == set()
    assert {name for name in FUNCTIONS if volatile[name]} == HARMLESS
