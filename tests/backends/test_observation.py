"""I16: who does not look pays nothing. And what is noted of threads, tasks, forks, greenlets."""

import asyncio
import copy
import gc
import json
import os
import re
import select
import subprocess
import sys
import threading
import weakref
from time import monotonic

import pytest
from asgiref.sync import sync_to_async
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

import relet
from relet.backends.leases import lifetimes
from relet.backends.leases.runner import LeaseRunner
from relet.backends.observe import collection, kept, signals, stacks
from relet.backends.wrapper.cursor import LeasedCursor
from relet.backends.wrapper.server_cursor import LeasedServerCursor

from ..support import driver, engine
from ..support.aliases import Aliases
from ..support.forks import child_of, needs_fork
from ..support.pools import at_rest
from ..support.threads import in_thread
from ..support.waiting import until


@pytest.fixture(autouse=True)
def fresh():
    relet.queries.reset()
    relet.routes.reset()


def run(wrapper, sql):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def counted(sql):
    return sum(row.calls for row in relet.queries(limit=None).rows if row.sql == sql)


# Off.


def instructions(function):
    """The code objects and offsets of all instructions of relet that *function* runs."""
    found = []

    def trace(frame, event, arg):
        if "relet" not in str(frame.f_globals.get("__name__")).split("."):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            found.append((frame.f_code, frame.f_lasti))
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True
    # What other tests have lost would be cleaned up meanwhile.
    gc.collect()
    gc.disable()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
        gc.enable()
    return found


def test_off_is_the_plain_classes(make):
    wrapper = make("off", OPTIONS={"observe": False})
    run(wrapper, "SELECT 1")
    assert type(wrapper._runner) is LeaseRunner
    assert wrapper.cursor_class is LeasedCursor
    assert wrapper.server_cursor_class is LeasedServerCursor
    assert not {"cursor_class", "runner_class", "server_cursor_class"} & vars(wrapper).keys()
    with wrapper.cursor() as cursor:
        assert type(cursor.cursor) is LeasedCursor
    pool = wrapper._runner.handle.pool
    assert type(pool.long_leases) is dict
    assert not {"discard_from", "checkout_into", "checkin_from"} & vars(pool).keys()
    assert "_await_turn" not in vars(pool.fair_queue or pool)
    assert counted("SELECT ?") == 0


def test_off_runs_no_instruction_of_observation(make):
    wrapper = make("off", OPTIONS={"observe": False})
    run(wrapper, "SELECT 1")

    def work():
        run(wrapper, "SELECT 1")
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1")
        run(wrapper, "SELECT 1")
        wrapper.rollback()
        wrapper.set_autocommit(True)

    files = {code.co_filename.rpartition("/relet/")[2] for code, _ in instructions(work)}
    assert "backends/leases/runner.py" in files
    assert not [file for file in files if "observe" in file]


def test_on_runs_few_more_instructions(make):
    """Counted, not timed: for a plain statement, it is the code of the cursor and no more."""
    off, on = make("off", OPTIONS={"observe": False}), make("on")
    for wrapper in (off, on):
        for _ in range(3):
            run(wrapper, "SELECT 1")
    plain = instructions(lambda: run(off, "SELECT 1"))
    observed = instructions(lambda: run(on, "SELECT 1"))
    assert len(observed) - len(plain) < 120
    functions = {
        code.co_qualname if hasattr(code, "co_qualname") else code.co_name for code, _ in observed
    }
    assert not {name for name in functions if name.startswith(("ObservedRunner", "Tally"))}


def test_kept_leases_run_few_more_instructions(make):
    """A statement in one, and a transaction of one statement, however deep the stack is."""
    added = []
    for repeats in (1, 2):
        lengths = []
        for alias, options in (("off", {"observe": False}), ("on", {})):
            wrapper = make(f"{alias}{repeats}", OPTIONS=options)

            def work(wrapper=wrapper, repeats=repeats):
                wrapper.set_autocommit(False)
                with wrapper.cursor() as cursor:
                    for _ in range(repeats):
                        cursor.execute("SELECT 1")
                wrapper.rollback()
                wrapper.set_autocommit(True)

            for _ in range(3):
                work()
            lengths.append(len(instructions(work)))
        added.append(lengths[1] - lengths[0])
    once, twice = added
    assert once < 800
    assert twice - once < 330


@pytest.mark.parametrize("kept", [False, True])
def test_a_statement_costs_the_same_however_many_wait(make, kept):
    on = make("on")

    def work():
        if kept:
            on.set_autocommit(False)
        run(on, "SELECT 1")
        run(on, "SELECT 1")
        if kept:
            on.rollback()
            on.set_autocommit(True)

    contention = collection.contention("on")
    lengths, waiters = [], []
    try:
        for count in (1, 1, 300):  # the first one is new
            while len(waiters) < count:
                waiters.append(object())
                contention.begin(waiters[-1], monotonic())
            # A statement that takes longer than all before notes that it did.
            lengths.append(min(len(instructions(work)) for _ in range(5)))
    finally:
        for waiter in waiters:
            contention.end(waiter, monotonic())
    assert lengths[1] == lengths[2]


# Settings.


@pytest.fixture
def in_settings(make):
    """Put a wrapper into Django's `connections`, where system checks look."""
    wrapper = connections["default"]
    yield lambda made: connections.__setitem__("default", made)
    connections["default"] = wrapper


@pytest.mark.parametrize(
    ("observe", "says"),
    [
        ("True", "it is 'True'; it must be True, False, or a dict"),
        (1, "it is 1; it must be True"),
        (None, "it is None; it must be True"),
        ({"stack": True}, r"unknown 'stack' \(did you mean 'stacks'\?\); known are"),
        ({"queries": "no"}, "'queries' is 'no'; it must be True or False"),
        ({"routes": 500}, "'routes' is 500; it must be True or False"),
        ({"signal": "SIGUSR3"}, r"'signal' is 'SIGUSR3'; .* \(did you mean 'SIGUSR[12]'\?\)"),
        ({"signal": "SIGKILL"}, "'signal' is 'SIGKILL'; it must be the name of a signal"),
        ({"signal": 12}, "'signal' is 12; it must be the name of a signal"),
    ],
)
def test_what_is_wrong(make, in_settings, observe, says):
    wrapper = make(OPTIONS={"observe": observe})
    in_settings(wrapper)
    [error] = run_checks(tags=["relet"], databases=["default"])
    assert error.id == "relet.E011"
    assert error.msg.startswith("DATABASES['extra']['OPTIONS']['observe']: ")
    assert re.search(says, error.msg)
    with pytest.raises(ImproperlyConfigured, match=says):
        run(wrapper, "SELECT 1")


def test_what_is_right(make, in_settings):
    for observe in (True, False, {}, {"stacks": False, "queries": False, "routes": True}):
        wrapper = make(f"right {observe}", OPTIONS={"observe": observe})
        in_settings(wrapper)
        assert run_checks(tags=["relet"], databases=["default"]) == []
        run(wrapper, "SELECT 1")


def test_the_driver_does_not_get_the_option(make):
    assert "observe" not in make(OPTIONS={"observe": {}}).get_connection_params()


@pytest.mark.parametrize("observe", [False, True])
def test_settings_that_change_are_for_the_next_wrapper(make, observe):
    """The pool is a new one, and is observed or not; the wrapper is as it was."""
    wrapper = make("changed", OPTIONS={"observe": not observe})
    run(wrapper, "SELECT 1")
    wrapper.close()
    wrapper.settings_dict["OPTIONS"]["observe"] = observe
    for sql in ("BEGIN", "SELECT 1"):
        run(wrapper, sql)
    (row,) = relet.connections("changed").rows
    assert row.state == "idle in transaction"
    run(wrapper, "COMMIT")
    assert at_rest(wrapper)


def test_parts_can_be_left_out(make):
    wrapper = make("parts", OPTIONS={"observe": {"stacks": False, "queries": False}})
    with relet.label("here"):
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1 AS parts")
        [row] = relet.connections("parts").rows
        assert (row.leased_at, row.ran_at, row.cursor_at) == ((), (), ())
        assert (row.route, row.state) == ("here", "idle in transaction")
        wrapper.rollback()
        wrapper.set_autocommit(True)
    assert counted("SELECT ? AS parts") == 0
    assert [row.route for row in relet.routes().rows if row.leases] == ["here"]
    assert all(row.sql for row in relet.queries(limit=None).rows)

    relet.routes.reset()
    wrapper = make("parts2", OPTIONS={"observe": {"routes": False}})
    with relet.label("here"):
        run(wrapper, "SELECT 1 AS parts")
    assert counted("SELECT ? AS parts") == 1
    assert relet.routes().rows == ()


# Stacks.


def test_stacks_of_any_depth_are_those_of_a_loop():
    def below(frames, function):
        return function() if not frames else below(frames - 1, function)

    def look():
        here = sys._getframe(1)
        assert stacks.of_deep(here) == stacks.of(here)
        assert len(stacks.of(here)) == stacks.FULL
        assert stacks.of_cursor(here) == stacks.of(here, stacks.CURSOR_DEPTH)

    below(stacks.DEPTH, look)

    found = []

    def alone():
        here = sys._getframe(1)
        while here is not None:
            found.append((stacks.of_deep(here), stacks.of(here)))
            found.append((stacks.of_cursor(here), stacks.of(here, stacks.CURSOR_DEPTH)))
            here = here.f_back

    in_thread(lambda: below(3, alone))
    assert all(deep == loop for deep, loop in found)
    assert len(found[-2][0]) == 2


# Threads.


def test_threads_are_counted_while_they_live_and_afterwards(db):
    def work():
        run(connections["default"], "SELECT 1 AS threaded")
        connections["default"].close()

    for number in range(1, 4):
        in_thread(work)
        assert counted("SELECT ? AS threaded") == number
    [row] = [row for row in relet.queries().rows if row.sql == "SELECT ? AS threaded"]
    assert row.route.startswith("(thread Thread-N")


def test_threads_that_end_leave_nothing_but_counts(db):
    found = []

    def work():
        run(connections["default"], "SELECT 1")
        connections["default"].close()
        found.append(weakref.ref(threading.current_thread()))

    gc.collect()
    current = collection._collection
    before = len(current._live)  # one for each alias, of this thread
    for _ in range(40):
        in_thread(work)
    gc.collect()
    assert all(one() is None for one in found)
    assert len(current._live.keys() - current._ended.keys()) <= before
    assert len(current._ended) + len(current._full) <= 40


def test_many_threads_at_once_lose_nothing(add_size):
    """Each thread writes to counts of its own; readers and resets come in between."""
    add_size("busy", 3)
    threads, times = 8, 60
    over = threading.Event()

    def work():
        for number in range(times):
            with relet.label(f"{number % 7}"):
                run(connections["busy"], f"SELECT 1 AS busy{number % 5}")
        connections["busy"].close()

    def read():
        while not over.is_set():
            relet.queries()
            relet.routes()

    reader = threading.Thread(target=read)
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for thread in (reader, *workers):
        thread.start()
    for thread in workers:
        thread.join(60)
    over.set()
    reader.join(60)
    rows = [row for row in relet.queries(limit=None).rows if "busy" in row.sql]
    assert sum(row.calls for row in rows) == threads * times
    assert sum(row.leases for row in relet.routes(limit=None).rows) == threads * times


def test_a_lease_is_counted_that_a_thread_with_the_identifier_of_its_own_ends(
    add_size, monkeypatch
):
    add_size("left", 1)
    left = []
    monkeypatch.setattr(lifetimes, "_abandon_in_background", left.append)

    def work():
        with relet.label("left"):
            connections["left"].set_autocommit(False)
            run(connections["left"], "SELECT 1")
            return threading.get_ident()

    identifier = in_thread(work)
    assert [row.leases for row in relet.routes().rows if row.route == "left"] in ([], [0])
    monkeypatch.setattr(kept, "get_ident", lambda: identifier)
    (lease,) = {each for each in left if each.connection is not None}
    lifetimes._abandon(lease)
    assert [row.leases for row in relet.routes().rows if row.route == "left"] == [1]


@pytest.fixture
def add_size(database):
    def add(alias, size):
        settings = copy.deepcopy(connections["default"].settings_dict)
        engine.put_small_pool(settings, size=size, timeout=30)
        return aliases.add(alias, settings)

    with Aliases() as aliases:
        yield add


# Tasks.


def test_tasks_do_not_mix(db):
    async def one(name):
        async with relet.label(name):
            await asyncio.sleep(0)
            for _ in range(3):
                await sync_to_async(run)(db, f"SELECT 1 AS {name}")
                await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*(one(f"task{number}") for number in range(5)))

    db.inc_thread_sharing()
    try:
        asyncio.run(main())
    finally:
        db.dec_thread_sharing()
    for number in range(5):
        [row] = [row for row in relet.queries().rows if row.sql == f"SELECT ? AS task{number}"]
        assert (row.calls, row.route) == (3, f"task{number}")


def test_a_wrapper_that_is_shared_has_the_route_of_its_user(db):
    db.inc_thread_sharing()
    thread = threading.Thread(target=run, args=(db, "SELECT 1 AS shared"), name="user")
    try:
        thread.start()
        thread.join()
    finally:
        db.dec_thread_sharing()
    [row] = [row for row in relet.queries().rows if row.sql == "SELECT ? AS shared"]
    assert row.route == "(thread user)"


def test_a_coroutine_function_can_be_labelled(db):
    @relet.label("async")
    async def work():
        await sync_to_async(run)(db, "SELECT 1 AS labelled")

    db.inc_thread_sharing()
    try:
        asyncio.run(work())
    finally:
        db.dec_thread_sharing()
    [row] = [row for row in relet.queries().rows if row.sql == "SELECT ? AS labelled"]
    assert row.route == "async"


# Forks.


@needs_fork
def test_a_child_starts_at_nothing(db):
    run(db, "SELECT 1 AS parent")
    with relet.label("parent"), relet.hold():
        run(db, "SELECT 1 AS parent")

        def child():
            assert relet.queries().rows == ()
            assert relet.routes().rows == ()
            assert relet.pools().rows == ()
            assert relet.connections().rows == ()
            run(connections["default"], "SELECT 1 AS child")
            assert counted("SELECT ? AS child") == 1
            assert counted("SELECT ? AS parent") == 0
            connections["default"].close_pool()

        assert child_of(child) == 0
    assert counted("SELECT ? AS parent") == 2
    assert counted("SELECT ? AS child") == 0


# Greenlets.


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, json, sys, django
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])})
django.setup()
from django.db import connections
import relet

def work(name):
    with relet.label(name):
        for _ in range(3):
            with connections["default"].cursor() as cursor:
                cursor.execute(f"SELECT 1 AS {name}")
            gevent.sleep(0)
    connections["default"].close()

jobs = [gevent.spawn(work, f"job{number}") for number in range(5)]
gevent.joinall(jobs, raise_error=True, timeout=60)
assert all(job.successful() for job in jobs)
rows = {row.sql: (row.calls, row.route) for row in relet.queries(limit=None).rows}
for number in range(5):
    assert rows[f"SELECT ? AS job{number}"] == (3, f"job{number}"), rows
assert {row.route for row in relet.routes().rows} >= {f"job{number}" for number in range(5)}
print("ok", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    driver.NAME == "psycopg2", reason="psycopg2 blocks all greenlets, without psycogreen"
)
def test_greenlets_do_not_mix(db):
    pytest.importorskip("gevent", reason="gevent is not installed")
    command = [sys.executable, "-c", GREENLETS, json.dumps(db.settings_dict, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "ok", done.stderr


# The dump.


DUMP = """
import json, os, signal, sys, threading, django
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])})
django.setup()
from django.db import connections, transaction

ready = threading.Event()

def work():
    # A server may open its first connection in any thread.
    with transaction.atomic(), connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1 AS dumped")
        ready.set()
        threading.Event().wait(60)

threading.Thread(target=work, daemon=True, name="the worker").start()
ready.wait(60)
if len(sys.argv) > 2:
    pid = os.fork()
    if pid == 0:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1 AS forked")
        print("ready", os.getpid(), flush=True)
        threading.Event().wait(60)
        os._exit(0)
    os.waitpid(pid, 0)
else:
    print("ready", os.getpid(), flush=True)
    # A main thread that hangs in C, where Python handles no signals.
    threading.Lock().acquire() and threading.Event().wait(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no such signals")
@pytest.mark.parametrize("forked", [False, True])
def test_a_signal_dumps_all_reports(db, forked):
    settings = copy.deepcopy(db.settings_dict)
    settings["OPTIONS"]["observe"] = {"signal": "SIGUSR2"}
    settings.pop("TEST", None)
    engine.put_small_pool(settings, size=2)
    command = [sys.executable, "-W", "ignore", "-c", DUMP, json.dumps(settings, default=str)]
    process = subprocess.Popen(
        [*command, *(["fork"] if forked else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(60, process.kill)
    timer.start()
    try:
        word, pid = process.stdout.readline().split()
        assert word == "ready"
        os.kill(int(pid), 12)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("queries, by total"):
                lines += [process.stderr.readline() for _ in range(2)]
                break
    finally:
        if "pid" in locals():
            os.kill(int(pid), 9)
        process.kill()
        process.wait()
        timer.cancel()
        process.stdout.close()
        process.stderr.close()
    text = "".join(lines)
    assert f"relet: process {pid}" in text
    if forked:
        assert "SELECT ? AS forked" in text
        assert "dumped" not in text
    else:
        assert "idle in transaction" in text
        assert "the worker" in text
        assert "  leased at\n" in text
        assert "SELECT ? AS dumped" in text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no such signals")
def test_one_signal_is_one_report(monkeypatch, capfd):
    """faulthandler writes a dump in parts, which may be read one by one."""
    reading, writing = os.pipe()
    reports = []
    monkeypatch.setattr(signals, "report", lambda: reports.append(1) or "the report")
    thread = threading.Thread(target=signals._serve, args=(reading,))
    thread.start()
    dump = b'Current thread 0x1 (most recent call first):\n  File "x", line 1 in <module>\n'
    for cut in 1, 20, 35, len(dump) - 3:
        for part in dump[:cut], dump[cut:]:
            os.write(writing, part)
            until(lambda: all_read(reading))
    os.write(writing, dump * 3)
    os.close(writing)
    thread.join(60)
    os.close(reading)
    # Three that come together may be one.
    assert len(reports) == 5
    assert capfd.readouterr().err.count("the report") == 5


def all_read(reading):
    return not select.select([reading], [], [], 0)[0]


@driver.needs("psycopg", "copy()")
def test_a_copy_that_fails_at_its_end(make):
    wrapper = make("copied")
    run(wrapper, "CREATE TABLE relet_copied (a int)")
    try:
        with (
            pytest.raises(Exception, match="invalid input syntax"),
            wrapper.cursor() as cursor,
            cursor.copy("COPY relet_copied FROM STDIN") as copied,
        ):
            copied.write("no number\n")
    finally:
        run(wrapper, "DROP TABLE relet_copied")
    [row] = [row for row in relet.queries().rows if row.sql.startswith("COPY relet_copied")]
    assert (row.calls, row.errors) == (1, 1)


def test_a_plain_statement_that_runs_has_a_route(make, observer):
    wrapper = make("running")
    observer.execute("SELECT pg_advisory_lock(4713)")

    def work():
        with relet.label("nightly"):
            run(wrapper.copy(), "SELECT pg_advisory_xact_lock(4713)")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: [row.state for row in relet.connections("running").rows] == ["running"])
        assert [row.route for row in relet.connections("running").rows] == ["nightly"]
    finally:
        observer.execute("SELECT pg_advisory_unlock(4713)")
        thread.join()


@driver.needs("psycopg", "stream()")
@pytest.mark.parametrize("read", [3, 10])
def test_a_stream_is_counted_however_it_ends(make, read):
    wrapper = make("streamed")
    sql = f"SELECT generate_series(1, 10) AS streamed_{read}"
    with wrapper.cursor() as cursor:
        for number, _ in enumerate(cursor.stream(sql), 1):
            if number == read:
                break
    assert at_rest(wrapper)
    [row] = [row for row in relet.queries().rows if row.sql.endswith(f"streamed_{read}")]
    assert (row.calls, row.rows, row.errors) == (1, read, 0)


@driver.needs("psycopg", "stream()")
def test_a_stream_does_not_keep_its_wrapper(make):
    """Dropped in another thread, as by the garbage collector, it leaves its end to the owner."""
    kept = make("kept").copy()
    stream = iter(kept.cursor().stream("SELECT generate_series(1, 10)"))
    next(stream)
    pool, left, found = kept._runner.handle.pool, [stream], weakref.ref(kept)
    del stream
    in_thread(left.clear)
    del kept
    gc.collect()
    assert found() is None
    until(lambda: pool.stats().in_use == 0)
