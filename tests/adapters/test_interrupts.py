"""I5, I11: interrupts strike anywhere, and no connection is lost, nor a place for one."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from relet.adapters.gate import Gate
from relet.core import PoolConfig, registry

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="the system has no timer that interrupts"
)

TIMES = 400


class Interrupt(BaseException):
    """As KeyboardInterrupt is, and as what Celery raises when a task's time is up."""


def interrupted(run: Callable[[], object], longest: float) -> int:
    """Call *run* many times, and interrupt it after up to *longest* seconds; count how often."""
    chance = random.Random(7)
    struck = 0

    def strike(*_: object) -> None:
        nonlocal struck
        struck += 1
        raise Interrupt

    def until(number: int) -> None:
        # Where Python ignores what is raised, as in a finalizer, it was in vain.
        while struck < number:
            run()

    previous = signal.signal(signal.SIGALRM, strike)
    try:
        for number in range(TIMES):
            with suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, longest))
                until(number + 1)
    finally:
        signal.signal(signal.SIGALRM, previous)
    return struck


def ready() -> list[str]:
    return [name for name, spec in registry.specs().items() if not registry.missing(spec)]


@pytest.fixture(params=ready())
def pool(request: pytest.FixtureRequest, parameters: dict[str, str]) -> Any:
    adapter = registry.load(request.param)
    pool = adapter(PoolConfig("interrupted", parameters, adapter.options_for(size=1, timeout=20)))
    pool.open()
    yield pool
    pool.close()


# Before 3.11, one may strike between any two instructions, of which some have to go together.
@pytest.mark.skipif(sys.version_info < (3, 11), reason="interrupts strike anywhere at all")
# One that is being opened is closed by its finalizer, where Python ignores an interrupt.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_checkout_and_checkin(pool: Any) -> None:
    def run() -> None:
        # As a lease does: what is there is discarded, unless the pool has it again.
        connection = None
        try:
            connection = pool.checkout()
            pool.checkin(connection)
        except BaseException:
            if connection is not None and connection.raw is not None:
                pool.discard(connection)
            raise

    assert interrupted(run, 0.002) == TIMES
    stats = pool.stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    pool.checkin(pool.checkout(timeout=5))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="interrupts strike anywhere at all")
def test_gate() -> None:
    gate = Gate(1)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            if gate.enter(1):
                gate.leave()

    thread = threading.Thread(target=busy)
    thread.start()

    def run() -> None:
        # What strikes in leave() is for its caller to see to: so nothing does.
        entered = left = False
        try:
            entered = gate.enter(1)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            left = True
            gate.leave()
        finally:
            if entered and not left:
                gate.leave()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    try:
        assert interrupted(run, 0.0005) == TIMES
    finally:
        stop.set()
        thread.join(20)
    assert gate.waiting == 0
    assert gate.enter(5)
