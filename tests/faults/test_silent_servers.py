"""I18: no more sessions than the pool's size and one, and nobody waits longer than its timeout.

Many threads want connections at once, while the server takes them and says nothing, refuses them,
or is too busy to take any; then it comes back. The network before it counts connections.
"""

from __future__ import annotations

import gc
import threading
from time import monotonic

import pytest
from django.db import InterfaceError, OperationalError

from ..support.pools import all_pids, at_rest, backend_pid, stats

pytestmark = pytest.mark.slow


SIZE, TIMEOUT, THREADS = 3, 0.5, 16
#: So often each is to wait in vain: until attempts to connect have been given up, too.
FAILURES = 6
#: Seconds that a thread may be late where others have the processors; for good is more.
LATE = 2.0
LOST = (OperationalError, InterfaceError)
#: What begins each fault, what ends it, and the options with which a pool gets over it.
FAULTS = {
    # Whoever has begun to connect meanwhile is never answered.
    "swallow": ("hear", {"connect_timeout": 2}),
    "refuse": ("accept", {}),
    "stall": ("resume", {}),
}


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("ERROR", "psycopg.pool")  # it warns of each attempt to connect


@pytest.fixture(autouse=True)
def uncollected():
    """What could not be opened is closed at once, and not when the collector comes to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Client(threading.Thread):
    """Runs statements as requests do, one after the other, each in a lease of its own."""

    def __init__(self, wrapper, over):
        super().__init__(daemon=True)
        self.wrapper, self.over = wrapper.copy(), over
        self.wrapper.inc_thread_sharing()
        self.answered = self.failed = 0
        #: Seconds that the longest of them took.
        self.longest = 0.0
        #: Whether the last one was answered.
        self.well = False
        #: What ended it.
        self.error = None
        self.start()

    def run(self):
        try:
            while not self.over.is_set():
                self._ask()
            self.wrapper.close()
        except BaseException as error:
            self.error = error

    def _ask(self):
        begun = monotonic()
        try:
            assert backend_pid(self.wrapper)
            self.answered, self.well = self.answered + 1, True
        except LOST:
            self.failed, self.well = self.failed + 1, False
            self.wrapper.close()
        self.longest = max(self.longest, monotonic() - begun)


class Crowd:
    """Clients that all go on at the same time, until the block ends."""

    def __init__(self, wrapper):
        self._over = threading.Event()
        self.clients = [Client(wrapper, self._over) for _ in range(THREADS)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over.set()
        for client in self.clients:
            client.join(20)
        assert not any(client.is_alive() for client in self.clients), "it waits on"
        assert [client.error for client in self.clients] == [None] * THREADS

    def until(self, wanted, seconds):
        """Wait for all clients to be as *wanted*, for so many *seconds* at most."""
        deadline = monotonic() + seconds
        while not all(map(wanted, self.clients)):
            assert monotonic() < deadline, [vars(client) for client in self.clients]
            threading.Event().wait(0.01)


@pytest.mark.parametrize("used", [True, False], ids=["a pool in use", "a new pool"])
@pytest.mark.parametrize("fault", FAULTS)
def test_many_wait_while_nobody_answers(network, use, fault, used):
    mend, options = FAULTS[fault]
    wrapper = use(network.port, size=SIZE, timeout=TIMEOUT, **options)
    if used:
        assert len(set(all_pids(wrapper))) == SIZE
    getattr(network, fault)()
    network.cut()
    with Crowd(wrapper) as crowd:
        crowd.until(lambda client: client.failed >= FAILURES, FAILURES * (TIMEOUT + LATE))
        getattr(network, mend)()
        crowd.until(lambda client: client.well, 10)
    assert max(client.longest for client in crowd.clients) <= TIMEOUT + LATE
    assert network.most_links <= SIZE + 1
    assert (stats(wrapper).in_use, stats(wrapper).waiting) == (0, 0)
    assert stats(wrapper).size <= SIZE
    assert at_rest(wrapper)
