"""Every order in which threads can run: greenlets stand for them, and a search tries each order.

A thread runs until it comes to a lock, or waits. Which of them goes on then, whose time is up, and
which of them is interrupted, is chosen; the search goes through all choices, depth first. The code
itself runs, not a model of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import greenlet

#: Whoever waits so long waits for good.
FOREVER = 1e6


class Interrupt(BaseException):
    """Raised by nobody else."""


class Stuck(AssertionError):
    """No thread can go on: a wake-up was lost."""


class Schedule:
    """One order: the choices that are given, then always the first, or any."""

    def __init__(self, choices: list[int], random: Random | None = None) -> None:
        self._given, self._random = choices, random
        #: What was chosen, and of how many.
        self.chosen: list[tuple[int, int]] = []
        self.now = 0.0
        self._threads: list[Thread] = []

    def monotonic(self) -> float:
        return self.now

    def start(self, function: Callable[[], object], *, interrupts: int = 0) -> None:
        self._threads.append(Thread(self, function, interrupts))

    def run(self) -> None:
        """Run all threads to their end."""
        while True:
            options = [option for thread in self._threads for option in thread.options()]
            if not options:
                break
            number = len(self.chosen)
            choice = 0
            if number < len(self._given):
                choice = self._given[number]
            elif self._random is not None:
                choice = self._random.randrange(len(options))
            self.chosen.append((choice, len(options)))
            self.now += 1
            options[choice]()
        if stuck := [thread for thread in self._threads if not thread.dead]:
            raise Stuck(f"{len(stuck)} threads wait for good; choices: {self.choices}")

    @property
    def choices(self) -> list[int]:
        return [choice for choice, _ in self.chosen]

    def current(self) -> Thread:
        return greenlet.getcurrent()  # type: ignore[return-value]


class Thread(greenlet.greenlet):
    """A thread. *wants* is what it waits for, if it waits."""

    def __init__(self, schedule: Schedule, function: Callable[[], object], interrupts: int) -> None:
        super().__init__(self._run)
        self.schedule, self.function, self.interrupts = schedule, function, interrupts
        self.wants: Callable[[], bool] | None = None
        self.deadline: float | None = None

    def _run(self) -> None:
        with suppress(Interrupt):
            self.function()

    def pause(self, wants: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let others run until *wants*; return False if the time was up before."""
        self.wants = wants
        limited = timeout is not None and timeout < FOREVER / 2
        self.deadline = self.schedule.now + timeout if limited else None  # type: ignore[operator]
        assert self.parent is not None
        came: bool = self.parent.switch()
        self.wants = None
        return came

    def options(self) -> list[Callable[[], object]]:
        """What can become of it now."""
        if self.dead:
            return []
        if self.wants is None:
            return [self.switch]
        options: list[Callable[[], object]] = []
        if self.wants():
            options.append(lambda: self.switch(True))
        if self.deadline is not None:
            options.append(self._time_is_up)
        if self.interrupts:
            options.append(self._interrupt)
        return options

    def _time_is_up(self) -> None:
        assert self.deadline is not None
        self.schedule.now = max(self.schedule.now, self.deadline)
        self.switch(False)

    def _interrupt(self) -> None:
        self.interrupts -= 1
        self.wants = None
        self.throw(Interrupt)


class Lock:
    """A lock that can be taken, and given back, by any thread: `threading.Lock`."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._taken = schedule, False

    def acquire(self, timeout: float = -1) -> bool:
        limit = None if timeout < 0 else timeout
        if self._taken and not self._schedule.current().pause(lambda: not self._taken, limit):
            return False
        self._taken = True
        return True

    def release(self) -> None:
        if not self._taken:
            raise RuntimeError("release unlocked lock")
        self._taken = False


class RLock:
    """A lock of one thread: `threading.RLock`. Others may run before it is taken."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._owner, self._count = schedule, None, 0

    def acquire(self, blocking: bool = True) -> bool:
        thread: Any = self._schedule.current()
        if self._owner is not thread:
            thread.pause(lambda: self._owner is None)
            self._owner = thread
        self._count += 1
        return True

    def release(self) -> None:
        assert self._owner is self._schedule.current()
        self._count -= 1
        if not self._count:
            self._owner = None

    def _is_owned(self) -> bool:
        return self._owner is self._schedule.current()


def each_schedule(run: Callable[[Schedule], None]) -> int:
    """Call *run* with every schedule that there is; return how many there were."""
    choices: list[int] = []
    count = 0
    while True:
        schedule = Schedule(choices)
        run(schedule)
        count += 1
        made = schedule.chosen
        while made and made[-1][0] + 1 == made[-1][1]:
            made.pop()
        if not made:
            return count
        choices = [choice for choice, _ in made[:-1]] + [made[-1][0] + 1]


def random_schedules(run: Callable[[Schedule], None], count: int) -> None:
    """Call *run* with *count* schedules, the same ones each time."""
    for number in range(count):
        run(Schedule([], Random(number)))
