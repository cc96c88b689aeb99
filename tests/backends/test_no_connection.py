"""What cannot get a connection is Django's OperationalError, whatever wants it."""

import io
import socket

import pytest
from django.db import OperationalError

from relet.core import PoolTimeout

from ..support import driver
from ..support.pools import at_rest, stats
from ..support.threads import in_thread


def copy(cursor):
    with cursor.copy("COPY (SELECT 1) TO STDOUT") as rows:
        return list(rows)


#: What takes a connection, given a cursor.
BY_CURSOR = {
    "execute": lambda cursor: cursor.execute("SELECT 1"),
    "execute with session state": lambda cursor: cursor.execute("SET work_mem = '1MB'"),
    "executemany": lambda cursor: cursor.executemany("SELECT %s", [[1], [2]]),
    "callproc": lambda cursor: cursor.callproc("now"),
    "copy_expert": lambda cursor: cursor.copy_expert("COPY t TO STDOUT", io.StringIO()),
    "copy_from": lambda cursor: cursor.copy_from(io.StringIO(), "t"),
    "copy_to": lambda cursor: cursor.copy_to(io.StringIO(), "t"),
    "copy": copy,
    "stream": lambda cursor: list(cursor.stream("SELECT 1")),
    "rows before there are some": lambda cursor: cursor.fetchone(),
    "iteration before there are rows": list,
    "another attribute": lambda cursor: cursor.statusmessage,
    "a setting of the cursor": lambda cursor: cursor.arraysize,
    "the driver's cursor": lambda cursor: cursor.cursor.driver_cursor(),
}
#: And given a wrapper.
BY_WRAPPER = {
    "connect": lambda wrapper: wrapper.connect(),
    "ensure_connection": lambda wrapper: wrapper.ensure_connection(),
    "temporary_connection": lambda wrapper: wrapper.temporary_connection().__enter__(),
    "a server-side cursor": lambda wrapper: wrapper.chunked_cursor().execute("SELECT 1"),
}
PATHS = {
    **BY_WRAPPER,
    **{
        name: lambda wrapper, use=use: use(wrapper.cursor())
        for name, use in BY_CURSOR.items()
        if name not in ("copy", "stream") or driver.NAME != "psycopg2"
    },
}
#: In a transaction, or not.
AUTOCOMMIT = pytest.mark.parametrize("autocommit", [True, False], ids=["autocommit", "manual"])
EACH = pytest.mark.parametrize("use", PATHS.values(), ids=PATHS)


def refused(wrapper, use):
    # The first use after close() goes another way than the next.
    for _ in range(2):
        with pytest.raises(OperationalError, match=r"DATABASES\['kept'\]") as caught:
            use(wrapper)
        assert isinstance(caught.value.__cause__, PoolTimeout)


@AUTOCOMMIT
@EACH
def test_a_pool_that_this_thread_has(make, use, autocommit):
    keeper = make("kept")
    with keeper.temporary_connection():
        wrapper = keeper.copy()
        wrapper.set_autocommit(autocommit)
        refused(wrapper, use)
        wrapper.close()
    assert at_rest(keeper)


@pytest.mark.parametrize("name", ["execute", "copy_expert", "connect"])
def test_a_pool_that_another_thread_has(make, name):
    keeper = make("kept", timeout=1)

    def work():
        wrapper = keeper.copy()
        refused(wrapper, PATHS[name])
        wrapper.close()

    with keeper.temporary_connection():
        in_thread(work)
    assert at_rest(keeper)


@EACH
def test_a_server_that_is_not_there(make, use):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wrapper = make(HOST="127.0.0.1", PORT=str(port))
    for _ in range(2):
        with pytest.raises(OperationalError, match=r"DATABASES\['extra'\]: cannot connect"):
            use(wrapper)
    assert stats(wrapper).in_use == 0


def test_an_error_of_the_copy_itself_is_the_drivers(db):
    """As with Django's own engine."""
    if not hasattr(driver.Cursor, "copy_expert"):
        pytest.skip(f"{driver.NAME} has no copy_expert()")
    with db.cursor() as cursor, pytest.raises(driver.dbapi.Error):
        cursor.copy_expert("COPY no_such_table TO STDOUT", io.StringIO())
