"""I5, I11: gevent's greenlets that are killed, in a process that gevent has patched.

psycopg 3 and pg8000 wait in ways that gevent patches. psycopg2 waits in C, and needs
psycogreen for it.
"""

import json
import subprocess
import sys

import pytest
from django.db import connections

from ..support import driver, engine
from ..support.waiting import until

pytest.importorskip("gevent", reason="gevent is not installed")
pytestmark = pytest.mark.skipif(
    driver.NAME == "psycopg2", reason="psycopg2 blocks all greenlets, without psycogreen"
)

OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE '%lock(30)%' AND pid <> pg_backend_pid()
"""

SOURCE = """
import gevent.monkey
gevent.monkey.patch_all()
import gc, json, logging, sys, gevent
from gevent.event import Event
import django
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])})
django.setup()
from django.db import connection, transaction

gevent.get_hub().NOT_ERROR += (ZeroDivisionError,)

class Log(logging.Handler):
    lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())

logging.getLogger("relet").addHandler(Log())

def pid():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

def stats():
    return connection._runner.find_pool().pool.stats()

def until(condition):
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.001)

def end(*greenlets):
    gevent.killall(list(greenlets), block=True, timeout=20)
    assert all(greenlet.dead for greenlet in greenlets)

def other(function):
    greenlet = gevent.spawn(function)
    greenlet.join(20)
    assert greenlet.successful(), greenlet
    return greenlet.value

def usable(not_pid=None):
    "The only connection is had at once, and is not one that was left in the middle."
    found = other(pid)
    assert found and found != not_pid
    until(lambda: (stats().in_use, stats().waiting) == (0, 0))

def running():
    "A greenlet whose statement waits on the server."
    ready, pids = Event(), []
    def run():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pids.append(cursor.fetchone()[0])
            ready.set()
            cursor.execute("SELECT pg_advisory_xact_lock(30)")
    return run, ready, pids

def in_block():
    run, ready, pids = running()
    def block():
        with transaction.atomic():
            run()
    return block, ready, pids

def killed_mid_statement(make):
    run, ready, pids = make()
    greenlet = gevent.spawn(run)
    assert ready.wait(20)
    until(lambda: stats().in_use == 1)
    gevent.sleep(0)
    waiter = gevent.spawn(pid)
    until(lambda: stats().waiting == 1)
    end(greenlet)
    waiter.join(20)
    assert waiter.value and waiter.value != pids[0]
    usable(pids[0])

def in_a_statement():
    killed_mid_statement(running)

def in_a_statement_of_a_transaction():
    killed_mid_statement(in_block)

def while_waiting_in_the_pool():
    held, over = Event(), Event()
    def hold():
        with transaction.atomic():
            pid()
            held.set()
            over.wait()
    holder = gevent.spawn(hold)
    assert held.wait(20)
    waiters = [gevent.spawn(pid) for _ in range(3)]
    until(lambda: stats().waiting == 3)
    end(*waiters[:2])
    assert stats().waiting == 1
    over.set()
    holder.join(20)
    waiters[2].join(20)
    assert waiters[2].value
    usable()

def between_statements_of_a_transaction():
    ready = Event()
    def run():
        with transaction.atomic():
            pid()
            ready.set()
            Event().wait()
    greenlet = gevent.spawn(run)
    assert ready.wait(20)
    assert stats().in_use == 1
    end(greenlet)
    usable()
    assert Log.lines == []  # the block has ended as blocks do

def with_a_transaction_left_open():
    ready, pids = Event(), []
    def run():
        connection.set_autocommit(False)
        pids.append(pid())
        ready.set()
        Event().wait()
    greenlet = gevent.spawn(run)
    assert ready.wait(20)
    waiter = gevent.spawn(pid)
    until(lambda: stats().waiting == 1)
    end(greenlet)
    del greenlet
    waiter.join(20)
    assert waiter.value and waiter.value != pids[0]
    usable(pids[0])
    assert len(Log.lines) == 1 and "ended without closing" in Log.lines[0]

def before_anything():
    end(*[gevent.spawn(pid) for _ in range(5)])
    usable()

def many_at_any_moment():
    greenlets = [gevent.spawn(lambda: [pid() for _ in range(100)]) for _ in range(8)]
    until(lambda: stats().checkouts > 20)
    for number in range(6):
        end(greenlets[number])
        gevent.sleep(0)
    gevent.joinall(greenlets, timeout=20)
    assert all(greenlet.successful() for greenlet in greenlets)
    usable()

def timeouts_that_somebody_keeps():
    "What was being opened, or is discarded, is closed; the collector is not waited for."
    def sessions():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            return cursor.fetchone()[0]
    before, kept = sessions(), []
    gc.collect()
    gc.disable()
    for number in range(60):
        try:
            with gevent.Timeout(0.0005 * number):
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(0.01)")
        except gevent.Timeout as error:
            kept.append(error)
    assert kept
    until(lambda: sessions() <= before)
    gc.enable()
    usable()

pid()
for name in sys.argv[2:]:
    Log.lines.clear()
    globals()[name]()
    print(name, flush=True)
connection.close_pool()
"""

MOMENTS = [
    "before_anything",
    "in_a_statement",
    "in_a_statement_of_a_transaction",
    "while_waiting_in_the_pool",
    "between_statements_of_a_transaction",
    "with_a_transaction_left_open",
    "many_at_any_moment",
    "timeouts_that_somebody_keeps",
]


@pytest.mark.slow
def test_killed_at_any_moment(database, observer):
    """One process for all of them: it takes longer to start than they do."""
    given = connections["default"].settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    settings = {name: given[name] for name in names}
    engine.put_small_pool(settings, timeout=15)
    settings.setdefault("OPTIONS", {}).update(
        {key: value for key, value in given["OPTIONS"].items() if key not in ("pool", "policy")}
    )
    command = [sys.executable, "-c", SOURCE, json.dumps(settings), *MOMENTS]
    observer.execute("SELECT pg_advisory_lock(30)")
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # The server does not see that who waits for the lock is gone, before it has it.
    observer.execute("SELECT pg_advisory_unlock(30)")
    assert (result.returncode, result.stdout.split()) == (0, MOMENTS), result.stderr
    until(lambda: observer.execute(OTHERS).fetchone() == (0,))
