"""Gate: so many at a time, in order, and nothing is lost."""

import threading

import pytest

from relet.adapters import semaphore as module
from relet.adapters.semaphore import Gate, GateClosed


class Waiter:
    """A thread that wants to get in."""

    def __init__(self, gate, timeout=20):
        self.outcome = None
        before = gate.waiting
        self.thread = threading.Thread(target=self.run, args=(gate, timeout))
        self.thread.start()
        while gate.waiting == before and self.thread.is_alive():
            pass

    def run(self, gate, timeout):
        try:
            self.outcome = gate.enter(timeout)
        except GateClosed as error:
            self.outcome = error

    def wait(self):
        self.thread.join(20)
        return self.outcome


def test_so_many_at_a_time():
    gate = Gate(2)
    assert gate.enter(0)
    assert gate.enter(0)
    assert not gate.enter(0)
    assert not gate.enter(0.01)
    assert (gate.inside, gate.entries, gate.waits, gate.waiting) == (2, 4, 2, 0)
    assert gate.wait_ms >= 10
    gate.leave()
    assert gate.enter(0)


def test_no_limit():
    gate = Gate(None)
    assert all(gate.enter(0) for _ in range(100))
    assert gate.inside == 100


def test_in_order():
    gate = Gate(1)
    assert gate.enter(0)
    waiters = [Waiter(gate) for _ in range(4)]
    for number, waiter in enumerate(waiters):
        assert gate.waiting == 4 - number
        gate.leave()
        assert waiter.wait() is True
        assert gate.inside == 1


def test_those_who_gave_up_are_passed_over():
    gate = Gate(1)
    assert gate.enter(0)
    assert Waiter(gate, timeout=0.01).wait() is False
    waiter = Waiter(gate)
    gate.leave()
    assert waiter.wait() is True
    gate.leave()
    assert gate.inside == 0


def test_closed():
    gate = Gate(1)
    assert gate.enter(0)
    waiter = Waiter(gate)
    gate.close()
    assert str(waiter.wait()) == "the pool was closed"
    with pytest.raises(GateClosed, match="the pool is closed"):
        gate.enter(0)
    gate.leave()
    assert (gate.inside, gate.waiting) == (0, 0)


def test_whoever_leaves_while_one_queues_up_is_not_missed(monkeypatch):
    """As a finalizer may, which the garbage collector runs anywhere."""
    gate = Gate(1)
    assert gate.enter(0)

    class Place(module.Place):
        __slots__ = ()

        def __init__(self):
            super().__init__()
            gate.leave()

    monkeypatch.setattr(module, "Place", Place)
    assert gate.enter(20)
    assert (gate.inside, gate.waiting) == (1, 0)


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("served", [False, True])
def test_i11_an_interrupted_waiter_has_taken_nothing(monkeypatch, served):
    gate = Gate(1)
    assert gate.enter(0)

    class Place(module.Place):
        __slots__ = ()

        def wait(self, *args):
            if served:
                gate.leave()
                assert super().wait(*args)
            raise Interrupt

    monkeypatch.setattr(module, "Place", Place)
    with pytest.raises(Interrupt):
        gate.enter(20)
    assert (gate.inside, gate.waiting) == (0 if served else 1, 0)
