"""I2: what outlives execute() keeps the lease until it is closed."""

import io
import threading
from contextlib import closing

import pytest
from django.db import ProgrammingError, transaction
from testapp.models import Item

from relet.backends.wrapper import transfers as leased

from ..support import driver
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill
from ..support.threads import in_thread
from ..support.waiting import PATIENCE

copies = driver.needs("psycopg", "cursor.copy()")
streams = driver.needs("psycopg", "cursor.stream()")
copies_at_once = driver.needs("psycopg2", "COPY in one call")


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
    with pytest.raises(Exception, match=driver.LOST):
        list(iterator)
    assert at_rest(db)
    assert Item.objects.count() == 5


@copies
def test_copy_keeps_the_lease_until_the_block_is_left(db):
    with db.cursor() as cursor:
        with cursor.copy("COPY (SELECT generate_series(1, 3)) TO STDOUT") as copy:
            assert stats(db).in_use == 1
            assert [bytes(data) for data in copy] == [b"1\n", b"2\n", b"3\n"]
        assert at_rest(db)


@copies
def test_copy_in(db):
    with db.cursor() as cursor:
        with cursor.copy("COPY testapp_item (name) FROM STDIN") as copy:
            copy.write_row(["copied"])
        assert at_rest(db)
    assert Item.objects.filter(name="copied").delete()[0] == 1


@copies
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
    # The driver refuses it, but the server is already waiting for data.
    with db.cursor() as cursor:
        with pytest.raises(Exception, match=r"(?i)copy"):
            cursor.execute("COPY testapp_item (name) FROM STDIN")
        assert at_rest(db)
        cursor.execute("SELECT 1")


@streams
def test_stream_keeps_the_lease_until_exhausted(db):
    with db.cursor() as cursor:
        stream = cursor.stream("SELECT generate_series(1, 3)")
        assert next(stream) == (1,)
        assert stats(db).in_use == 1
        assert list(stream) == [(2,), (3,)]
        assert at_rest(db)


@streams
def test_stream_keeps_the_lease_until_closed(db):
    with db.cursor() as cursor:
        stream = cursor.stream("SELECT generate_series(1, 100000)")
        next(stream)
        stream.close()
        assert at_rest(db)
        cursor.execute("SELECT 1")


def streaming(cursor):
    stream = cursor.stream("SELECT generate_series(1, 100000)")
    next(stream)
    return stream


def copying(cursor):
    def rows():
        with cursor.copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
            yield from copy.rows()

    rows = rows()
    next(rows)
    return rows


transfers = pytest.mark.parametrize("begin", [streaming, copying], ids=lambda begin: begin.__name__)


@copies
@transfers
def test_a_block_that_fails_ends_what_is_still_read(db, begin):
    with db.cursor() as cursor:
        pids = set()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            pids.add(backend_pid(db))
            rows = begin(cursor)
            raise ZeroDivisionError
        assert at_rest(db)
        with pytest.raises(driver.dbapi.Error, match=r"ROLLBACK has ended|no COPY in progress"):
            list(rows)
        assert backend_pid(db) in pids


@copies
@transfers
def test_an_inner_block_that_fails_ends_what_is_still_read(db, begin):
    with db.cursor() as cursor, transaction.atomic():
        Item.objects.create(name="outer")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Item.objects.create(name="never")
            rows = begin(cursor)
            raise ZeroDivisionError
        assert [item.name for item in Item.objects.all()] == ["outer"]
        del rows
        transaction.set_rollback(True)
    assert at_rest(db)


@copies
@transfers
def test_a_block_whose_rows_are_still_read_is_not_committed(db, begin):
    with db.cursor() as cursor:
        with pytest.raises(ProgrammingError, match="still open"), transaction.atomic():
            Item.objects.create(name="never")
            rows = begin(cursor)
        assert at_rest(db)
        rows.close()
    assert not Item.objects.filter(name="never").exists()


@copies
@transfers
def test_nothing_else_runs_while_rows_are_read(db, begin):
    with db.cursor() as cursor, closing(begin(cursor)):
        for use in (
            lambda: backend_pid(db),
            lambda: cursor.executemany("SELECT %s", [[1]]),
            lambda: begin(cursor),
            lambda: next(Item.objects.iterator()),
            lambda: transaction.atomic().__enter__(),
            lambda: db.set_autocommit(False),
        ):
            with pytest.raises((ProgrammingError, driver.dbapi.ProgrammingError), match="open"):
                use()
    assert at_rest(db)
    assert db.get_autocommit()
    backend_pid(db)


@copies
@transfers
def test_statements_run_again_once_rows_were_read(db, begin):
    with transaction.atomic(), db.cursor() as cursor:
        with closing(begin(cursor)), pytest.raises(ProgrammingError, match="still open"):
            Item.objects.create(name="refused")
        assert not db._runner.lease.pins
    with db.cursor() as cursor:
        for _ in range(2):
            cursor.execute("SELECT 1")
    assert not db._runner.detour
    assert at_rest(db)


@streams
def test_a_block_commits_after_another_thread_has_closed_a_stream(db):
    with transaction.atomic(), db.cursor() as cursor:
        rows = streaming(cursor)
        in_thread(rows.close)
    assert at_rest(db)


@streams
@pytest.mark.parametrize(
    "use",
    [
        lambda cursor: next(Item.objects.iterator(), None),
        lambda cursor: next(cursor.stream("SELECT 1")),
    ],
    ids=["iterator", "stream"],
)
def test_rows_are_read_after_another_thread_has_closed_a_stream(db, use):
    with db.cursor() as cursor:
        rows = streaming(cursor)
        in_thread(rows.close)
        use(cursor)
    assert at_rest(db)


@streams
def test_another_thread_that_has_waited_for_a_row_of_a_stream_is_refused(db, monkeypatch):
    runner, errors, waits = db._runner, [], threading.Event()
    exclusive = runner.exclusive

    def use():
        try:
            runner.call(lambda: errors.append("it has run"))
        except driver.dbapi.ProgrammingError as error:
            errors.append(str(error))

    def awaited():
        waits.set()
        return exclusive()

    user = threading.Thread(target=use)

    def row():
        monkeypatch.setattr(runner, "exclusive", awaited)
        user.start()
        assert waits.wait(PATIENCE)

    db.inc_thread_sharing()
    try:
        with db.cursor() as cursor, closing(streaming(cursor)):
            runner.call_for_transfer(row)
            user.join(PATIENCE)
    finally:
        db.dec_thread_sharing()
    [error] = errors
    assert "still open" in error


@copies
def test_i15_an_interrupt_before_the_driver_leaves_its_block(db, monkeypatch):
    leave, interrupts = leased._leave_block, [KeyboardInterrupt]

    def interrupted(runner, block, error):
        if interrupts:
            raise interrupts.pop()
        return leave(runner, block, error)

    monkeypatch.setattr(leased, "_leave_block", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        transaction.atomic(),
        db.cursor() as cursor,
        cursor.copy("COPY testapp_item (name) FROM STDIN") as copy,
    ):
        copy.write_row(["never"])
    assert at_rest(db)
    assert not Item.objects.filter(name="never").exists()


def test_the_drivers_connection_keeps_the_lease_until_the_cursor_closes(db):
    with db.cursor() as cursor:
        raw = cursor.connection
        assert isinstance(raw, driver.Connection)
        driver.execute(raw, "SELECT 1")
        cursor.execute("SELECT pg_backend_pid()")
        assert stats(db).in_use == 1
        assert cursor.fetchone() == (raw.info.backend_pid,)
    assert at_rest(db)


@driver.needs("psycopg", "pipeline mode")
def test_a_transaction_in_pipeline_mode_keeps_the_lease(db):
    with db.cursor() as cursor:
        # After stream(), libpq asks for single rows until a statement begins outside a pipeline.
        cursor.execute("SELECT 0")
        with cursor.connection.pipeline():
            cursor.execute("SELECT 1")
            cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)
    assert at_rest(db)


@copies_at_once
class TestCopyAtOnce:
    """psycopg2's COPY is over when the call returns, and so is the lease."""

    def test_out(self, db):
        file = io.StringIO()
        with db.cursor() as cursor:
            cursor.copy_expert("COPY (SELECT generate_series(1, 3)) TO STDOUT", file)
            assert at_rest(db)
        assert file.getvalue() == "1\n2\n3\n"

    def test_in(self, db):
        with db.cursor() as cursor:
            cursor.copy_expert("COPY testapp_item (name) FROM STDIN", io.StringIO("copied\n"))
            assert at_rest(db)
            assert cursor.rowcount == 1
        assert Item.objects.filter(name="copied").delete()[0] == 1

    def test_from_and_to(self, db):
        file = io.StringIO()
        with db.cursor() as cursor:
            cursor.copy_from(io.StringIO("copied\n"), "testapp_item", columns=["name"])
            assert at_rest(db)
            cursor.copy_to(file, "testapp_item", columns=["name"])
            assert at_rest(db)
        assert file.getvalue() == "copied\n"
        assert Item.objects.all().delete()[0] == 1

    def test_files_are_no_statements(self, db):
        before = len(db._runner.effects)
        with db.cursor() as cursor:
            for _ in range(5):
                cursor.copy_to(io.StringIO(), "testapp_item")
        assert len(db._runner.effects) <= before + 1

    def test_in_a_transaction(self, db):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            with db.cursor() as cursor:
                cursor.copy_from(io.StringIO("never\n"), "testapp_item", columns=["name"])
            assert stats(db).in_use == 1
            raise ZeroDivisionError
        assert at_rest(db)
        assert not Item.objects.exists()

    def test_one_that_fails_leaves_a_usable_connection(self, db):
        class Failing(io.StringIO):
            def read(self, size=-1):
                raise ZeroDivisionError

        with db.cursor() as cursor:
            with pytest.raises(Exception, match="ZeroDivisionError"):
                cursor.copy_expert("COPY testapp_item (name) FROM STDIN", Failing())
            assert at_rest(db)
            with pytest.raises(Exception, match="no_such_table"):
                cursor.copy_from(io.StringIO(), "no_such_table")
            assert at_rest(db)
            cursor.execute("SELECT 1")
        assert not Item.objects.exists()


@driver.needs("psycopg2", "cursors with a name that the caller sets the fetch size of")
def test_a_named_cursor_fetches_as_many_rows_as_it_was_told(db, items):
    with db.chunked_cursor() as cursor:
        cursor.cursor.itersize = 2
        cursor.execute("SELECT name FROM testapp_item ORDER BY id")
        assert stats(db).in_use == 1
        assert [name for (name,) in cursor] == [f"item {n}" for n in range(5)]
        assert stats(db).in_use == 1
        assert cursor.cursor.itersize == 2
    assert at_rest(db)
