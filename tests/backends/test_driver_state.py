"""I14: nothing that a borrower did to the driver's connection is there for the next one.

Whatever there is to change is changed, by each way to come by the connection, in each mode: of
release, and of session state, which has no say in this.
"""

from __future__ import annotations

import gc
import itertools
from contextlib import closing, contextmanager

import pytest
from django.db import OperationalError
from django.db.backends.signals import connection_created
from testapp.models import Item

from relet import ReleasePolicy, policies
from relet.core.lease import TABLES
from relet.core.policy import STATE_MODES

from ..support import driver, driver_changes, engine
from ..support.driver import execute, needs
from ..support.driver_changes import Kept, kept_open
from ..support.fingerprint import fingerprint
from ..support.pools import at_rest, backend_pid, borrowed, stats
from ..support.threads import in_thread

KNOWN = driver_changes.of(driver.dbapi)


def changes_of(*names):
    return pytest.mark.parametrize(
        "change",
        [change for change in KNOWN.CHANGES if change.name in names],
        ids=lambda change: change.name,
    )


changes = pytest.mark.parametrize("change", KNOWN.CHANGES, ids=lambda change: change.name)

#: Release mode and what becomes of session state.
MODES = list(itertools.product(TABLES, STATE_MODES))


def from_wrapper(wrapper, use):
    wrapper.ensure_connection()
    use(wrapper.connection)


def from_cursor(wrapper, use):
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        use(cursor.connection)


def from_new_cursor(wrapper, use):
    with wrapper.cursor() as cursor:
        use(cursor.connection)


def from_server_side_cursor(wrapper, use):
    with wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
        use(cursor.connection)


def from_block(wrapper, use):
    wrapper.hold()
    try:
        backend_pid(wrapper)
        use(wrapper.connection)
    finally:
        wrapper.release_hold()


ways = pytest.mark.parametrize(
    "way",
    [from_wrapper, from_cursor, from_new_cursor, from_server_side_cursor, from_block],
    ids=lambda way: way.__name__,
)


@pytest.fixture(autouse=True)
def nothing_kept_open():
    yield
    if kept_open:
        kept_open.clear()
        gc.collect()


@pytest.fixture(autouse=True)
def no_items(database):
    yield
    Item.objects.all().delete()


@contextmanager
def receiver(wrapper, function):
    """Have a function called with each new connection of the driver, of which there is none."""

    def receive(connection, **kwargs):
        function(connection.connection)

    if function is not None:
        connection_created.connect(receive)
        wrapper.close_pool()
    try:
        yield
    finally:
        if function is not None:
            connection_created.disconnect(receive)
            wrapper.close_pool()


def borrow(wrapper, way, use):
    """Have *use* called with the driver's connection, in a thread that then closes its wrapper."""

    def run():
        own = wrapper.copy()
        with closing(own):
            way(own, use)

    in_thread(run)
    assert stats(wrapper).in_use == 0


def seen(wrapper, look):
    """Return what somebody else sees, in another thread."""

    def run():
        own = wrapper.copy()
        with closing(own), own.cursor() as cursor:
            return look(cursor.connection)

    return in_thread(run)


@contextmanager
def policy(release, session_state):
    policies["default"] = ReleasePolicy(release=release, session_state=session_state)
    try:
        yield
    finally:
        del policies["default"]


CURSORS_CANNOT_BE_CLOSED = {
    *("lock", "notifies"),
    *("pgconn.enter_pipeline_mode", "pgconn.reset", "reset"),
}


@changes
@ways
def test_nobody_sees_the_change_of_another(db, change, way):
    if way is from_server_side_cursor and change.attribute in CURSORS_CANNOT_BE_CLOSED:
        pytest.skip("the driver cannot close the cursor after that, or waits for good")
    with receiver(db, change.before):
        before = seen(db, change.look)
        borrow(db, way, change.make)
        assert seen(db, change.look) == before


@pytest.mark.slow
@changes
def test_in_each_mode(db, change):
    with receiver(db, change.before):
        before = seen(db, change.look)
        for mode in MODES:
            with policy(*mode):
                borrow(db, from_wrapper, change.make)
            assert seen(db, change.look) == before, mode


AUTOCOMMIT = [change for change in KNOWN.CHANGES if change.kept is Kept.SET_BACK]
autocommit_changes = pytest.mark.parametrize("change", AUTOCOMMIT, ids=lambda change: change.name)


@autocommit_changes
@pytest.mark.parametrize("mode", MODES, ids="-".join)
@ways
def test_what_the_next_one_writes_is_there(db, observer, change, mode, way):
    with policy(*mode):
        borrow(db, way, change.make)
    with db.cursor() as cursor:
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('acknowledged')")
    assert observer.execute("SELECT count(*) FROM testapp_item").fetchone() == (1,)


@autocommit_changes
@ways
def test_autocommit_is_set_back_and_the_connection_kept(db, change, way):
    pid = backend_pid(db)
    borrow(db, way, change.make)
    assert backend_pid(db) == pid


# What is no change keeps the connection.


@pytest.mark.parametrize("use", KNOWN.ORDINARY, ids=lambda use: use.__name__)
@pytest.mark.parametrize("session_state", ["pin", "reset"])
def test_ordinary_use_keeps_the_connection(db, use, session_state):
    pid = backend_pid(db)

    def use_it(raw):
        execute(raw, "SET lock_timeout = '7s'")
        use(raw)

    for way in from_wrapper, from_cursor:
        with policy("statement", session_state):
            borrow(db, way, use_it)
            with db.cursor() as cursor:
                cursor.execute("SET lock_timeout = '7s'")
                cursor.execute("SELECT 1")
            db.close()
        assert backend_pid(db) == pid


def test_types_that_django_makes_known_keep_the_connection(db, observer):
    """Of hstore, Django tells each new connection."""
    from django.contrib.postgres import signals

    observer.execute("CREATE EXTENSION IF NOT EXISTS hstore")
    signals.get_hstore_oids.cache_clear()
    connection_created.connect(signals.register_type_handlers)
    try:
        db.close_pool()
        pid = backend_pid(db)
        for _ in range(3):
            with db.cursor() as cursor:
                cursor.execute("SET lock_timeout = '7s'")
                cursor.execute("SELECT 'a=>1'::hstore, %s::hstore", [{"b": "2"}])
                assert cursor.fetchone() == ({"a": "1"}, {"b": "2"})
            db.close()
            assert backend_pid(db) == pid
    finally:
        connection_created.disconnect(signals.register_type_handlers)
        signals.get_hstore_oids.cache_clear()
        db.close_pool()
        observer.execute("DROP EXTENSION hstore")


#: Changes that a receiver of `connection_created` makes.
RECEIVED = {
    *("isolation_level", "deferrable", "zone", "cursor_factory", "prepare_threshold"),
    *("add_notice_handler", "adapters", "adapters.register_loader", "register"),
    *("string_types", "notices", "timeout"),
}


def test_what_a_receiver_has_done_stays(db):
    """It is what the connection was."""
    done = {change.attribute: change for change in KNOWN.CHANGES if change.attribute in RECEIVED}
    assert done

    def receive(raw):
        for change in done.values():
            change.make(raw)

    with receiver(db, receive):
        looked = [seen(db, change.look) for change in done.values()]
        pid = backend_pid(db)
        for _ in range(2):
            borrow(db, from_cursor, lambda raw: execute(raw, "SET lock_timeout = '7s'"))
            assert [seen(db, change.look) for change in done.values()] == looked
        assert backend_pid(db) == pid


# What the driver keeps for whoever asks.


def raise_notice(wrapper):
    with wrapper.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'secret'; END $$")


@pytest.mark.skipif(driver.NAME == "psycopg", reason="the driver keeps no notices")
@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_nobody_reads_the_notices_of_another(db, mode):
    with policy(*mode):
        raise_notice(db)
        db.close()
        assert seen(db, lambda raw: list(raw.notices)) == []


@pytest.mark.skipif(driver.NAME == "psycopg", reason="the driver keeps no notices")
def test_notices_are_read_by_whoever_has_caused_them(db):
    db.hold()
    raise_notice(db)
    notice = db.connection.notices[-1]
    assert "secret" in getattr(notice, "message_primary", notice)
    db.release_hold()


@needs("psycopg", "traces")
def test_nobody_traces_another(db, tmp_path):
    path = tmp_path / "trace"
    with path.open("w") as file:
        borrow(db, from_cursor, lambda raw: raw.pgconn.trace(file.fileno()))
        with db.cursor() as cursor:
            cursor.execute("SELECT 'secret'")
        seen(db, lambda raw: raw.pgconn.untrace())
    assert path.read_text()
    assert "secret" not in path.read_text()


# Other ways to the connection.


def the_private_way(wrapper, use):
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        use(cursor.cursor._conn)


def from_copy(wrapper, use):
    with wrapper.cursor() as cursor, cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
        list(copy)
        use(copy.connection)


def from_cursor_of_copy(wrapper, use):
    with wrapper.cursor() as cursor, cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
        list(copy)
        use(copy.cursor.connection)


@needs("psycopg", "other ways to the connection")
@pytest.mark.parametrize(
    "way",
    [the_private_way, from_copy, from_cursor_of_copy],
    ids=["private", "copy", "cursor of copy"],
)
# What takes psycopg's lock waits for good in a copy().
@changes_of("row_factory", "add_notice_handler", "adapters.register_loader")
def test_by_another_way(db, change, way):
    before = seen(db, change.look)
    try:
        borrow(db, way, change.make)
        assert seen(db, change.look) == before
    finally:
        db.close_pool()


def from_native_pool(wrapper, use):
    with borrowed(wrapper) as raw:
        use(raw)


@pytest.fixture
def pool(db):
    """The pool of `db`, which lends connections to code that knows such pools."""
    backend_pid(db)
    with borrowed(db):
        pass
    yield db.pool
    db.close_pool()


@changes_of("autocommit", "isolation_level")
def test_by_the_pool_itself(db, change, pool):
    before = seen(db, change.look)
    borrow(db, from_native_pool, change.make)
    assert seen(db, change.look) == before


LEFT = (
    *("SET statement_timeout = '8s'", "SET ROLE pg_monitor", "LISTEN somewhere"),
    *("CREATE TEMPORARY TABLE left_over (a int)", "SELECT pg_advisory_lock(99)"),
    *("PREPARE prepared AS SELECT 1", "DECLARE kept CURSOR WITH HOLD FOR SELECT 1"),
)


def leave_state(raw):
    for statement in LEFT:
        execute(raw, statement)
    if not raw.autocommit:
        raw.commit()


@pytest.mark.parametrize("new", [False, True], ids=["", "new"])
def test_session_state_by_the_pool_itself(db, pool, new):
    """Also of one who gets the connection before any lease has had it."""
    before = seen(db, fingerprint)
    pids = {backend_pid(db)}
    if new:
        db.close_pool()
        if engine.NAME == "psycopg":
            db.pool.open(wait=True)
        from_native_pool(db, lambda raw: pids.add(raw.info.backend_pid))
    for _ in range(2):
        from_native_pool(db, leave_state)
        assert seen(db, fingerprint) == before
    assert backend_pid(db) in pids
    assert stats(db).size == 1


def test_one_that_cannot_be_restored_is_closed_alone(make, pool):
    """Others of the same age are not to blame."""
    wrapper = make(size=2)
    other = wrapper.copy()

    def make_table(connection, **kwargs):
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE received (a int)")

    def both():
        for each in wrapper, other:
            each.set_autocommit(False)
        pids = {backend_pid(wrapper), backend_pid(other)}
        for each in wrapper, other:
            each.rollback()
            each.set_autocommit(True)
        return pids

    connection_created.connect(make_table)
    try:
        before = both()
        from_native_pool(wrapper, lambda raw: None)
        assert len(before & both()) == 1
    finally:
        connection_created.disconnect(make_table)


def test_what_other_code_has_is_counted(db, pool):
    with borrowed(db):
        assert stats(db).in_use == 1
        with pytest.raises(OperationalError, match=r"1 of 1 connections are leased"):
            backend_pid(db)
    assert at_rest(db)


def unfinished_stream(raw):
    rows = raw.cursor().stream("SELECT generate_series(1, 9)")
    next(rows)
    return rows


def unfinished_notifies(raw):
    execute(raw, "LISTEN somewhere")
    execute(raw, "NOTIFY somewhere")
    raw.commit()
    found = raw.notifies(timeout=5)
    next(found)
    return found


def unfinished_copy(raw):
    copying = raw.cursor().copy("COPY (SELECT generate_series(1, 9)) TO STDOUT")
    return copying, copying.__enter__()


@needs("psycopg", "stream(), notifies() and copy()")
@pytest.mark.skipif(engine.NAME == "dj_db_conn_pool", reason="SQLAlchemy's own reset waits there")
@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("begin", [unfinished_stream, unfinished_notifies, unfinished_copy])
def test_one_that_comes_back_in_the_middle_of_a_call_is_closed(db, pool, begin, autocommit):
    """The driver's next call would wait for the end of that one, for good."""
    before = backend_pid(db)
    kept = []

    def use(raw):
        raw.autocommit = autocommit
        kept.append(begin(raw))

    def borrow_and_return():
        if engine.NAME == "psycopg":  # pool.connection() itself would wait
            raw = pool.getconn()
            use(raw)
            pool.putconn(raw)
        else:
            from_native_pool(db, use)

    in_thread(borrow_and_return)
    assert backend_pid(db) != before
    assert at_rest(db)


@pytest.mark.parametrize("step", ["lend", "normalize"])
def test_i15_an_interrupted_loan(db, pool, monkeypatch, step):
    before = backend_pid(db)

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            from_native_pool(db, lambda raw: None)
    if step == "normalize":  # nobody knows how far it came
        assert backend_pid(db) != before
    assert backend_pid(db)
    assert at_rest(db)


@pytest.mark.skipif(engine.NAME not in ("psycopg", "sqlalchemy"), reason="no such options")
def test_a_lease_is_no_borrower_of_the_pool(make):
    """Nor is one that comes back by the pool's own way: then nothing is restored twice."""
    options = engine.adapter().options_for(size=1, timeout=5)
    if engine.NAME == "psycopg":
        options["reset"] = lambda raw: None
    else:
        options["events"] = [(lambda *args: None, "checkin")]
    wrapper = make(pool=options, policy={"session_state": "ignore"})
    with wrapper.cursor() as cursor:
        cursor.execute("SET statement_timeout = '8s'")
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("8s",)
    from_native_pool(wrapper, lambda raw: None)
    with wrapper.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


@needs("psycopg2", "functions in C that take a cursor")
def test_functions_of_psycopg2_take_the_connection_of_a_cursor(db):
    """They refuse the cursor, which is none of theirs."""
    from psycopg2 import extensions

    pid = backend_pid(db)
    name = driver.sql.Identifier("a b")
    with db.cursor() as cursor:
        with pytest.raises(TypeError):
            name.as_string(cursor.cursor)
        assert name.as_string(cursor.connection) == '"a b"'
        assert extensions.quote_ident("a b", cursor.connection) == '"a b"'
    assert at_rest(db)
    assert backend_pid(db) == pid
    with db.cursor() as cursor:
        text = extensions.new_type((23,), "TEXT", lambda value, cursor: value)
        extensions.register_type(text, cursor.connection)
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == ("1",)
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


@needs("psycopg", "adapters of cursors")
def test_the_adapters_of_a_cursor_are_its_own(db):
    from psycopg.types.string import TextLoader

    pid = backend_pid(db)
    with db.cursor() as cursor:
        cursor.adapters.register_loader("int4", TextLoader)
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == ("1",)
    assert at_rest(db)
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    assert backend_pid(db) == pid
