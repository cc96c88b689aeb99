"""close_all(), and the interpreter's exit."""

import subprocess
import sys
import threading

import pytest
from django.db import connections, transaction

from relet import close_all

from ..support import engine
from ..support.pools import at_rest, backend_pid, stats
from ..support.waiting import until

ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"


def test_idle_connections_are_closed(make, observer):
    wrappers = [make("one"), make("other")]
    pids = [backend_pid(wrapper) for wrapper in wrappers]
    assert close_all(20)
    until(lambda: observer.execute(ALIVE, [pids]).fetchone() == (0,))
    # And are made anew.
    assert not {backend_pid(wrapper) for wrapper in wrappers} & set(pids)


def test_leased_ones_are_closed_when_they_come_back(make, observer):
    wrapper = make("leased")
    wrapper.set_autocommit(False)
    pid = backend_pid(wrapper)
    assert close_all(20)
    assert backend_pid(wrapper) == pid  # the transaction goes on
    wrapper.commit()
    wrapper.set_autocommit(True)
    until(lambda: observer.execute(ALIVE, [[pid]]).fetchone() == (0,))
    assert backend_pid(wrapper) != pid
    assert at_rest(wrapper)


def test_it_waits_no_longer_than_it_is_told(make, monkeypatch):
    wrapper = make("slow")
    backend_pid(wrapper)
    pool, over = wrapper._runner.find_pool().pool, threading.Event()
    close = pool.close
    monkeypatch.setattr(pool, "close", lambda: over.wait(20) and close())
    assert not close_all(0.01)
    over.set()
    until(lambda: pool.closed)


def test_without_pools_there_is_nothing_to_do(db):
    close_all()
    assert close_all(0)
    assert at_rest(db)


EXIT = """
import sys, threading
import django
from django.conf import settings
settings.configure(DATABASES={{"default": {database!r}}})
django.setup()
from django.db import connection, transaction

def leave():
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    {leave}

{call}
"""


#: One thread runs a statement, and others wait for the only connection.
WORKING = """
begun = threading.Event()
begin = begun.set
for _ in range(4):
    threading.Thread(target=leave, daemon=True).start()
begun.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leave", "call", "code"),
    [
        ("pass", "leave()", 0),
        ("sys.exit(3)", "leave()", 3),
        ("threading.Event().wait()", "threading.Thread(target=leave, daemon=True).start()", 0),
        ('begin(); connection.cursor().execute("SELECT pg_sleep(2)")', WORKING, 0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "leave()", -15),
    ],
    ids=["end", "exit", "daemon", "working", "SIGTERM"],
)
def test_the_interpreters_exit(database, observer, leave, call, code):
    """With a transaction open: at once, in silence, and nothing stays on the server."""
    counting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    before = observer.execute(counting).fetchone()
    result = run(EXIT, leave=leave, call=call)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", "")
    until(lambda: observer.execute(counting).fetchone() <= before)


LATE = """
class Late:
    def __del__(self):
        try:
            query()
        except Exception as error:
            print(type(error), error)

late = Late()
query()
"""


@pytest.mark.slow
def test_a_query_after_the_exit_handlers(database):
    """Modules are torn down by then, and nothing can be imported."""
    result = run(EXIT + LATE, leave="connection.commit()", call="query = leave")
    assert result.stdout.startswith("<class 'django.db.utils.InterfaceError'> DATABASES['default']")
    assert "the interpreter is exiting" in result.stdout
    assert (result.returncode, result.stderr) == (0, "")


def run(source, **parts):
    """Run *source*, a template, in another process."""
    given = connections["default"].settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    settings = {name: given[name] for name in names}
    engine.put_small_pool(settings)
    settings.setdefault("OPTIONS", {}).update(
        {key: value for key, value in given["OPTIONS"].items() if key not in ("pool", "policy")}
    )
    source = source.format(database=settings, **parts)
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", source]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_nothing_is_in_use_after_all(db):
    with transaction.atomic():
        backend_pid(db)
    assert close_all(20)
    assert stats(db).in_use == 0
