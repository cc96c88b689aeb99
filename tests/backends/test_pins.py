"""I2: what outlives execute() keeps the lease until it is closed."""

import psycopg
import pytest
from django.db import transaction
from testapp.models import Item

from .conftest import at_rest, kill, stats


@pytest.fixture
def items(db):
    Item.objects.bulk_create(Item(name=f"item {n}") for n in range(5))
    yield
    Item.objects.all().delete()


def test_iterator_keeps_the_lease_until_exhausted(db, items):
    iterator = Item.objects.order_by("pk").iterator(chunk_size=2)
    assert next(iterator).name == "item 0"
    assert stats(db).in_use == 1
    assert len(list(iterator)) == 4
    assert at_rest(db)


def test_iterator_keeps_the_lease_until_closed(db, items, observer):
    iterator = Item.objects.iterator(chunk_size=2)
    next(iterator)
    iterator.close()
    assert at_rest(db)
    with db.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert cursor.fetchone() == (0,)


def test_a_commit_inside_the_loop_does_not_end_it(db, items):
    seen = []
    for item in Item.objects.order_by("pk").iterator(chunk_size=2):
        Item.objects.update_or_create(name=item.name, defaults={"name": item.name + "!"})
        assert stats(db).in_use == 1
        seen.append(item.name)
    assert seen == [f"item {n}" for n in range(5)]
    assert at_rest(db)


def test_a_rollback_inside_the_loop_does_not_end_it(db, items):
    for _ in Item.objects.iterator(chunk_size=2):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Item.objects.create(name="never")
            raise ZeroDivisionError
    assert at_rest(db)
    assert Item.objects.count() == 5


def test_iterator_inside_atomic(db, items):
    with transaction.atomic():
        assert len(list(Item.objects.iterator(chunk_size=2))) == 5
        assert stats(db).in_use == 1
    assert at_rest(db)


def test_close_ends_an_open_iterator_and_leaves_no_cursor_behind(db, items):
    iterator = Item.objects.iterator(chunk_size=2)
    next(iterator)
    db.close()
    assert at_rest(db)
    with db.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert cursor.fetchone() == (0,)
    with pytest.raises(Exception, match="closed"):
        list(iterator)
    assert at_rest(db)


def test_failed_declare_keeps_nothing(db):
    with db.chunked_cursor() as cursor:
        with pytest.raises(Exception, match="no_such_table"):
            cursor.execute("SELECT * FROM no_such_table")
        assert at_rest(db)


def test_a_connection_lost_under_an_iterator_is_discarded(db, items, observer):
    iterator = Item.objects.iterator(chunk_size=2)
    next(iterator)
    kill(observer, db.connection.info.backend_pid)
    with pytest.raises(Exception, match=r"terminat|closed|lost"):
        list(iterator)
    assert at_rest(db)
    assert Item.objects.count() == 5


def test_copy_keeps_the_lease_until_the_block_is_left(db):
    with db.cursor() as cursor:
        with cursor.copy("COPY (SELECT generate_series(1, 3)) TO STDOUT") as copy:
            assert stats(db).in_use == 1
            assert [bytes(data) for data in copy] == [b"1\n", b"2\n", b"3\n"]
        assert at_rest(db)


def test_copy_in(db):
    with db.cursor() as cursor:
        with cursor.copy("COPY testapp_item (name) FROM STDIN") as copy:
            copy.write_row(["copied"])
        assert at_rest(db)
    assert Item.objects.filter(name="copied").delete()[0] == 1


def test_a_failed_copy_leaves_a_usable_connection(db):
    with db.cursor() as cursor:
        with (
            pytest.raises(ZeroDivisionError),
            cursor.copy("COPY testapp_item (name) FROM STDIN") as copy,
        ):
            copy.write_row(["never"])
            raise ZeroDivisionError
        assert at_rest(db)
    assert not Item.objects.filter(name="never").exists()


def test_copy_given_to_execute_leaves_nothing_behind(db):
    # psycopg refuses it, but the server is already waiting for data.
    with db.cursor() as cursor:
        with pytest.raises(Exception, match="copy"):
            cursor.execute("COPY testapp_item (name) FROM STDIN")
        assert at_rest(db)
        cursor.execute("SELECT 1")


def test_stream_keeps_the_lease_until_exhausted(db):
    with db.cursor() as cursor:
        stream = cursor.stream("SELECT generate_series(1, 3)")
        assert next(stream) == (1,)
        assert stats(db).in_use == 1
        assert list(stream) == [(2,), (3,)]
        assert at_rest(db)


def test_stream_keeps_the_lease_until_closed(db):
    with db.cursor() as cursor:
        stream = cursor.stream("SELECT generate_series(1, 100000)")
        next(stream)
        stream.close()
        assert at_rest(db)
        cursor.execute("SELECT 1")


def test_the_drivers_connection_keeps_the_lease_until_the_cursor_closes(db):
    with db.cursor() as cursor:
        raw = cursor.connection
        assert isinstance(raw, psycopg.Connection)
        cursor.execute("SELECT pg_backend_pid()")
        assert stats(db).in_use == 1
        assert cursor.fetchone() == (raw.info.backend_pid,)
    assert at_rest(db)


def test_a_transaction_in_pipeline_mode_keeps_the_lease(db):
    with db.cursor() as cursor:
        with cursor.connection.pipeline():
            cursor.execute("SELECT 1")
            cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)
    assert at_rest(db)
