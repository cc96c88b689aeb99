"""I5, I6: every checkout ends, and what is broken or in doubt is thrown away."""

import signal
import threading
from contextlib import suppress

import pytest
from django.db import OperationalError, transaction
from testapp.models import Item

from ..support import driver
from ..support.interrupts import TIMES, Interrupt, interrupted, possible
from ..support.pools import all_pids, at_rest, backend_pid, stats
from ..support.sessions import kill, until_true
from ..support.waiting import until


@pytest.fixture
def interrupt():
    """Raise KeyboardInterrupt in the main thread, on SIGALRM, when told to."""

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda: signal.raise_signal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, before)


def interrupt_when(observer, sql):
    """Send SIGALRM to the main thread when the server says that *sql* is true."""
    # A statement that was interrupted before may go on there, for a second.
    with suppress(AssertionError):
        until(lambda: not observer.execute(sql).fetchone()[0], 5)

    def run():
        until_true(observer, sql)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


SLEEPING = """SELECT EXISTS (SELECT 1 FROM pg_stat_activity
              WHERE query LIKE 'SELECT pg_sleep(%' AND state = 'active')"""
#: psycopg2 looks for signals when a statement has ended, and not before.
SLEEP = "SELECT pg_sleep(60)" if driver.NAME == "psycopg" else "SELECT pg_sleep(1)"


def test_keyboard_interrupt_during_a_statement(db, observer, interrupt):
    thread = interrupt_when(observer, SLEEPING)
    with pytest.raises(KeyboardInterrupt), db.cursor() as cursor:
        cursor.execute(SLEEP)
    thread.join()
    assert at_rest(db)
    assert backend_pid(db)


def test_keyboard_interrupt_in_a_transaction(db, observer, interrupt):
    thread = interrupt_when(observer, SLEEPING)
    with pytest.raises(KeyboardInterrupt), transaction.atomic():
        Item.objects.create(name="lost")
        with db.cursor() as cursor:
            cursor.execute(SLEEP)
    thread.join()
    assert at_rest(db)
    assert not Item.objects.exists()


def test_keyboard_interrupt_while_waiting_for_a_connection(make, interrupt):
    keeper = make("interrupted")
    kept, over = threading.Event(), threading.Event()

    def run():
        other = type(keeper)(keeper.settings_dict, keeper.alias)
        with other.temporary_connection():
            kept.set()
            until(lambda: stats(keeper).waiting or over.is_set())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
            over.wait(20)

    thread = threading.Thread(target=run)
    thread.start()
    kept.wait(20)
    with pytest.raises(KeyboardInterrupt), keeper.cursor() as cursor:
        cursor.execute("SELECT 1")
    over.set()
    thread.join()
    # The place in the queue is given up: else the connection went to nobody.
    assert backend_pid(keeper)
    assert at_rest(keeper)


@pytest.mark.parametrize("moment", ["transaction_status", "checkin_from"])
def test_keyboard_interrupt_after_a_statement(db, monkeypatch, moment):
    """It strikes between the end of the statement and that of its lease."""
    backend_pid(db)
    pool = db._runner.lease.pool

    def interrupted(*args):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend_pid(db)
    db.close()
    assert at_rest(db)
    assert backend_pid(db)


def test_an_exception_that_is_none_of_the_drivers(db):
    class Awkward:
        def __iter__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), db.cursor() as cursor:
        cursor.executemany("SELECT %s", Awkward())
    assert at_rest(db)
    assert backend_pid(db)


def test_a_killed_connection_is_discarded_and_replaced(db, observer):
    first = backend_pid(db)
    kill(observer, first)
    with pytest.raises(OperationalError):
        backend_pid(db)
    assert at_rest(db)
    assert backend_pid(db) != first


def test_close_of_a_transaction_that_the_server_has_ended(db, observer):
    db.set_autocommit(False)
    kill(observer, backend_pid(db))
    db.close()  # the rollback fails; that is close()'s own affair
    assert at_rest(db)
    assert backend_pid(db)


def test_close_of_an_iterator_that_the_server_has_ended(db, observer):
    with db.chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 10)")
        kill(observer, db.connection.info.backend_pid)
        db.close()
        assert at_rest(db)
    assert backend_pid(db)


def test_is_usable_tells_a_dead_connection(db, observer):
    db.set_autocommit(False)
    pid = backend_pid(db)
    assert db.is_usable()
    kill(observer, pid)
    assert not db.is_usable()
    db.close()
    pid = backend_pid(db)
    kill(observer, pid)
    assert not db.is_usable()
    assert db.is_usable()  # that one is thrown away
    assert at_rest(db)


def test_after_one_broke_the_older_ones_are_checked(make, observer):
    wrapper = make("older", size=4)
    pids = set(all_pids(wrapper))
    assert len(pids) == 4
    for pid in pids:
        kill(observer, pid)
    # The first is found out by its statement; the three others are not handed out.
    with pytest.raises(OperationalError):
        backend_pid(wrapper)
    assert not pids & set(all_pids(wrapper))


@driver.needs("psycopg", "signal handlers in a running statement")
def test_close_under_a_running_statement(db, observer, interrupt):
    """A signal handler that closes connections, as some servers' do."""
    signal.signal(signal.SIGALRM, lambda number, frame: db.close())
    thread = interrupt_when(observer, SLEEPING)
    with pytest.raises(OperationalError), db.cursor() as cursor:
        cursor.execute(SLEEP)
    thread.join()
    assert at_rest(db)
    assert backend_pid(db)
    # The server has not noticed, and would not let the test database go.
    observer.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE query LIKE 'SELECT pg_sleep(60%'"
    )


@driver.needs("psycopg2", "signal handlers that wait for the statement's end")
def test_close_when_a_statement_has_just_ended(db, observer, interrupt):
    signal.signal(signal.SIGALRM, lambda number, frame: db.close())
    thread = interrupt_when(observer, SLEEPING)
    with db.cursor() as cursor:
        cursor.execute(SLEEP)
        thread.join()
        assert at_rest(db)
    assert backend_pid(db)


def test_i5_an_interrupt_before_the_checkout_has_begun(db, monkeypatch):
    def interrupted(lease):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(db._runner, "checkout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend_pid(db)
    assert at_rest(db)
    assert backend_pid(db)


@possible
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("garbage")
def test_i5_interrupts_that_strike_anywhere(db):
    def run():
        try:
            with db.cursor() as cursor:
                cursor.execute("SELECT 1")
                cursor.fetchone()
        except Interrupt:
            db.close()  # as at the end of a request, or of a task whose time is up
            raise

    assert interrupted(run, 0.0005) == TIMES
    db.close()
    assert backend_pid(db)
    assert at_rest(db)


def test_a_statement_inside_a_statement_is_refused(db):
    def parameters():
        yield (1,)
        with db.cursor() as inner:
            inner.execute("SELECT 1")

    from relet.core import IllegalEvent

    # psycopg alone would wait for itself for ever.
    with pytest.raises(IllegalEvent, match="from inside another one"), db.cursor() as cursor:
        cursor.executemany("SELECT %s", parameters())
    assert at_rest(db)
    assert backend_pid(db)


def test_a_pool_that_was_closed_is_opened_again(db):
    first = backend_pid(db)
    db.close_pool()
    assert backend_pid(db) != first
    assert at_rest(db)


def test_a_pool_closed_inside_a_transaction_does_not_end_it(db):
    with transaction.atomic():
        pid = backend_pid(db)
        db.close_pool()
        assert backend_pid(db) == pid
        Item.objects.create(name="kept")
    assert at_rest(db)
    assert Item.objects.all().delete()[0] == 1


def test_the_server_refuses_while_the_pool_grows(make, observer):
    """New connections fail: the one there is goes on being let."""
    wrapper = make("growing", size=2, timeout=1)
    assert backend_pid(wrapper)
    assert at_rest(wrapper)
