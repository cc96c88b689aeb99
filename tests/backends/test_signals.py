"""I15: handlers of signals that use the connection, or raise, in the middle of anything."""

import os
import signal
import threading

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from testapp.models import Item

from relet import hold
from relet.core import IllegalEvent

from ..support import driver
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import until_true
from ..support.waiting import until

#: psycopg2 tells Python of signals when what it does has come to its end, and not before.
interruptible = pytest.mark.skipif(
    driver.NAME == "psycopg2", reason="psycopg2 waits without looking at signals"
)
pytestmark = interruptible

WAITS = """SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
           AND objid = 4712)"""

BUSY = """SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
          AND pid <> pg_backend_pid() AND state = 'active')"""


class Interrupt(BaseException):
    """As what Celery raises when a task's time is up."""


class Told(Exception):
    """The same, but an `Exception`, as Celery's own is."""


@pytest.fixture
def blocked(db, observer):
    """An advisory lock that others wait for, until the test is over."""
    observer.execute("SELECT pg_advisory_lock(4712)")
    yield
    observer.execute("SELECT pg_advisory_unlock(4712)")
    # The server has not heard of those who were closed while they waited.
    until_true(observer, f"SELECT NOT ({BUSY})")
    observer.execute("DELETE FROM testapp_item")


@pytest.fixture
def when_it_waits(observer, blocked):
    """Have a handler called in the main thread when a statement waits for that lock."""
    threads, previous = [], signal.getsignal(signal.SIGALRM)

    def strike(handler):
        signal.signal(signal.SIGALRM, lambda number, frame: handler())

        def work():
            try:
                until_true(observer, WAITS)
            except AssertionError:
                observer.execute("SELECT pg_advisory_unlock(4712)")  # or it waits for ever
                raise
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield strike
    for thread in threads:
        thread.join(20)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def slow_commits(db, observer):
    """COMMIT waits for the lock, where a row of the table was written."""
    with db.cursor() as cursor:
        cursor.execute("""
            CREATE FUNCTION relet_wait() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock(4712); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER relet_wait AFTER INSERT ON testapp_item
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION relet_wait()
        """)
    yield
    observer.execute("DROP TRIGGER relet_wait ON testapp_item")
    observer.execute("DROP FUNCTION relet_wait()")


def wait_in_statement(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(4712)")


def wait_in_statement_with_effects(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(4712), set_config('app.x', 'y', false)")


def wait_in_transaction(db):
    with transaction.atomic():
        Item.objects.create(name="never")
        wait_in_statement(db)


def wait_in_executemany(db):
    with db.cursor() as cursor:
        cursor.executemany("SELECT pg_advisory_xact_lock(%s)", [[4713], [4712]])


def wait_in_fetch(db):
    with db.chunked_cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(n) FROM generate_series(4711, 4712) AS n")
        cursor.fetchall()


def wait_in_hold(db):
    with hold():
        wait_in_statement(db)


def wait_in_stream(db):
    with db.cursor() as cursor:
        list(cursor.stream("SELECT pg_advisory_xact_lock(4712)"))


def wait_in_raw_connection(db):
    with db.cursor() as cursor:
        driver.execute(cursor.connection, "SELECT pg_advisory_xact_lock(4712)")


def wait_in_raw_connection_of_a_transaction(db):
    with transaction.atomic():
        Item.objects.create(name="never")
        driver.execute(db.connection, "SELECT pg_advisory_xact_lock(4712)")


def wait_in_copy(db):
    with (
        db.cursor() as cursor,
        cursor.copy("COPY (SELECT pg_advisory_xact_lock(4712)) TO STDOUT") as copy,
    ):
        list(copy)


def wait_in_savepoint(db):
    with transaction.atomic():
        Item.objects.create(name="never")
        with transaction.atomic():
            wait_in_statement(db)


WAITING = [
    wait_in_statement,
    wait_in_statement_with_effects,
    wait_in_transaction,
    wait_in_savepoint,
    wait_in_executemany,
    wait_in_fetch,
    wait_in_hold,
    pytest.param(wait_in_stream, marks=driver.needs("psycopg", "stream()")),
    pytest.param(wait_in_copy, marks=driver.needs("psycopg", "copy()")),
    wait_in_raw_connection,
    wait_in_raw_connection_of_a_transaction,
]
waiting = pytest.mark.parametrize("wait", WAITING)


def assert_nothing_is_lost(db, *, committing=False):
    """
    :param committing: whether COMMIT was under way, so nobody knows what has become of it.
    """
    db.close()
    assert at_rest(db)
    assert not db._runner.lease.pins
    assert backend_pid(db)
    assert committing or not Item.objects.filter(name="never").exists()
    with db.cursor() as cursor:
        cursor.execute("SELECT current_setting('app.x', true)")
        assert cursor.fetchone()[0] in (None, "")
    assert at_rest(db)


@waiting
def test_close(db, when_it_waits, wait):
    """In the middle of a call of the driver's: the connection is discarded, and nothing sent."""
    when_it_waits(db.close)
    with pytest.raises((DatabaseError, driver.dbapi.Error)):
        wait(db)
    assert_nothing_is_lost(db)


@waiting
def test_close_leaves_the_number_of_the_socket_to_the_call(db, when_it_waits, wait):
    """It would wait for good, for another file that has got it."""
    reused = []

    def close():
        number = db._runner.lease.connection.raw.fileno()
        db.close()
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
        reused.append(number in taken)
        for file in taken:
            os.close(file)

    when_it_waits(close)
    with pytest.raises((DatabaseError, driver.dbapi.Error)):
        wait(db)
    assert reused == [False]
    assert_nothing_is_lost(db)


def test_close_in_commit(db, slow_commits, when_it_waits):
    when_it_waits(db.close)
    with pytest.raises(DatabaseError), transaction.atomic():
        Item.objects.create(name="never")
    assert_nothing_is_lost(db, committing=True)


def test_close_in_commit_by_hand(db, slow_commits, when_it_waits):
    db.set_autocommit(False)
    Item.objects.create(name="never")
    when_it_waits(db.close)
    with pytest.raises(OperationalError):
        db.commit()
    assert_nothing_is_lost(db, committing=True)


def test_close_all_in_commit_with_session_state(db, slow_commits, when_it_waits):
    when_it_waits(connections.close_all)
    with pytest.raises(DatabaseError), transaction.atomic():
        with db.cursor() as cursor:
            cursor.execute("SET app.x = 'y'")
        Item.objects.create(name="never")
    assert_nothing_is_lost(db, committing=True)


@pytest.mark.parametrize("raised", [Interrupt, Told, KeyboardInterrupt])
@waiting
def test_an_exception(db, when_it_waits, wait, raised):
    """It arrives as it is, and nothing is lost."""

    def handler():
        raise raised

    when_it_waits(handler)
    # psycopg cannot leave its pipeline then, and says so.
    replaced = driver.NAME == "psycopg" and wait is wait_in_executemany
    with pytest.raises((raised, OperationalError) if replaced else raised):
        wait(db)
    assert_nothing_is_lost(db)


@pytest.mark.parametrize("raised", [Interrupt, Told, KeyboardInterrupt])
def test_an_exception_in_commit(db, slow_commits, when_it_waits, raised):
    def handler():
        raise raised

    when_it_waits(handler)
    with pytest.raises(raised), transaction.atomic():
        Item.objects.create(name="never")
    assert_nothing_is_lost(db, committing=True)


def run_a_statement(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    "use",
    [run_a_statement, lambda db: db.commit(), lambda db: db.rollback()],
    ids=["statement", "commit", "rollback"],
)
def test_what_cannot_be_done_now_is_refused(db, when_it_waits, use):
    """It is refused in the handler; the statement that is under way is not disturbed."""
    refused = []

    def handler():
        with pytest.raises(IllegalEvent) as caught:
            use(db)
        refused.append(caught.value)
        assert stats(db).in_use == 1
        raise Interrupt

    when_it_waits(handler)
    with pytest.raises(Interrupt):
        wait_in_statement(db)
    assert len(refused) == 1
    assert_nothing_is_lost(db)


def test_close_while_a_connection_is_waited_for(make):
    """There is none yet that could be closed; the statement runs, and gives it back."""
    wrapper = make("waited")
    taken, over = threading.Event(), threading.Event()

    def keep():
        other = wrapper.copy()
        with other.temporary_connection():
            taken.set()
            over.wait(20)

    def handler():
        wrapper.close()
        over.set()

    keeping = threading.Thread(target=keep)
    keeping.start()
    assert taken.wait(20)
    previous = signal.signal(signal.SIGALRM, lambda number, frame: handler())

    def strike():
        until(lambda: stats(wrapper).waiting)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    striking = threading.Thread(target=strike)
    striking.start()
    try:
        assert backend_pid(wrapper)
    finally:
        signal.signal(signal.SIGALRM, previous)
        striking.join(20)
        keeping.join(20)
    assert at_rest(wrapper)
    assert backend_pid(wrapper)
    assert at_rest(wrapper)
