"""I15: what a signal handler raises goes on as it is, and what was under way is closed."""

from __future__ import annotations

import gc
import io
import signal
import threading
from typing import Any

import pytest

from relet.adapters.pg8000 import dbapi

from ....support.sessions import kill, pid_of, until_true
from ....support.silent_server import SilentServer
from ....support.strikes import each_instruction
from ....support.waiting import until

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="the system has no signals for threads"
)


class SoftTimeLimit(Exception):
    """As Celery's is, which is an `Exception`."""


#: What handlers raise; some of it is what sockets say, too.
KINDS = [SoftTimeLimit, TimeoutError, ConnectionResetError, BrokenPipeError, BlockingIOError]


@pytest.fixture(params=KINDS)
def handler(request):
    """Have a signal raise an error; yield that, and what sends the signal."""
    error = request.param("raised by a handler")

    def strike(*_: object) -> None:
        raise error

    previous = signal.signal(signal.SIGALRM, strike)
    main = threading.main_thread().ident
    yield error, lambda: signal.pthread_kill(main, signal.SIGALRM)
    signal.signal(signal.SIGALRM, previous)


def when(fact, act):
    """Call *act* in another thread, once *fact*."""

    def run():
        until(fact)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("hosts", [1, 2])
def test_while_it_connects(handler, hosts):
    error, strike = handler
    with SilentServer() as first, SilentServer() as second:
        host = ",".join([first.HOST] * hosts)
        port = ",".join(str(server.port) for server in (first, second)[:hosts])
        striker = when(lambda: first.most, strike)
        with pytest.raises(type(error)) as caught:
            dbapi.connect(host=host, port=port, user="somebody")
        striker.join()
        assert caught.value is error
        # And nothing is open, although the error is still there.
        until(lambda: not first.clients)
        assert second.most == 0


def test_while_it_connects_as_django_does(handler, make):
    """Where connections are opened in the background: the same."""
    error, strike = handler
    with SilentServer() as server:
        wrapper = make("silent", HOST=server.HOST, PORT=str(server.port))
        striker = when(lambda: server.most, strike)
        with pytest.raises(type(error)) as caught, wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
        striker.join()
        assert caught.value is error
        assert wrapper._runner.find_pool().pool.stats().in_use == 0


def test_in_a_statement(handler, raw, admin):
    error, strike = handler
    number = pid_of(raw)
    striker = when(lambda: active(admin, number), strike)
    with pytest.raises(type(error)) as caught:
        raw.run("SELECT pg_sleep(60)")
    striker.join()
    assert caught.value is error
    assert raw.closed
    kill(admin, number)


def test_a_signal_that_does_not_interrupt_the_wait(handler, raw, admin):
    """It has come to another thread; one that comes just before the system call is like it."""
    error, _ = handler
    number = pid_of(raw)
    when(
        lambda: active(admin, number),
        lambda: signal.pthread_kill(threading.get_ident(), signal.SIGALRM),
    )
    with pytest.raises(type(error)) as caught:
        raw.run("SELECT pg_sleep(10)")
    assert caught.value is error
    assert raw.closed
    assert active(admin, number)
    kill(admin, number)


class Endless(io.RawIOBase):
    """Counts what is read of it."""

    count = 0

    def read(self, size: int = -1) -> bytes:
        self.count += 1
        return b"1\n" * (size // 2)


def test_a_signal_that_does_not_interrupt_a_copy(handler, raw, admin):
    """The server reads nothing more, so there is nothing more to send."""
    error, _ = handler
    number, file = pid_of(raw), Endless()
    raw.run("""
        SET statement_timeout = '10s';
        CREATE TEMP TABLE copied (number int);
        CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
        CREATE TRIGGER wait BEFORE INSERT ON copied FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()
    """)

    def is_blocked():
        before = file.count
        return before and all(active(admin, number) for _ in range(50)) and before == file.count

    when(is_blocked, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGALRM))
    with pytest.raises(type(error)) as caught:
        raw.cursor().copy_expert("COPY copied FROM STDIN", file)
    assert caught.value is error
    assert raw.closed
    assert active(admin, number)
    kill(admin, number)


def active(admin, number):
    return admin.run(f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {number}")[0][0]


class File(io.RawIOBase):
    """Is interrupted as it is read, or written."""

    def __init__(self, strike: Any) -> None:
        self.strike = strike

    def read(self, size: int = -1) -> bytes:
        self.strike()
        return b"1\n"

    def write(self, data: Any) -> int:
        self.strike()
        return len(data)


@pytest.mark.parametrize("sql", ["COPY (SELECT 1) TO STDOUT", "COPY copied FROM STDIN"])
def test_in_the_file_of_a_copy(handler, raw, sql):
    error, strike = handler
    raw.run("CREATE TEMP TABLE copied (number int)")
    with pytest.raises(type(error)) as caught:
        raw.cursor().copy_expert(sql, File(strike))
    assert caught.value is error
    assert raw.closed


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what its finalizer closes
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [SoftTimeLimit, KeyboardInterrupt])
def test_at_any_instruction(parameters, admin, error):
    """Some of them, for there are thousands. Nothing stays open until it is collected."""
    struck = 0
    opened = []

    def connect():
        opened.append(dbapi.connect(**parameters, application_name="struck"))

    gc.collect()
    gc.disable()
    try:
        for _ in each_instruction(connect, error=error, step=61):
            struck += 1
            while opened:  # whoever has it was struck
                opened.pop().close()
        opened.pop().close()
        there = "SELECT FROM pg_stat_activity WHERE application_name = 'struck'"
        until_true(admin, f"NOT EXISTS ({there})")
    finally:
        gc.enable()
    assert struck > 10
