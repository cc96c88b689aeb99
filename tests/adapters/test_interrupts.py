"""I5, I11: interrupts strike anywhere, and no connection is lost, nor a place for one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from relet.adapters.gate import Gate
from relet.core import PoolConfig, registry

from ..interrupts import TIMES, Shield, interrupted, possible

pytestmark = possible


def ours() -> list[str]:
    return [
        name
        for name, spec in registry.specs().items()
        if spec.adapter.startswith("relet.") and not registry.missing(spec)
    ]


@pytest.fixture(params=ours())
def pool(request: pytest.FixtureRequest, parameters: dict[str, str]) -> Any:
    adapter = registry.load(request.param)
    pool = adapter(PoolConfig("interrupted", parameters, adapter.options_for(size=1, timeout=20)))
    pool.open()
    yield pool
    pool.close()


# One that is being opened is closed by its finalizer, where Python ignores an interrupt.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("garbage")
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
        if gate.enter(1):
            # What strikes in leave() is for its caller to see to.
            Shield.up = True
            gate.leave()
            Shield.up = False

    try:
        assert interrupted(run, 0.0005) == TIMES
    finally:
        stop.set()
        thread.join(20)
    assert gate.waiting == 0
    assert gate.enter(5)
