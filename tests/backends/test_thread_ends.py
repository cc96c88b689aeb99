"""I5: threads that end with a lease, on a pool of one connection: it is discarded."""

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction
from testapp.models import Item

from relet import hold
from relet.backends.leases import lifetimes

from ..support import driver
from ..support.holder import staying
from ..support.pools import at_rest, backend_pid, stats
from ..support.threads import in_thread
from ..support.waiting import until

ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"


@pytest.fixture
def ending(make):
    """``connections["ending"]`` in each thread."""
    wrapper = make("ending", timeout=20)
    databases = connections.settings
    databases["ending"] = wrapper.settings_dict
    connections["ending"] = wrapper
    yield wrapper
    wrapper.close()
    del connections["ending"], databases["ending"]


def in_transaction(kept):
    connections["ending"].set_autocommit(False)
    return backend_pid(connections["ending"])


def in_raw_transaction(kept):
    with connections["ending"].cursor() as cursor:
        cursor.execute("BEGIN")
    return backend_pid(connections["ending"])


def with_session_state(kept):
    with connections["ending"].cursor() as cursor:
        cursor.execute("SET app.tenant = '1'")
    return backend_pid(connections["ending"])


def in_hold(kept):
    hold("ending").__enter__()
    return backend_pid(connections["ending"])


def with_server_side_cursor(kept):
    cursor = connections["ending"].chunked_cursor()
    cursor.execute("SELECT pg_backend_pid() FROM generate_series(1, 9)")
    kept.append(cursor)
    return cursor.fetchone()[0]


def with_connection_in_use(kept):
    cursor = connections["ending"].cursor()
    kept.append((cursor, cursor.connection))
    return cursor.connection.info.backend_pid


def with_copy(kept):
    cursor = connections["ending"].cursor()
    copying = cursor.copy("COPY testapp_item (name) FROM STDIN")
    kept.append((cursor, copying))
    copying.__enter__().write_row(["lost"])
    return cursor.connection.info.backend_pid


TAKES = [
    in_transaction,
    in_raw_transaction,
    with_session_state,
    in_hold,
    with_server_side_cursor,
    with_connection_in_use,
    pytest.param(with_copy, marks=driver.needs("psycopg", "copy()")),
]


class Waiter:
    """Another thread, which waits for the only connection."""

    def __init__(self, wrapper):
        self.pid = None

        def run():
            copied = wrapper.copy()
            self.pid = backend_pid(copied)
            copied.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()
        until(lambda: stats(wrapper).waiting)

    def served(self):
        self.thread.join(20)
        return self.pid


def assert_discarded(wrapper, observer, caplog, waiter, pid):
    assert waiter.served() not in (None, pid)
    until(lambda: observer.execute(ALIVE, [pid]).fetchone() == (0,))
    assert at_rest(wrapper)
    assert stats(wrapper).size <= 1
    assert caplog.text.count("ended without closing its connection") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("take", TAKES)
def test_whatever_keeps_the_lease(ending, observer, caplog, take, garbage):
    kept = []
    with staying(lambda: take(kept)) as pid:
        waiter = Waiter(ending)
    assert_discarded(ending, observer, caplog, waiter, pid)


class End(Exception):
    pass


def returns():
    pass


def raises():
    raise End


def exits():
    sys.exit(3)


@pytest.mark.parametrize("how", [returns, raises, exits])
@pytest.mark.parametrize("daemon", [False, True])
def test_however_the_thread_ends(ending, observer, caplog, monkeypatch, how, daemon):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    with staying(lambda: in_transaction([]), how, daemon=daemon) as pid:
        waiter = Waiter(ending)
    assert_discarded(ending, observer, caplog, waiter, pid)


def test_a_worker_of_an_executor_that_is_shut_down(ending, observer, caplog):
    with ThreadPoolExecutor(1) as executor:
        pid = executor.submit(in_transaction, []).result(20)
        waiter = Waiter(ending)
    assert_discarded(ending, observer, caplog, waiter, pid)


def test_a_thread_whose_wrapper_is_kept_alive(ending, observer, caplog):
    kept = []

    def begin():
        kept.append(connections["ending"])
        return in_transaction([])

    with staying(begin) as pid:
        waiter = Waiter(ending)
    assert_discarded(ending, observer, caplog, waiter, pid)
    assert kept[0]._runner.lease.connection is None


def test_a_thread_that_dies_in_a_transaction_gives_its_place_back(db, caplog):
    def die():
        atomic = transaction.atomic()
        atomic.__enter__()
        Item.objects.create(name="lost")
        assert stats(db).in_use == 1

    in_thread(die)
    # On the pool's only place: this waits until it is free.
    assert not Item.objects.exists()
    assert stats(db).in_use == 0
    assert "ended without closing its connection" in caplog.text


def test_it_is_counted_and_told_where_it_was_taken(make, caplog):
    wrapper = make("told")
    pool = wrapper._runner.find_pool().pool

    def die():
        connections["told"] = copied = wrapper.copy()
        copied.set_autocommit(False)
        with copied.cursor() as cursor:
            cursor.execute("SELECT 1")

    class Handler(logging.Handler):
        """It may want a connection of that very pool."""

        def emit(self, record):
            seen.append(backend_pid(wrapper.copy()))

    seen, handler = [], Handler()
    logging.getLogger("relet").addHandler(handler)
    for number in range(1, 3):
        caplog.clear()
        in_thread(die)
        # The handler is called before that of the test, which is the root's.
        told = until(lambda: [record for record in caplog.records if record.name == "relet"])
        assert len(seen) == pool.abandoned == number
        (record,) = told
        text = record.getMessage()
        assert text.startswith("DATABASES['told']: a thread ended without closing its connection")
        assert f"(in a transaction, taken at {__file__}:" in text
        assert f"{number} so far in this pool" in text
    logging.getLogger("relet").removeHandler(handler)


def test_a_thread_that_dies_with_an_iterator_open_gives_its_place_back(db):
    Item.objects.bulk_create(Item(name=f"item {n}") for n in range(5))
    kept = []

    def die():
        iterator = Item.objects.iterator(chunk_size=2)
        next(iterator)
        kept.append(iterator)

    in_thread(die)
    assert Item.objects.count() == 5
    assert stats(db).in_use == 0
    with pytest.raises(Exception, match="closed"):
        list(kept.pop())
    assert Item.objects.all().delete()[0] == 5


def test_a_lease_of_a_thread_that_has_ended_is_of_no_other(ending, monkeypatch):
    """The system gives the next thread the same number, perhaps before the lease is discarded."""
    later = []
    monkeypatch.setattr(lifetimes, "_abandon_in_background", later.append)
    kept = []

    def work():
        in_transaction(kept)
        kept.append(connections["ending"]._runner)

    in_thread(work)
    (runner,) = kept
    assert runner.lease in later
    assert runner.lease.thread == 0
    monkeypatch.undo()
    for lease in later:
        lifetimes._abandon_in_background(lease)
    until(lambda: stats(ending).in_use == 0)
