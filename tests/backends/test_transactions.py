"""I1, I8, I9, I12: transactions are lazy, run on one connection, and release at their end."""

import pytest
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from testapp.models import Item

from ..support.driver import LOST
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill


@pytest.fixture(autouse=True)
def no_items(db):
    yield
    db.close()
    Item.objects.all().delete()


def test_nothing_of_transaction_control_takes_a_connection(db):
    before = stats(db).checkouts
    with transaction.atomic():
        with transaction.atomic():
            transaction.on_commit(lambda: None)
            assert stats(db).in_use == 0
        assert stats(db).in_use == 0
    assert db.get_autocommit()
    db.set_autocommit(False)
    assert not db.get_autocommit()
    assert stats(db).in_use == 0
    db.commit()
    db.set_autocommit(True)
    assert at_rest(db)
    assert stats(db).checkouts == before


def test_the_first_statement_begins_the_lease_and_the_end_ends_it(db):
    with transaction.atomic():
        pid = backend_pid(db)
        assert stats(db).in_use == 1
        assert backend_pid(db) == pid
    assert at_rest(db)


def test_commit_and_rollback_do_what_they_say(db):
    with transaction.atomic():
        Item.objects.create(name="kept")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Item.objects.create(name="lost")
        raise ZeroDivisionError
    assert at_rest(db)
    assert [item.name for item in Item.objects.all()] == ["kept"]


def test_savepoints_made_before_the_first_statement(db):
    with transaction.atomic():  # no statement in it but those of the inner blocks
        with pytest.raises(ZeroDivisionError), transaction.atomic(), transaction.atomic():
            Item.objects.create(name="lost")
            raise ZeroDivisionError
        Item.objects.create(name="kept")
        with transaction.atomic():
            pass
    assert [item.name for item in Item.objects.all()] == ["kept"]
    assert at_rest(db)


def test_savepoints_rolled_back_before_the_first_statement(db):
    with transaction.atomic():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            raise ZeroDivisionError
        outer = db.savepoint()
        db.savepoint()
        db.savepoint_rollback(outer)
        Item.objects.create(name="lost")
        db.savepoint_rollback(outer)
        Item.objects.create(name="kept")
        db.savepoint_commit(outer)
    assert [item.name for item in Item.objects.all()] == ["kept"]


def test_query_log_is_djangos(db):
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        with transaction.atomic():
            Item.objects.create(name="a")
        with transaction.atomic():
            pass
    words = [query["sql"].split()[0] for query in queries]
    assert words == ["BEGIN", "SAVEPOINT", "INSERT", "RELEASE", "SAVEPOINT", "RELEASE", "COMMIT"]


def test_on_commit_runs_after_the_connection_is_back(db):
    seen = []
    with transaction.atomic():
        Item.objects.create(name="a")
        transaction.on_commit(lambda: seen.append((at_rest(db), Item.objects.count())))
        assert not seen
    assert seen == [(True, 1)]


def test_on_commit_of_a_rolled_back_block_does_not_run(db):
    seen = []
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        transaction.on_commit(lambda: seen.append(1))
        raise ZeroDivisionError
    with transaction.atomic():
        pass
    assert not seen


def test_one_cursor_before_around_and_after_blocks_that_commit_or_fail(db):
    """As Django's test_rename_field_unique_together uses one."""
    with db.cursor() as cursor:
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('before')")
        assert at_rest(db)
        with pytest.raises(IntegrityError), transaction.atomic():
            cursor.execute("INSERT INTO testapp_item (name) VALUES ('before')")
        assert at_rest(db)
        with transaction.atomic():
            cursor.execute("INSERT INTO testapp_item (name) VALUES ('inside')")
            with pytest.raises(IntegrityError), transaction.atomic():
                cursor.execute("INSERT INTO testapp_item (name) VALUES ('inside')")
            cursor.execute("INSERT INTO testapp_item (name) VALUES ('inside too')")
        assert at_rest(db)
        cursor.execute("SELECT name FROM testapp_item ORDER BY id")
        assert at_rest(db)
        assert cursor.fetchall() == [("before",), ("inside",), ("inside too",)]


def test_manual_transaction(db):
    db.set_autocommit(False)
    try:
        Item.objects.create(name="first")
        assert stats(db).in_use == 1
        db.commit()
        assert stats(db).in_use == 0
        # Still manual: the next statement begins the next transaction.
        Item.objects.create(name="second")
        assert stats(db).in_use == 1
        db.rollback()
        assert stats(db).in_use == 0
        with pytest.raises(TransactionManagementError):
            transaction.on_commit(lambda: None)
    finally:
        db.set_autocommit(True)
    assert [item.name for item in Item.objects.all()] == ["first"]


def test_atomic_inside_a_manual_transaction(db):
    db.set_autocommit(False)
    try:
        with transaction.atomic():
            Item.objects.create(name="kept")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Item.objects.create(name="lost")
            raise ZeroDivisionError
        assert stats(db).in_use == 1
        db.commit()
        assert stats(db).in_use == 0
    finally:
        db.set_autocommit(True)
    assert [item.name for item in Item.objects.all()] == ["kept"]


def test_autocommit_false_in_settings(make):
    wrapper = make(AUTOCOMMIT=False)
    with wrapper.cursor() as cursor:
        assert not wrapper.get_autocommit()
        for name in ("committed", "rolled back"):
            cursor.execute("INSERT INTO testapp_item (name) VALUES (%s)", [name])
            assert stats(wrapper).in_use == 1
            wrapper.commit() if name == "committed" else wrapper.rollback()
            assert stats(wrapper).in_use == 0
            assert not wrapper.get_autocommit()
    assert [item.name for item in Item.objects.all()] == ["committed"]


def test_autocommit_turned_on_before_the_first_connection_is_introduced(make):
    wrapper = make(AUTOCOMMIT=False)
    wrapper.set_autocommit(True)
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('at once')")
        assert at_rest(wrapper)
    assert [item.name for item in Item.objects.all()] == ["at once"]


def test_close_restores_the_autocommit_of_the_settings(db):
    db.set_autocommit(False)
    Item.objects.create(name="lost")
    db.close()
    assert at_rest(db)
    assert db.get_autocommit()
    assert not Item.objects.exists()


@pytest.mark.parametrize("begin", ["BEGIN", "SELECT 1; BEGIN", "START TRANSACTION"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_transaction_begun_by_raw_sql_keeps_the_lease(db, begin, end):
    with db.cursor() as cursor:
        cursor.execute(begin)
        assert stats(db).in_use == 1
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('raw')")
        assert stats(db).in_use == 1
    assert stats(db).in_use == 1
    with db.cursor() as cursor:
        cursor.execute(end)
    assert at_rest(db)
    assert Item.objects.count() == (end == "COMMIT")


def test_a_raw_transaction_in_error_keeps_the_lease(db):
    with db.cursor() as cursor:
        cursor.execute("BEGIN")
        with pytest.raises(ProgrammingError):
            cursor.execute("SELECT * FROM no_such_table")
        assert stats(db).in_use == 1
        cursor.execute("ROLLBACK")
        assert at_rest(db)


def test_close_rolls_a_raw_transaction_back(db):
    pid = backend_pid(db)
    with db.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('lost')")
    db.close()
    assert at_rest(db)
    assert not Item.objects.exists()
    assert backend_pid(db) == pid  # clean, so it was kept


def test_a_raw_commit_inside_atomic_does_not_change_the_connection(db):
    with transaction.atomic():
        pid = backend_pid(db)
        with db.cursor() as cursor:
            cursor.execute("COMMIT")
        assert stats(db).in_use == 1
        assert backend_pid(db) == pid
    assert at_rest(db)


def test_connection_attribute_inside_a_transaction(db):
    assert db.connection is None
    with transaction.atomic():
        raw = db.connection
        assert raw is not None
        assert not raw.autocommit
        assert backend_pid(db) == raw.info.backend_pid
    assert db.connection is None


def test_connection_taken_before_the_block_is_used_in_it(db):
    db.ensure_connection()
    pid = db.connection.info.backend_pid
    with transaction.atomic():
        assert backend_pid(db) == pid
    assert at_rest(db)


def test_close_inside_atomic_does_not_reopen_inside_it(db):
    with transaction.atomic():
        Item.objects.create(name="lost")
        db.close()
        assert stats(db).in_use == 0
        assert db.connection is None
        with pytest.raises(ProgrammingError, match="Cannot open a new connection"):
            Item.objects.create(name="lost too")
        with pytest.raises(ProgrammingError, match="Cannot open a new connection"):
            db.ensure_connection()
        # Nor for what goes past Django's own refusal.
        with pytest.raises(ProgrammingError, match="Cannot open a new connection"):
            db.cursor().cursor.execute("SELECT 1")
    assert at_rest(db)
    assert not Item.objects.exists()
    Item.objects.create(name="usable")


def test_an_old_cursor_works_after_a_block_that_was_closed_inside(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        with transaction.atomic():
            cursor.execute("SELECT 2")
            db.close()
        cursor.execute("SELECT 3")
        assert cursor.fetchone() == (3,)
        assert at_rest(db)


def test_close_inside_atomic_before_any_statement(db):
    with transaction.atomic():
        db.close()
        with pytest.raises(ProgrammingError, match="Cannot open a new connection"):
            Item.objects.create(name="lost")
    assert at_rest(db)
    assert not Item.objects.exists()


def test_a_connection_lost_inside_atomic_is_not_replaced(db, observer):
    with (
        pytest.raises(Exception, match=LOST),
        transaction.atomic(),
        db.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('lost')")
        kill(observer, db.connection.info.backend_pid)
        # Django lets the block go on if the errors are caught: it must stay lost.
        for name in ("one", "two"):
            with pytest.raises(Exception, match=LOST):
                cursor.execute("INSERT INTO testapp_item (name) VALUES (%s)", [name])
    assert at_rest(db)
    assert not Item.objects.exists()


def test_a_connection_lost_in_a_raw_transaction_is_not_replaced(db, observer):
    with db.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('lost')")
        kill(observer, db.connection.info.backend_pid)
        for name in ("one", "two"):
            with pytest.raises(Exception, match=LOST):
                cursor.execute("INSERT INTO testapp_item (name) VALUES (%s)", [name])
    db.close()
    assert at_rest(db)
    assert not Item.objects.exists()


def test_rollback_ends_a_manual_transaction_whose_connection_is_lost(db, observer):
    db.set_autocommit(False)
    Item.objects.create(name="lost")
    kill(observer, db.connection.info.backend_pid)
    with pytest.raises(Exception, match=LOST):
        db.commit()
    assert stats(db).in_use == 0
    Item.objects.create(name="kept")
    db.commit()
    db.set_autocommit(True)
    assert [item.name for item in Item.objects.all()] == ["kept"]


def test_deferred_constraint_that_fails_at_commit(db):
    with db.cursor() as cursor:
        cursor.execute("CREATE TABLE deferred (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    try:
        with pytest.raises(IntegrityError), transaction.atomic(), db.cursor() as cursor:
            cursor.execute("INSERT INTO deferred VALUES (1), (1)")
        assert at_rest(db)
    finally:
        with db.cursor() as cursor:
            cursor.execute("DROP TABLE deferred")


def test_request_end_ends_what_was_left_open(db):
    from django.core.signals import request_finished

    db.set_autocommit(False)
    Item.objects.create(name="lost")
    request_finished.send(sender=None)
    assert at_rest(db)
    assert db.get_autocommit()
    assert not Item.objects.exists()


def test_a_view_that_does_not_query_takes_no_connection_under_atomic_requests(db):
    from django.core.handlers.base import BaseHandler

    db.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        before = stats(db).checkouts
        assert BaseHandler().make_view_atomic(lambda request: "response")(None) == "response"
        assert stats(db).checkouts == before
        view = BaseHandler().make_view_atomic(lambda request: backend_pid(db))
        assert view(None)
        assert stats(db).checkouts == before + 1
    finally:
        db.settings_dict["ATOMIC_REQUESTS"] = False
    assert at_rest(db)


def test_durable_and_nested_errors_are_djangos(db):
    with (
        transaction.atomic(),
        pytest.raises(RuntimeError, match="durable"),
        transaction.atomic(durable=True),
    ):
        pass
    with transaction.atomic(), pytest.raises(TransactionManagementError):
        db.commit()
    assert at_rest(db)


# What Django says of a transaction.


def test_execute_wrappers_see_savepoints_before_the_first_statement(db):
    seen = []

    def watch(execute, sql, *args):
        seen.append(sql.split()[0])
        return execute(sql, *args)

    with db.execute_wrapper(watch):
        with transaction.atomic(), transaction.atomic(), transaction.atomic():
            pass
        assert seen == ["SAVEPOINT", "SAVEPOINT", "RELEASE", "RELEASE"]
        seen.clear()
        with transaction.atomic(), transaction.atomic(), db.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert seen == ["SAVEPOINT", "SELECT", "RELEASE"]


def test_a_savepoint_that_nobody_watched_and_then_one_that_is(db):
    with transaction.atomic(), transaction.atomic():
        with db.execute_wrapper(lambda execute, *args: execute(*args)), transaction.atomic():
            pass
        with db.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)


def test_a_wrapper_is_usable_before_the_first_statement(db):
    db.close()
    assert not db.is_usable()  # as in Django, where there is no connection
    with transaction.atomic():
        assert db.is_usable()
    db.close()
    assert db.get_autocommit()
    assert db.is_usable()


def test_a_connection_that_was_closed_in_a_transaction(db):
    """Django says why nothing runs any more, and not that there was an error."""
    message = "Cannot open a new connection in an atomic block"
    with transaction.atomic():
        with db.cursor() as cursor:
            cursor.execute("SELECT 1")
            db.close()
            with pytest.raises(ProgrammingError, match=message):
                cursor.execute("SELECT 1")
        with db.cursor() as cursor, pytest.raises(ProgrammingError, match=message):
            cursor.execute("SELECT 1")
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
