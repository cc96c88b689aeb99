"""The rules of `PoolAdapter`, and a check for each."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from relet.core import ConfigurationError, PoolAdapter, TransactionStatus
from relet.core.facts import Facts

from .bench import (
    Bench,
    Broken,
    Call,
    ConfigureFailed,
    comes_true,
    demand,
    eventually,
    frequent_switches,
)
from .patience import patience
from .rule import rule

IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION


# Facts and options.


@rule(
    "facts",
    "sql_text() returns the text of a statement, given as str or as bytes.",
    both_ways=False,
)
def facts(bench: Bench) -> None:
    for query in "SELECT 'é'", "SELECT 'é'".encode():
        text = bench.adapter.sql_text(query)
        demand(text == "SELECT 'é'", f"sql_text({query!r}) returned {text!r}.")


@rule(
    "options",
    "check_options() rejects what the pool would reject, and accepts options_for().",
    both_ways=False,
)
def options(bench: Bench) -> None:
    adapter = bench.adapter
    good = adapter.options_for(size=3, timeout=1.0)
    adapter.check_options(good)
    demand(
        good == adapter.options_for(size=3, timeout=1.0), "check_options() changed its argument."
    )
    odd = {**good, "no_such_option": 1}
    try:
        adapter.check_options(odd)
    except ConfigurationError as error:
        named = [str(error)]
    else:
        named = list(adapter.option_warnings(odd))
    demand(
        any("no_such_option" in text for text in named),
        "Neither check_options() nor option_warnings() named an option that does not exist.",
    )


@rule(
    "no pool",
    "With options False the pool keeps no connection, unless check_options() rejects False.",
)
def no_pool(bench: Bench) -> None:
    adapter = bench.adapter
    try:
        adapter.check_options(False)
    except ConfigurationError:
        return
    demand(
        adapter.is_pooling(False) is False, f"is_pooling(False) is {adapter.is_pooling(False)!r}."
    )
    pool = bench.made(False)
    pool.open()
    demand(pool.pooled is False, f"With options False, pooled is {pool.pooled!r}.")
    first, second = bench.checkout(pool), bench.checkout(pool)
    demand(pool.stats().in_use == 2, f"in_use is {pool.stats().in_use}, with 2 checked out.")
    bench.checkin(pool, first)
    bench.discard(pool, second)
    eventually(lambda: not bench.alive(), "With options False, a connection stays open")
    demand(pool.stats().in_use == 0, f"in_use is {pool.stats().in_use} with none checked out.")


# Opening.


@rule(
    "open",
    "open() may be called repeatedly; a server that refuses raises the driver's OperationalError.",
)
def opening(bench: Bench) -> None:
    pool = bench.pool()
    pool.open()
    bench.checkin(pool, bench.checkout(pool))
    pool.open()
    demand(
        pool.stats().size == 1,
        f"After three calls of open(), the pool has {pool.stats().size} connections.",
    )
    name = "database" if "database" in bench.parameters else "dbname"
    refused = bench.unopened(1, 1.0, **{name: "relet_no_such_database"})
    for _ in range(2):

        def use() -> None:
            refused.open()
            bench.take(refused)

        bench.must_fail(use, refused, "open() or checkout() of a server that refuses")
    demand(
        refused.stats().in_use == 0,
        f"After the server refused, in_use is {refused.stats().in_use}.",
    )


@rule(
    "open at once",
    "Threads that open the pool at the same time open one.",
    both_ways=False,
)
def open_at_once(bench: Bench) -> None:
    for _ in range(3):
        pool, first, threads = bench.unopened(), len(bench.pids), 4
        start = threading.Barrier(threads)
        held: list[Any] = []
        errors: list[Exception] = []

        def use(
            pool: PoolAdapter[Any] = pool,
            start: threading.Barrier = start,
            held: list[Any] = held,
            errors: list[Exception] = errors,
        ) -> None:
            start.wait(patience.seconds)
            pool.open()
            try:
                held.append(bench.take(pool, 0.05))
            except Exception as error:  # noqa: BLE001 - it is looked at below
                errors.append(error)

        with frequent_switches():
            for call in [Call(use) for _ in range(threads)]:
                call.result()
        for failed in errors:
            if not bench.is_operational(failed):
                raise failed
        demand(
            len(held) <= 1,
            f"{threads} threads opened a pool of 1, and {len(held)} connections are checked out.",
        )
        own = set(bench.pids[first:])
        demand(len(own & bench.alive()) <= 1, "A pool of 1 has several connections.")
        for connection in held:
            bench.checkin(pool, connection)
        bench.checkin(pool, bench.checkout(pool))
        demand(pool.stats().in_use == 0, f"in_use is {pool.stats().in_use} with all checked in.")


@rule(
    "refused",
    "A connection that the server refuses costs the pool no place.",
    both_ways=False,
)
def refused(bench: Bench) -> None:
    size = 2
    name = "database" if "database" in bench.parameters else "dbname"
    refusing = {name: "relet_no_such_database"}
    pool = bench.unopened(size)

    def use() -> None:
        pool.open()
        bench.give(pool, bench.take(pool, 0.1))

    def checkout() -> Any:
        for _ in range(10):
            try:
                pool.open()
                return bench.checkout(pool)
            except Exception as error:
                # An attempt that began before may be refused only now.
                if refusing[name] not in str(error):
                    raise
        raise Broken("The server refuses no longer, but checkout() still says that it does.")

    for _ in range(2):  # before the pool is open, and then
        bench.asked_for = refusing
        for _ in range(size + 1):
            bench.must_fail(use, pool, "open() or checkout() of a server that refuses")
        bench.asked_for = {}
        held = [checkout() for _ in range(size)]
        bench.asked_for = refusing
        for connection in held:
            bench.discard(pool, connection)


@rule(
    "parameters",
    "Each connection is opened with what config.parameters() returns at that moment.",
    both_ways=False,
)
def parameters(bench: Bench) -> None:
    name = "database" if "database" in bench.parameters else "dbname"
    bench.asked_for = {name: bench.parameters.get(name, "postgres")}
    pool = bench.pool(1, None, **{name: "relet_no_such_database"})
    connection = bench.checkout(pool)
    for _ in range(2):
        before = bench.asked
        bench.discard(pool, connection)
        connection = bench.checkout(pool)
        demand(
            bench.asked > before, "A new connection was opened without calling config.parameters()."
        )
    bench.checkin(pool, connection)


@rule(
    "configure", "Each new connection is configured once, in autocommit, before it is handed out."
)
def configured(bench: Bench) -> None:
    pool = bench.pool(size=2)
    first, second = bench.checkout(pool), bench.checkout(pool)
    demand(not bench.not_in_autocommit, "configure() was called outside of autocommit.")
    for connection in first, second:
        times = sum(raw is connection.raw for raw in bench.configured)
        demand(times == 1, f"A new connection was configured {times} times.")
        seen = pool.execute_internal(
            connection.raw, "SELECT current_setting('relet.configured', true)"
        )
        demand(seen[0][0] == pool.config.alias, "A setting that configure() has SET is gone.")
    bench.checkin(pool, first)
    again = bench.checkout(pool)
    times = sum(raw is again.raw for raw in bench.configured)
    demand(times == 1, f"Checked out again, a connection was configured {times} times.")


@rule(
    "failed configure",
    "A connection that cannot be configured is closed, and another can be opened.",
    both_ways=False,
)
def failed_configure(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    bench.refuse = True
    bench.discard(pool, connection)
    with suppress(ConfigureFailed):  # the pool may also try again by itself
        bench.checkin(pool, bench.checkout(pool))
    demand(not bench.refuse, "A new connection was not configured.")
    connection = bench.checkout(pool)
    demand(pool.stats().in_use == 1, f"in_use is {pool.stats().in_use}, with one checked out.")
    pid = bench.pid(pool, connection.raw)
    eventually(
        lambda: bench.alive() == {pid}, "A connection that could not be configured stays open"
    )
    bench.checkin(pool, connection)


# Checkout and checkin.


@rule("autocommit", "A connection is checked out in autocommit, with no transaction open.")
def autocommit(bench: Bench) -> None:
    pool = bench.pool()
    for _ in range(3):
        connection = bench.checkout(pool)
        raw = connection.raw
        demand(raw.autocommit is True, f"autocommit is {raw.autocommit!r} after checkout().")
        status = pool.transaction_status(raw)
        demand(status == IDLE, f"transaction_status() is {status!r} after checkout().")
        demand(pool.ping(raw), "ping() is false of a connection just checked out.")
        demand(raw.autocommit is True, f"autocommit is {raw.autocommit!r} after ping().")
        status = pool.transaction_status(raw)
        demand(status == IDLE, f"transaction_status() is {status!r} after ping().")
        bench.checkin(pool, connection)


@rule("exclusive", "A checked-out connection is not handed out again.")
def exclusive(bench: Bench) -> None:
    pool = bench.pool(size=3)
    held = [bench.checkout(pool) for _ in range(3)]
    pids = {bench.pid(pool, connection.raw) for connection in held}
    demand(len(pids) == 3, f"Of three connections checked out, {len(pids)} differ.")


@rule("remembered", "A driver connection keeps its PooledConnection until it is closed.")
def remembered(bench: Bench) -> None:
    pool = bench.pool()
    known: dict[int, Any] = {}
    for _ in range(3):
        connection = bench.checkout(pool)
        pid = bench.pid(pool, connection.raw)
        demand(
            known.setdefault(pid, connection) is connection,
            "The same driver connection came with another PooledConnection.",
        )
        connection.initialized = True
        bench.checkin(pool, connection)
    last = bench.checkout(pool)
    bench.discard(pool, last)
    fresh = bench.checkout(pool)
    demand(not fresh.initialized, "A new connection came with the PooledConnection of an old one.")
    bench.checkin(pool, fresh)


@rule("emptied", "After checkin() and discard(), `raw` is None.")
def emptied(bench: Bench) -> None:
    pool = bench.pool()
    for end, called in (bench.checkin, "checkin()"), (bench.discard, "discard()"):
        connection = bench.checkout(pool)
        end(pool, connection)
        demand(connection.raw is None, f"raw is still a connection after {called}.")


#: What relet notes on a connection, and what it is of a new one.
_NOTES = {"initialized": False, "baseline": None, "tracked_settings": None}


@rule(
    "noted",
    "What relet notes on a connection (`initialized`, `baseline`, `tracked_settings`) is left "
    "alone.",
)
def noted(bench: Bench) -> None:
    pool = bench.pool()
    for _ in range(2):
        connection = bench.checkout(pool)
        for name, value in _NOTES.items():
            seen = getattr(connection, name)
            demand(seen is value, f"{name} of a new connection is {seen!r}.")
        mine: dict[str, Any] = {name: object() for name in _NOTES} | {"initialized": True}
        for name, value in mine.items():
            setattr(connection, name, value)
        bench.checkin(pool, connection)
        again = bench.checkout(pool)
        for name, value in mine.items():
            changed = getattr(again, name) is not value
            demand(not changed, f"{name} is another one after checkin() and checkout().")
        bench.discard(pool, again)


@rule(
    "pid and facts",
    "backend_pid() returns the session's process id or None, also of a closed connection; facts() "
    "returns facts or None.",
    both_ways=False,
)
def pid_and_facts(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw, pid = connection.raw, bench.pid(pool, connection.raw)

    told = _told(lambda: pool.facts(raw), "facts()")
    demand(told is None or isinstance(told, Facts), f"facts() returned {told!r}.")
    seen = _told(lambda: pool.backend_pid(raw), "backend_pid()")
    demand(seen in (None, pid), f"backend_pid() returned {seen!r} for the session {pid}.")
    raw.close()
    _told(lambda: pool.backend_pid(raw), "backend_pid() of a closed connection")
    bench.discard(pool, connection)


def _told(ask: Callable[[], Any], what: str) -> Any:
    try:
        return ask()
    except Exception as error:
        raise Broken(f"{what} raised {error!r}.") from error


@rule("proven", "checkin() sets `last_used_at` to the time of the checkin.")
def proven(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    now = time.monotonic()
    demand(
        connection.last_used_at <= now,
        f"last_used_at is {connection.last_used_at!r}, in the future.",
    )
    before = time.monotonic()
    bench.checkin(pool, connection)
    seen = connection.last_used_at
    demand(
        before <= seen <= time.monotonic(),
        "checkin() did not set last_used_at to the time.monotonic() of that moment.",
    )


@rule("counts", "stats() counts connections in use and idle, and waiting threads.")
def counts(bench: Bench) -> None:
    pool = bench.pool(size=2)
    stats = pool.stats()
    demand(stats.max_size == 2, f"max_size is {stats.max_size} with options_for(size=2).")
    asked = stats.checkouts
    demand(stats.in_use == 0, f"in_use is {stats.in_use} before the first checkout.")
    first = bench.checkout(pool)
    demand(pool.stats().in_use == 1, f"in_use is {pool.stats().in_use}, with 1 checked out.")
    second = bench.checkout(pool)
    stats = pool.stats()
    demand(stats.in_use == 2, f"in_use is {stats.in_use}, with 2 checked out.")
    demand(stats.size == 2, f"size is {stats.size}, with 2 checked out.")
    demand(stats.idle == 0, f"idle is {stats.idle}, with all checked out.")
    bench.checkin(pool, first)
    demand(pool.stats().in_use == 1, f"in_use is {pool.stats().in_use} after a checkin.")
    bench.discard(pool, second)
    demand(pool.stats().in_use == 0, f"in_use is {pool.stats().in_use} after a discard.")
    grown = pool.stats().checkouts - asked
    demand(grown == 2, f"checkouts grew by {grown} with 2 checkouts.")


@rule("limit", "The pool never opens more connections than its maximum.")
def limit(bench: Bench) -> None:
    pool = bench.pool(size=2)
    held = [bench.checkout(pool), bench.checkout(pool)]
    bench.must_fail(
        lambda: bench.take(pool, 0.05), pool, "checkout() of a third connection from a pool of two"
    )
    demand(len(bench.alive()) <= 2, f"{len(bench.alive())} connections are open.")
    for connection in held:
        bench.checkin(pool, connection)
    demand(len(bench.alive()) <= 2, f"{len(bench.alive())} connections are open.")


# Waiting.


@rule("timeout", "checkout(timeout) waits that long, then raises the driver's OperationalError.")
def timeout(bench: Bench) -> None:
    pool = bench.pool(timeout=0.2)
    held = bench.checkout(pool, timeout=patience.seconds)  # to connect may take longer than 0.2 s
    for seconds in None, 0.1:
        began = time.monotonic()
        bench.must_fail(
            lambda seconds=seconds: bench.take(pool, seconds),  # type: ignore[misc]
            pool,
            f"checkout(timeout={seconds}) with none left",
        )
        least = 0.2 if seconds is None else seconds
        waited = time.monotonic() - began
        demand(waited >= 0.9 * least, f"It gave up after {waited:.3f} s instead of {least} s.")
    demand(pool.stats().waiting == 0, f"waiting is {pool.stats().waiting} with nobody waiting.")
    bench.checkin(pool, held)
    own = patience.seconds / 2
    pool = bench.pool(timeout=own)
    held = bench.checkout(pool)
    began = time.monotonic()
    bench.must_fail(lambda: bench.take(pool, 0.05), pool, "checkout(timeout=0.05) with none left")
    waited = time.monotonic() - began
    demand(waited < own, f"It gave up after the pool's own {own:g} s instead of 0.05 s.")
    bench.checkin(pool, held)


@rule("order", "Waiting threads are served in order.")
def order(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    before = pool.stats().waits
    waiters = [bench.waiter(pool) for _ in range(4)]
    waits = pool.stats().waits - before
    demand(waits == 4, f"stats().waits grew by {waits} when 4 threads had to wait.")
    while waiters:
        bench.checkin(pool, connection)
        first, *waiters = waiters
        eventually(lambda first=first: first.ended, "The first waiter got no connection")  # type: ignore[misc]
        connection = first.result()
        ahead = sum(waiter.ended for waiter in waiters)
        demand(ahead == 0, "One connection came free, but two waiters were served.")
    bench.checkin(pool, connection)


@rule("lost waiter", "A waiter that times out takes no connection.")
def lost_waiter(bench: Bench) -> None:
    pool = bench.pool()
    held = bench.checkout(pool)
    bench.must_fail(lambda: bench.take(pool, 0.05), pool, "checkout(timeout=0.05) with none left")
    waiter = bench.waiter(pool)
    bench.checkin(pool, held)
    connection = waiter.result()
    bench.checkin(pool, connection)
    demand(pool.stats().in_use == 0, f"in_use is {pool.stats().in_use} with all checked in.")
    bench.checkin(pool, bench.checkout(pool, timeout=1.0))


class _Interrupt(BaseException):
    """Like KeyboardInterrupt, but raised by the kit alone."""


def _no_signals(adapter: object) -> str | None:
    if not hasattr(signal, "pthread_kill"):
        return "the system has no signals for threads"
    if threading.current_thread() is not threading.main_thread():
        return "this is not the main thread"
    return None


@rule(
    "interrupted waiter",
    "A waiter that is interrupted takes no connection.",
    left_out=_no_signals,
    in_main_thread=True,
)
def interrupted_waiter(bench: Bench) -> None:
    pool = bench.pool()
    held = bench.checkout(pool)
    main = threading.main_thread()
    waits = True

    def strike(*_: object) -> None:
        if waits:
            raise _Interrupt

    def when_it_waits() -> bool:
        counted = comes_true(lambda: pool.stats().waiting, patience.seconds / 2)
        if waits:  # whether counted or not: otherwise it may wait forever
            signal.pthread_kill(main.ident or 0, signal.SIGALRM)
        return counted

    previous = signal.signal(signal.SIGALRM, strike)
    striking = Call(when_it_waits)
    interrupted = False
    try:
        bench.take(pool, patience.seconds)
    except _Interrupt:
        interrupted = True
    finally:
        waits = False
        # A signal that came later, without a handler, would end the process.
        striking.wait(2 * patience.LONG)
        signal.signal(signal.SIGALRM, previous)
    demand(striking.result(), "A thread waits, but stats().waiting stays 0.")
    demand(interrupted, "checkout() swallowed an interrupt.")
    demand(pool.stats().waiting == 0, f"waiting is {pool.stats().waiting} after the interrupt.")
    bench.checkin(pool, held)
    demand(pool.stats().in_use == 0, f"in_use is {pool.stats().in_use} with all checked in.")
    bench.checkin(pool, bench.checkout(pool, timeout=1.0))


# Discarding.


@rule("discard", "A discarded connection is closed and replaced.")
def discard(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw, pid = connection.raw, bench.pid(pool, connection.raw)
    waiter = bench.waiter(pool)
    bench.discard(pool, connection)
    status = pool.transaction_status(raw)
    demand(
        status == TransactionStatus.UNKNOWN, f"After discard(), transaction_status() is {status!r}."
    )
    fresh = waiter.result()
    demand(bench.pid(pool, fresh.raw) != pid, "A discarded connection was handed out.")
    eventually(lambda: pid not in bench.alive(), "A discarded connection stays open on the server")
    bench.checkin(pool, fresh)
    demand(pool.stats().in_use == 0, f"in_use is {pool.stats().in_use} with none checked out.")


@rule(
    "broken",
    "ping() and transaction_status() detect a broken connection, and discarding it raises nothing.",
)
def broken(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw, pid = connection.raw, bench.pid(pool, connection.raw)
    bench.kill(pid)
    demand(
        pool.ping(raw) is False, "ping() of a connection that the server has closed is not False."
    )
    status = pool.transaction_status(raw)
    demand(
        status == TransactionStatus.UNKNOWN,
        f"After ping() of a connection that the server closed, transaction_status() is {status!r}.",
    )
    bench.discard(pool, connection)
    fresh = bench.checkout(pool)
    demand(pool.ping(fresh.raw), "A broken connection was handed out again.")
    bench.discard(pool, fresh)
    demand(pool.stats().in_use == 0, f"in_use is {pool.stats().in_use} with none checked out.")


@rule(
    "broken while idle",
    "Connections that broke while idle can be discarded one by one.",
    both_ways=False,
)
def broken_while_idle(bench: Bench) -> None:
    pool = bench.pool(size=3)
    held = [bench.checkout(pool) for _ in range(3)]
    for connection in held:
        bench.checkin(pool, connection)
    for pid in bench.alive():
        bench.kill(pid)
    for _ in range(4):
        connection = bench.checkout(pool)
        if pool.ping(connection.raw):
            break
        bench.discard(pool, connection)
    else:
        raise Broken("The server closed 3 connections, but the fourth checkout is broken, too.")
    bench.checkin(pool, connection)


# The driver.


@rule(
    "status",
    "transaction_status() returns the driver's status, by libpq's numbers.",
    both_ways=False,
)
def status(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw = connection.raw

    def is_(expected: TransactionStatus, when: str) -> None:
        seen = pool.transaction_status(raw)
        demand(seen == expected, f"{when}, transaction_status() is {seen!r}, not {expected!r}.")

    is_(IDLE, "Outside a transaction")
    pool.execute_internal(raw, "BEGIN")
    is_(IN_TRANSACTION, "After BEGIN")
    try:
        pool.execute_internal(raw, "SELECT 1/0")
    except Exception:  # noqa: BLE001 - the driver's
        is_(TransactionStatus.IN_ERROR, "After an error in a transaction")
    pool.execute_internal(raw, "ROLLBACK")
    is_(IDLE, "After ROLLBACK")
    bench.checkin(pool, connection)


@rule(
    "run",
    "execute_internal() runs one or several statements, and returns the rows of one.",
    both_ways=False,
)
def run(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw = connection.raw
    rows = pool.execute_internal(raw, "SELECT 1, 'a' UNION ALL SELECT 2, 'b' ORDER BY 1")
    demand(
        [tuple(row) for row in rows] == [(1, "a"), (2, "b")],
        f"execute_internal() returned {rows!r}.",
    )
    pool.execute_internal(
        raw, "SET lock_timeout = '7s'; SELECT set_config('lock_timeout', '8s', false)"
    )
    seen = pool.execute_internal(raw, "SELECT current_setting('lock_timeout')")[0][0]
    demand(seen == "8s", "execute_internal() did not run the second of two statements.")
    demand(
        pool.execute_internal(raw, "RESET lock_timeout") == [],
        "execute_internal() returned rows for a statement without rows.",
    )
    percent = pool.execute_internal(raw, "SELECT '100%'")[0][0]
    demand(percent == "100%", f"execute_internal() made {percent!r} of '100%'.")
    bench.checkin(pool, connection)


@rule(
    "begin",
    "begin_transaction() begins one, with the connection's isolation level, and runs SQL in it.",
    both_ways=False,
)
def begin(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw = connection.raw
    before = pool.driver_state(raw)
    raw.autocommit = False
    level = None
    if hasattr(raw, "isolation_level"):
        # 3 is a level in both psycopg and psycopg2, though not the same one.
        level, raw.isolation_level = raw.isolation_level, 3
    pool.begin_transaction(raw, "SET LOCAL lock_timeout = '7s'; SAVEPOINT relet")
    status = pool.transaction_status(raw)
    demand(status == IN_TRANSACTION, f"begin_transaction() has left the status {status!r}.")
    sql = "SELECT current_setting('lock_timeout'), current_setting('transaction_isolation')"
    timeout, isolation = pool.execute_internal(raw, sql)[0]
    demand(timeout == "7s", "begin_transaction() did not run its SQL in the transaction.")
    if hasattr(raw, "isolation_level"):
        demand(
            isolation != "read committed", "begin_transaction() ignored the isolation level set."
        )
    pool.execute_internal(raw, "ROLLBACK TO relet")
    raw.rollback()
    if hasattr(raw, "isolation_level"):
        raw.isolation_level = level
    raw.autocommit = True
    timeout, _ = pool.execute_internal(raw, sql)[0]
    demand(timeout != "7s", "The SQL of begin_transaction() has outlasted its transaction.")
    demand(pool.driver_state(raw) == before, "begin_transaction() has changed driver_state().")
    bench.checkin(pool, connection)


@rule(
    "settings",
    "driver_state() changes when the state that the driver keeps for a session changes.",
    both_ways=False,
)
def driver_settings(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw = connection.raw
    before = pool.driver_state(raw)
    demand(before == pool.driver_state(raw), "driver_state() changed although nothing was set.")
    if hasattr(raw, "isolation_level"):
        # 3 is a level in both psycopg and psycopg2, though not the same one.
        level, raw.isolation_level = raw.isolation_level, 3
        demand(
            pool.driver_state(raw) != before,
            "isolation_level was set, but driver_state() is the same.",
        )
        raw.isolation_level = level
        demand(
            pool.driver_state(raw) == before,
            "isolation_level was set back, but driver_state() differs.",
        )
    bench.checkin(pool, connection)


@rule(
    "notices",
    "The server's messages to one user of a connection do not reach the next.",
    both_ways=False,
)
def notices(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    pool.execute_internal(connection.raw, "DO $$BEGIN RAISE NOTICE 'relet'; END$$")
    bench.checkin(pool, connection)
    again = bench.checkout(pool)
    seen = list(getattr(again.raw, "notices", None) or ())
    demand(not seen, f"A connection was handed out with {seen[:1]} in its notices.")
    pool.drop_notices(again.raw)  # of none, too
    bench.checkin(pool, again)


@rule(
    "booleans",
    "boolean_columns() reads the only row of a result without fetching it, or returns None.",
    both_ways=False,
)
def booleans(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    cursor = pool.new_cursor(connection.raw)
    cursor.execute("SELECT true, false")
    seen = pool.boolean_columns(cursor)
    demand(
        seen is None or list(seen) == [True, False],
        f"boolean_columns() of SELECT true, false is {seen!r}.",
    )
    rows = [tuple(row) for row in cursor.fetchall()]
    demand(rows == [(True, False)], f"After boolean_columns(), fetchall() returned {rows!r}.")
    cursor.close()
    bench.checkin(pool, connection)


@rule(
    "unread data",
    "has_unread_data() is true if the server closed the connection.",
    both_ways=False,
)
def unread_data(bench: Bench) -> None:
    pool = bench.pool()
    connection = bench.checkout(pool)
    raw = connection.raw
    own = type(pool).has_unread_data is not PoolAdapter.has_unread_data
    if own or hasattr(raw, "fileno"):  # the default needs it
        bench.kill(bench.pid(pool, raw))
        eventually(
            lambda: pool.has_unread_data(raw),
            "The server closed a connection, but has_unread_data() is false",
        )
    bench.discard(pool, connection)


# Closing.


@rule("close", "close() closes idle connections, and the others when they are checked in.")
def close(bench: Bench) -> None:
    pool = bench.pool(size=2)
    first, second = bench.checkout(pool), bench.checkout(pool)
    demand(pool.closed is False, "closed is set before close().")
    bench.checkin(pool, first)
    Call(pool.close).result()
    demand(pool.closed is True, "close() did not set closed.")
    kept = bench.pid(pool, second.raw)
    eventually(lambda: bench.alive() == {kept}, "An idle connection stays open after close()")
    try:
        Call(pool.close).result()
    except Exception as error:
        raise Broken(f"A second close() raised {error!r}.") from error
    demand(bench.alive() == {kept}, "A second close() closed a checked-out connection.")
    bench.must_fail(lambda: bench.take(pool, 1.0), pool, "checkout() of a closed pool")
    bench.checkin(pool, second)
    eventually(
        lambda: not bench.alive(), "A connection that was checked in after close() stays open"
    )
    demand(
        pool.stats().in_use == 0,
        f"in_use is {pool.stats().in_use} after all connections were closed.",
    )


@rule("close while waiting", "close() makes waiting threads fail.")
def close_while_waiting(bench: Bench) -> None:
    pool = bench.pool()
    held = bench.checkout(pool)
    waiter = bench.waiter(pool)
    Call(pool.close).result()
    eventually(lambda: waiter.ended, "A waiting thread goes on waiting after close()")
    demand(
        waiter.error is not None and bench.is_operational(waiter.error),
        f"close() made a waiting thread raise {waiter.error!r}, not an OperationalError.",
    )
    bench.discard(pool, held)


# Threads.


@rule(
    "thread safety",
    "Threads that check out and in at the same time never share or lose a connection.",
)
def thread_safety(bench: Bench) -> None:
    # First most threads have to wait; then each thread can have a connection.
    for size, workers in (3, 8), (4, 4):
        _take_and_give(bench, size, workers)


def _take_and_give(bench: Bench, size: int, workers: int) -> None:
    pool, first = bench.pool(size, timeout=patience.seconds), len(bench.pids)
    start = threading.Barrier(workers)
    lock = threading.Lock()
    using: dict[Any, int] = {}

    def work(number: int) -> None:
        start.wait(patience.seconds)
        for turn in range(40):
            connection = bench.take(pool)
            with lock:
                shared = using.setdefault(connection, number) != number
            demand(not shared, "Two threads were given the same connection at once.")
            if turn % 8 == number:
                pool.execute_internal(connection.raw, "SELECT 1")
            with lock:
                del using[connection]
            if turn % 16 == number:
                bench.throw_away(pool, connection)
            else:
                bench.give(pool, connection)

    with frequent_switches():
        calls = [Call(lambda number=number: work(number)) for number in range(workers)]  # type: ignore[misc]
        for call in calls:
            call.result()
    stats = pool.stats()
    demand(stats.in_use == 0, f"in_use is {stats.in_use} with all checked in.")
    demand(stats.waiting == 0, f"waiting is {stats.waiting} with nobody waiting.")
    held = [bench.checkout(pool) for _ in range(size)]
    own = set(bench.pids[first:])
    eventually(
        lambda: len(own & bench.alive()) <= size,
        f"More than {size} connections are open, of {size} at most",
    )
    for connection in held:
        bench.checkin(pool, connection)
