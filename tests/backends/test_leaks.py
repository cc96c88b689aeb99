"""policy["leak_after"]: one warning about a lease that is too old, one message when it ends."""

import _thread
import logging
import threading
from time import monotonic

import pytest
from django.core.checks import run_checks
from django.db import connections, transaction

import relet
from relet.backends.leases import leaks
from relet.core import ConfigurationError, ReleasePolicy

from ..support import driver
from ..support.forks import child_of, needs_fork
from ..support.waiting import until


class Log(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []
        self.emitted = threading.Event()

    def emit(self, record):
        if "leak_after" in record.msg:
            self.records.append(record)
            self.emitted.set()


@pytest.fixture
def log():
    log, logger = Log(), logging.getLogger("relet")
    level = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    yield log
    logger.removeHandler(log)
    logger.setLevel(level)


@pytest.fixture
def watch(monkeypatch):
    """Looks at leases when a test says so; no thread does."""
    watch = leaks.LeakWatch()
    monkeypatch.setattr(watch, "expect", lambda seconds: None)
    monkeypatch.setattr(leaks, "watch", watch)
    return watch


def run(wrapper, sql):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.parametrize("observe", [True, False])
def test_one_warning_and_one_message_when_it_ends(make, watch, log, observe):
    wrapper = make("leaky", policy={"leak_after": 30.0}, OPTIONS={"observe": observe})
    wrapper.set_autocommit(False)
    run(wrapper, "SELECT 'secret' AS leaked")
    now = monotonic()
    assert 29 < watch.look(now) <= 30
    assert log.records == []
    # It is too old now. Look often: it is logged once.
    for _ in range(3):
        assert watch.look(now + 31) == 1.0
    [record] = log.records
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    assert text.startswith("DATABASES['leaky']: a connection has been leased for ")
    assert "longer than leak_after (30 s)" in text
    assert "idle in transaction" in text
    assert "SELECT ? AS leaked" in text
    assert "secret" not in text
    assert "\n  leased at\n" in text
    assert f"{__file__}:" in text
    assert record.relet_alias == "leaky"
    assert record.relet_state == "idle in transaction"
    assert record.relet_sql == "SELECT ? AS leaked"
    assert record.relet_thread == "MainThread"
    assert record.relet_leased_at[0][2] == "run"
    assert record.relet_pid > 0
    if observe:
        assert record.relet_route == "(thread MainThread)"
        assert "route (thread MainThread)" in text
    wrapper.rollback()
    wrapper.set_autocommit(True)
    watch.look(now + 45)
    _, record = log.records
    assert record.levelno == logging.INFO
    assert "was given back after about 45" in record.getMessage()
    assert record.relet_leased_seconds == pytest.approx(45, abs=2)
    watch.look(now + 46)
    assert len(log.records) == 2


def test_a_stack_is_logged_once(make, watch, log):
    wrapper = make("leaky", policy={"leak_after": 30.0})
    wrapper.set_autocommit(False)
    run(wrapper, "SELECT 1")
    watch.look(monotonic() + 31)
    wrapper.rollback()
    wrapper.set_autocommit(True)
    text = log.records[0].getMessage()
    assert "\n  last statement at: as above\n" in text
    assert text.count(" in test_a_stack_is_logged_once") == 2  # where the lease began, and now


def test_no_name_forges_a_line_of_the_log(make, watch, log):
    wrapper = make("leaky", policy={"leak_after": 30.0})
    with relet.label("import\nCRITICAL forged"):
        wrapper.set_autocommit(False)
        run(wrapper, 'SELECT 1 AS "a\nCRITICAL forged"')
        watch.look(monotonic() + 31)
        wrapper.rollback()
        wrapper.set_autocommit(True)
        watch.look(monotonic() + 45)
    assert len(log.records) == 2
    lines = [line for record in log.records for line in record.getMessage().splitlines()]
    assert not [line for line in lines if line.startswith("CRITICAL")]


def test_the_next_lease_of_the_same_wrapper_is_another(make, watch, log):
    wrapper = make("leaky", policy={"leak_after": 30.0})
    for number in (1, 2):
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1")
        watch.look(monotonic() + 31)
        wrapper.rollback()
        wrapper.set_autocommit(True)
        watch.look(monotonic())
        assert len(log.records) == 2 * number


def test_no_policy_asks_for_it(make, watch, log):
    wrapper = make("quiet")
    wrapper.set_autocommit(False)
    run(wrapper, "SELECT 1")
    assert watch.look(monotonic() + 1e6) is None
    wrapper.rollback()
    assert log.records == []


def test_a_plain_statement_is_never_logged(make, watch, log):
    wrapper = make("plain", policy={"leak_after": 0})
    run(wrapper, "SELECT 1")
    watch.look(monotonic() + 100)
    assert log.records == []


@pytest.mark.parametrize("closed", [False, True])
def test_a_wrappers_first_statement_is_never_logged(make, watch, log, observer, closed):
    """However long it runs: it outlasts nothing, though it makes the wrapper find its pool."""
    wrapper = make("first", policy={"leak_after": 0})
    wrapper.inc_thread_sharing()
    if closed:
        run(wrapper, "SELECT 1")
        wrapper.close_pool()
    observer.execute("SELECT pg_advisory_lock(78)")
    thread = threading.Thread(target=run, args=(wrapper, "SELECT pg_advisory_xact_lock(78)"))
    thread.start()
    waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
    try:
        until(lambda: observer.execute(waits).fetchone()[0])
        watch.look(monotonic() + 100)
    finally:
        observer.execute("SELECT pg_advisory_unlock(78)")
        thread.join()
    wrapper.dec_thread_sharing()
    assert log.records == []


def test_an_override_counts(make, db, watch, log):
    with relet.policies.override("default", leak_after=1.0), transaction.atomic():
        run(db, "SELECT 1")
        watch.look(monotonic() + 2)
    assert [record.relet_alias for record in log.records] == ["default"]


def test_a_thread_looks(make, log):
    """It is started by the first lease whose policy asks for it, and ends with the pool."""
    wrapper = make("watched", policy={"leak_after": 0.05})
    assert not leaks.watch._looks.goes_on
    wrapper.set_autocommit(False)
    run(wrapper, "SELECT 1")
    assert log.emitted.wait(60)
    log.emitted.clear()
    wrapper.rollback()
    wrapper.set_autocommit(True)
    assert log.emitted.wait(60)
    assert [record.levelname for record in log.records] == ["WARNING", "INFO"]
    wrapper.close()
    wrapper.close_pool()
    until(lambda: not leaks.watch._looks.goes_on)


@needs_fork
def test_a_child_has_a_thread_of_its_own(make, log):
    wrapper = make("forked", policy={"leak_after": 0.05})
    connections["forked"] = wrapper
    try:
        run(wrapper, "SELECT 1")

        def child():
            assert not leaks.watch._looks.goes_on
            wrapper.set_autocommit(False)
            run(wrapper, "SELECT 1")
            assert log.emitted.wait(30)

        assert child_of(child, within=60) == 0
    finally:
        del connections["forked"]
    wrapper.close()
    wrapper.close_pool()
    until(lambda: not leaks.watch._looks.goes_on)


@pytest.mark.parametrize("wrong", ["30", -1, True, float("nan")])
def test_what_is_wrong(make, wrong):
    with pytest.raises(ConfigurationError, match=r"'leak_after' is .*; it must be a number of"):
        ReleasePolicy(leak_after=wrong)
    wrapper = connections["default"]
    connections["default"] = make(policy={"leak_after": wrong})
    try:
        [error] = run_checks(tags=["relet"], databases=["default"])
    finally:
        connections["default"] = wrapper
    assert error.id == "relet.E003"
    assert "'leak_after'" in error.msg


def test_0_is_no_busy_wait(make, watch):
    wrapper = make("zero", policy={"leak_after": 0})
    run(wrapper, "SELECT 1")
    assert watch.look(monotonic()) >= 0.1


@pytest.mark.parametrize("observe", [True, False])
@driver.needs("psycopg", "copy()")
def test_a_transfer_that_begins_a_lease(make, watch, log, observe):
    """Also the first of a wrapper, for which the definitions are read on the way."""
    wrapper = make("copied", policy={"leak_after": 30.0}, OPTIONS={"observe": observe})
    with wrapper.cursor() as cursor, cursor.copy("COPY (SELECT 1) TO STDOUT") as copied:
        watch.look(monotonic() + 31)
        [row] = relet.connections("copied").rows
        for _ in copied:
            pass
    [record] = log.records
    assert " pinned: COPY or stream() " in record.getMessage()
    assert row.route if observe else row.route is None


def test_a_thread_that_threading_does_not_know(make, watch, log):
    wrapper = make("unknown", policy={"leak_after": 30.0})
    begun, over = _thread.allocate_lock(), _thread.allocate_lock()
    begun.acquire()
    over.acquire()

    def work():
        own = wrapper.copy()
        own.set_autocommit(False)
        run(own, "SELECT 1")
        begun.release()
        over.acquire()
        own.rollback()
        own.close()
        begun.release()

    ident = _thread.start_new_thread(work, ())
    assert begun.acquire(timeout=20)
    try:
        watch.look(monotonic() + 31)
        [row] = [row for row in relet.connections("unknown").rows if row.leased_seconds is not None]
    finally:
        over.release()
        assert begun.acquire(timeout=20)
    assert row.thread == f"(id {ident})" or row.thread.startswith("Dummy-")  # as drivers do
    assert f"thread {row.thread!r}" in log.records[0].getMessage()
