"""``connection_created`` is sent once for each new connection."""

import datetime as dt

import pytest
from django.db import transaction
from django.db.backends.signals import connection_created
from testapp.models import Item

from relet.backends import SessionStateError

from ..support.driver import LOST
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill


@pytest.fixture
def created():
    """The server processes that ``connection_created`` was sent for; a receiver to replace."""
    pids = []

    def receiver(connection, **kwargs):
        assert connection.connection is not None
        pids.append(backend_pid(connection))
        assert connection.connection is not None
        for extra in receivers:
            extra(connection)

    receivers = []
    connection_created.connect(receiver)
    yield pids, receivers
    connection_created.disconnect(receiver)


def test_once_per_connection_not_per_checkout(make, created):
    wrapper = make()
    for _ in range(3):
        pid = backend_pid(wrapper)
        wrapper.close()
    assert created[0] == [pid]


def test_again_when_the_connection_is_another(make, created, observer):
    wrapper = make()
    first = backend_pid(wrapper)
    kill(observer, first)
    with pytest.raises(Exception, match=LOST):
        backend_pid(wrapper)
    second = backend_pid(wrapper)
    assert created[0] == [first, second]


def test_receivers_may_use_the_orm_and_transactions(db, created):
    def query(connection):
        with transaction.atomic():
            seen.append(Item.objects.count())

    seen = []
    created[1].append(query)
    db.close_pool()
    with db.cursor() as cursor:
        cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)
    assert seen == [0]
    assert at_rest(db)


def test_what_receivers_set_outlives_the_transaction_it_was_opened_for(make, created):
    wrapper = make()

    def configure(connection):
        assert not connection.in_atomic_block
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '12345ms'")

    created[1].append(configure)
    wrapper.set_autocommit(False)
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        wrapper.rollback()
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("12345ms",)
    assert not wrapper.get_autocommit()


def test_atomic_block_is_restored_after_the_introduction(make, created):
    wrapper = make()
    wrapper.set_autocommit(False)
    wrapper.in_atomic_block = True
    wrapper.savepoint_ids = ["x"]
    wrapper.run_on_commit = [(set(), print, False)]
    backend_pid(wrapper)
    assert wrapper.in_atomic_block
    assert wrapper.savepoint_ids == ["x"]
    assert len(wrapper.run_on_commit) == 1
    wrapper.in_atomic_block, wrapper.savepoint_ids, wrapper.run_on_commit = False, [], []


def test_a_transaction_that_a_receiver_leaves_open_is_committed(make, created):
    wrapper = make()

    def begin(connection):
        with connection.cursor() as cursor:
            cursor.execute("BEGIN; SET LOCAL work_mem = '1MB'; SET statement_timeout = '12345ms'")

    created[1].append(begin)
    with wrapper.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("12345ms",)
    assert at_rest(wrapper)


def test_a_receiver_that_fails_costs_no_connection(make, created):
    wrapper = make()

    def fail(connection):
        raise ZeroDivisionError

    created[1].append(fail)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            backend_pid(wrapper)
        assert stats(wrapper).in_use == 0
    created[1].clear()
    assert backend_pid(wrapper)


def test_settings_of_the_alias_are_on_every_connection(make):
    wrapper = make(TIME_ZONE="Africa/Nairobi", OPTIONS={"isolation_level": 4})
    with wrapper.cursor() as cursor:
        cursor.execute("SHOW TimeZone")
        assert cursor.fetchone() == ("Africa/Nairobi",)
    with wrapper.temporary_connection():
        assert int(wrapper.connection.isolation_level) == 4


def levels(wrapper):
    """The isolation levels of a statement in autocommit, of one in a transaction, and again."""

    def level():
        with wrapper.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            return cursor.fetchone()[0]

    before = level()
    wrapper.set_autocommit(False)
    inside = level()
    wrapper.rollback()
    wrapper.set_autocommit(True)
    return before, inside, level()


def set_something(wrapper):
    with wrapper.cursor() as cursor:
        cursor.execute("SET statement_timeout = '12345ms'")
        cursor.execute("SELECT 1")


def discard_all(wrapper):
    with wrapper.cursor() as cursor:
        cursor.execute("DISCARD ALL")


def hold(wrapper):
    wrapper.hold()
    set_something(wrapper)
    wrapper.release_hold()


@pytest.mark.parametrize("receives", [False, True], ids=["", "receiver"])
@pytest.mark.parametrize("use", [lambda wrapper: None, set_something, discard_all, hold])
def test_isolation_level_is_for_transactions_alone(make, created, use, receives):
    """Autocommit is on in each connection of a pool; psycopg2 then sets it for the session."""
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    alone = ("read committed", "serializable", "read committed")
    if receives:
        created[1].append(lambda connection: seen.append(levels(connection)))
    seen = []
    wrapper = make(OPTIONS={"isolation_level": IsolationLevel.SERIALIZABLE})
    for _ in range(2):
        use(wrapper)
        wrapper.close()
        assert levels(wrapper) == alone
        wrapper.close()
        use(wrapper)  # once no connection is new
    assert len(created[0]) == 1
    assert seen == [alone] * receives


def test_assume_role(make, observer):
    observer.execute("DROP ROLE IF EXISTS relet_role; CREATE ROLE relet_role")
    wrapper = make(OPTIONS={"assume_role": "relet_role"})
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == ("relet_role",)


def test_timestamps_are_read_in_the_time_zone_of_the_wrapper(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT TIMESTAMPTZ '2000-01-01 12:00+00'")
        assert cursor.fetchone()[0].tzinfo == dt.timezone.utc


def test_extension_types_are_registered_after_create_extension(db):
    # Here for the pool's part only: what was introduced before is opened anew.
    before = backend_pid(db)
    with db.schema_editor() as editor:
        editor.execute("CREATE EXTENSION IF NOT EXISTS plpgsql")
    assert backend_pid(db) != before
    assert Item.objects.count() == 0


def test_a_refused_statement_keeps_no_connection_that_was_opened_to_judge_it(make, created):
    """The receiver's own statements are judged in the middle of that."""

    def configure(connection):
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'Asia/Tokyo'")

    created[1].append(configure)
    wrapper = make(policy={"session_state": "error"})
    with pytest.raises(SessionStateError), wrapper.cursor() as cursor:
        cursor.execute("SET lock_timeout = 5000")
    assert len(created[0]) == 1
    assert wrapper._runner.lease.connection is None
    assert at_rest(wrapper)
