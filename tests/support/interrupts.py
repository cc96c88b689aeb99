"""Interrupts, which strike anywhere."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

TIMES = int(os.environ.get("RELET_INTERRUPTS", "150"))

timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers")

#: For code that is not safe at every instruction. Before 3.11, one may strike between any two.
possible = pytest.mark.skipif(
    sys.version_info < (3, 11) or not hasattr(signal, "setitimer"),
    reason="interrupts strike between any two instructions, or the system has no timer for them",
)


class Interrupt(BaseException):
    """As KeyboardInterrupt is, and as what Celery raises when a task's time is up."""


class Shield:
    """While it is up, interrupts wait: for code that leaves it to its caller to be safe from them.

    Masks of signals will not do. They are a thread's own, the system gives a signal to any thread
    that has none, and Python tells the main one.
    """

    up = False


def interrupted(
    run: Callable[[], object],
    longest: float,
    settle: Callable[[], object] = lambda: None,
    times: int = TIMES,
) -> int:
    """Call *run* many times, and interrupt it after up to *longest* seconds; count how often.

    :param settle: is called after each interrupt, and not interrupted.
    """
    chance = random.Random(7)
    struck = 0

    def strike(*_: object) -> None:
        nonlocal struck
        if Shield.up:
            signal.setitimer(signal.ITIMER_REAL, 1e-3)
            return
        struck += 1
        raise Interrupt

    def until(number: int) -> None:
        # Where Python ignores what is raised, as in a finalizer, it was in vain.
        while struck < number:
            run()

    previous = signal.signal(signal.SIGALRM, strike)
    # pytest's takes steps, and is not safe from interrupts.
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        for number in range(times):
            with suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, longest))
                until(number + 1)
            settle()
    finally:
        signal.signal(signal.SIGALRM, previous)
        sys.unraisablehook = hook
    return struck
