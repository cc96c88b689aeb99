"""A call that is made again and again, in a thread that sleeps in between."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from relet.core.background import RepeatedCall

from ..support.waiting import until

LONG = 3600.0


class Function:
    """Returns what it is told to, and can be waited for in the middle."""

    def __init__(self, *answers: float | None) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.before: Callable[[], object] = tuple

    def __call__(self) -> float | None:
        self.calls += 1
        self.before()
        return self.answers.pop(0)


def test_it_is_called_until_it_says_stop():
    function = Function(0.0, 0.001, None, None)
    call = RepeatedCall(function)
    call.begin()
    until(lambda: function.calls == 3 and not call.goes_on)
    call.begin()
    until(lambda: function.calls == 4 and not call.goes_on)


def test_the_first_call_can_wait():
    function = Function(LONG, None)
    call = RepeatedCall(function, first=LONG)
    call.begin()
    call.begin()
    until(lambda: call.goes_on)
    assert function.calls == 0
    call.wake()
    until(lambda: function.calls == 1)
    call.wake()
    until(lambda: not call.goes_on)
    assert function.calls == 2


def test_its_end_can_be_waited_for():
    function = Function(LONG, None)
    call = RepeatedCall(function)
    assert call.wait(LONG), "there is no thread"
    call.begin()
    until(lambda: function.calls == 1)
    assert not call.wait(0.01)
    call.wake()
    assert call.wait(LONG)
    assert (function.calls, call.goes_on) == (2, False)


def test_a_call_that_is_due_sooner_wakes_it():
    function = Function(LONG, LONG, None)
    call = RepeatedCall(function)
    call.within(LONG)
    until(lambda: function.calls == 1 and call._due < float("inf"))
    call.within(2 * LONG)  # it is called before that
    assert not call._wake.acquire(timeout=0.05)
    call.within(LONG / 2)
    until(lambda: function.calls == 2)
    until(lambda: call._due < float("inf"))
    call.wake()
    until(lambda: not call.goes_on)


def test_it_begins_anew_if_asked_to_in_its_last_call():
    function = Function(None, None)
    call = RepeatedCall(function)
    in_it, asked = threading.Event(), threading.Event()

    def before():
        if function.calls == 1:
            in_it.set()
            assert asked.wait(60)

    function.before = before
    call.begin()
    assert in_it.wait(60)
    call.begin()
    asked.set()
    until(lambda: not call.goes_on and function.calls == 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_ends_it(monkeypatch):
    heard = []
    monkeypatch.setattr("sys.unraisablehook", heard.append)
    function = Function(None)
    function.before = lambda: 1 / 0
    call = RepeatedCall(function)
    call.begin()
    until(lambda: function.calls == 1 and not call.goes_on)
    until(lambda: len(heard) == 1)
    function.before = tuple
    call.begin()
    until(lambda: function.calls == 2 and not call.goes_on)
