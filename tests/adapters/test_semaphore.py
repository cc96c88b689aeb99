"""FairSemaphore: so many at a time, in order, and nothing is lost."""

import threading

import pytest

import relet.adapters
import relet.core
from relet.adapters import fair_queue
from relet.adapters import semaphore as module
from relet.adapters.conformance.strikes import each_instruction
from relet.adapters.semaphore import FairSemaphore, SemaphoreClosed

from ..support.waiting import until


class Waiter:
    """A thread that wants to get in."""

    def __init__(self, semaphore, timeout=20):
        self.outcome = None
        before = semaphore.waiting
        self.thread = threading.Thread(target=self.run, args=(semaphore, timeout))
        self.thread.start()
        until(lambda: semaphore.waiting != before or not self.thread.is_alive())

    def run(self, semaphore, timeout):
        try:
            self.outcome = semaphore.acquire(timeout)
        except SemaphoreClosed as error:
            self.outcome = error

    def wait(self):
        self.thread.join(20)
        return self.outcome


def test_so_many_at_a_time():
    semaphore = FairSemaphore(2)
    assert semaphore.acquire(0)
    assert semaphore.acquire(0)
    assert not semaphore.acquire(0)
    assert not semaphore.acquire(0.01)
    assert (semaphore.in_use, semaphore.entries, semaphore.waits, semaphore.waiting) == (2, 4, 2, 0)
    assert semaphore.wait_ms >= 10
    semaphore.release()
    assert semaphore.acquire(0)


def test_no_limit():
    semaphore = FairSemaphore(None)
    assert all(semaphore.acquire(0) for _ in range(100))
    assert semaphore.in_use == 100


def test_in_order():
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)
    waiters = [Waiter(semaphore) for _ in range(4)]
    for number, waiter in enumerate(waiters):
        assert semaphore.waiting == 4 - number
        semaphore.release()
        assert waiter.wait() is True
        assert semaphore.in_use == 1


def test_those_who_gave_up_are_passed_over():
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)
    assert Waiter(semaphore, timeout=0.01).wait() is False
    waiter = Waiter(semaphore)
    semaphore.release()
    assert waiter.wait() is True
    semaphore.release()
    assert semaphore.in_use == 0


@pytest.fixture
def woken_in_vain(monkeypatch):
    """Make a semaphore that is taken, and a thread that rests before it looks again."""

    def make(rest):
        monkeypatch.setattr(fair_queue, "_REST", rest)
        semaphore = FairSemaphore(1)
        semaphore.fairness = 60.0
        assert semaphore.acquire(0)
        waiter = Waiter(semaphore)
        (queued,) = semaphore._waiting
        with semaphore._lock:  # so that this thread is faster
            semaphore.release()
            assert semaphore.acquire(0)
        until(lambda: queued.rests or not waiter.thread.is_alive())
        return semaphore, waiter, queued

    return make


def test_whoever_was_woken_in_vain_is_left_alone(woken_in_vain):
    semaphore, waiter, queued = woken_in_vain(60.0)
    semaphore.release()
    assert queued.turn.locked()
    semaphore.close()
    assert isinstance(waiter.wait(), SemaphoreClosed)


def test_whoever_rests_looks_by_itself(woken_in_vain, monkeypatch):
    semaphore, waiter, _ = woken_in_vain(1.0)
    monkeypatch.setattr(fair_queue.Waiter, "call", lambda waiter: None)
    semaphore.release()
    waiter.thread.join(10)  # its own time-out is later
    assert waiter.outcome is True


def test_whoever_rests_is_served_when_it_is_due(woken_in_vain):
    semaphore, waiter, _ = woken_in_vain(60.0)
    semaphore.fairness = 0.0
    semaphore.release()
    assert waiter.wait() is True


def test_closed():
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)
    waiter = Waiter(semaphore)
    semaphore.close()
    assert str(waiter.wait()) == "the pool was closed"
    with pytest.raises(SemaphoreClosed, match="the pool is closed"):
        semaphore.acquire(0)
    semaphore.release()
    assert (semaphore.in_use, semaphore.waiting) == (0, 0)


def test_whoever_leaves_while_one_queues_up_is_not_missed(monkeypatch):
    """As a finalizer may, which the garbage collector runs anywhere."""
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)

    class Waiter(module.Waiter):
        __slots__ = ()

        def __init__(self, since):
            super().__init__(since)
            semaphore.release()

    monkeypatch.setattr(module, "Waiter", Waiter)
    assert semaphore.acquire(20)
    assert (semaphore.in_use, semaphore.waiting) == (1, 0)


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("served", [False, True])
def test_i11_an_interrupted_waiter_has_taken_nothing(monkeypatch, served):
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)

    class Waiter(module.Waiter):
        __slots__ = ()

        def wait(self, *args):
            if served:
                semaphore.release()
                assert super().wait(*args)
            raise Interrupt

    monkeypatch.setattr(module, "Waiter", Waiter)
    with pytest.raises(Interrupt):
        semaphore.acquire(20)
    assert (semaphore.in_use, semaphore.waiting) == (0 if served else 1, 0)


def test_i15_whoever_is_struck_has_acquired_nothing():
    """Only the instruction that returns comes too late to undo anything."""
    semaphore = FairSemaphore(1)
    acquired = []
    late = []

    def acquire():
        acquired.clear()
        acquired.append(semaphore.acquire(1.0))

    for number in each_instruction(acquire, relet.adapters, relet.core):
        if semaphore.in_use:
            semaphore.release()
            if not acquired:
                late.append(number)
    assert late in ([], [number])
    assert (semaphore.in_use, semaphore.waiting) == (1, 0)
