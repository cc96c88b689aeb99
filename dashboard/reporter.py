"""Reporter: the thread by which this process reports itself to the fleet.

It begins with the first pool, and anew in a forked child. It sleeps, sends one statement, and
sleeps again; it keeps no connection meanwhile. What it meets costs one line in the log, however
long it lasts, and nobody else waits for it.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import socket
import sys
import threading
import uuid
from contextlib import suppress
from dataclasses import replace
from time import monotonic, time
from typing import Any

import relet
from relet.backends.pools import pools
from relet.backends.reports.pools import PoolRow
from relet.backends.reports.reason import reason
from relet.core.background import BackgroundCall, RepeatedCall
from relet.core.fork import at_fork

from . import home, tables
from .payload import Minutes, now, totals

logger = logging.getLogger("relet")

#: Seconds from the first pool to the first beat: most commands have ended by then.
FIRST_S = 1.0
#: Seconds from one beat to the next, and while somebody looks; and at most, after failures.
BEAT_S, FAST_S, SLOWEST_S = 10.0, 1.0, 160.0
#: How much of that is left to chance, so that processes that began together do not beat together.
JITTER = 0.1
#: Seconds after which what is too old is deleted again.
_SWEEP_S = 60.0
#: Seconds to wait at exit until the row of this process is removed.
_EXIT_S = 2.0


class Reporter:
    """Reports this process. The only instance of a process is `reporter`."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self._began = monotonic()
        self._chance = random.Random()
        self._minutes = Minutes()
        self._beats = RepeatedCall(self.beat, first=FIRST_S)
        #: Held during a beat.
        self._beating = threading.Lock()
        self._stopping = self._paused = self._known = self._watched = False
        self._failures = 0
        #: When totals were last reported, and what is too old was last deleted.
        self._counted = self._swept = -_SWEEP_S

    def begin(self) -> None:
        """Begin to report, unless that has begun."""
        self._paused = False
        if not self._stopping:
            self._beats.begin()

    def forked(self) -> None:
        """Begin anew in a forked child, which has no such thread and is another process."""
        self.__init__()  # type: ignore[misc]

    def beat(self) -> float | None:
        """Report once; return the seconds until the next time, None for never."""
        with self._beating:
            if self._stopping or self._paused:
                self._remove()
                return None
            if _under_test():
                return BEAT_S
            try:
                self._watched = self._send()
            except Exception as error:  # noqa: BLE001 - anything that a driver or a setting raises
                return self._failed(error)
            self._known = True
            if self._failures:
                self._failures = 0
                logger.info("This process reports to the fleet again.")
            return FAST_S if self._watched else self._some(BEAT_S)

    def _send(self) -> bool:
        """Send a beat; return whether somebody looks."""
        rows: list[PoolRow] = list(relet.pools().rows)
        moment = monotonic()
        if count := moment - self._counted >= BEAT_S * (1 - JITTER):
            self._counted = moment
        one = tables.Beat(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=relet.__version__,
            age=moment - self._began,
            interval=FAST_S if self._watched else BEAT_S,
            now=now(rows, stacks=self._watched),
            totals=totals() if count else None,
            rollups=self._minutes.add(rows, int(time() // 60)),
        )
        if moment - self._swept >= _SWEEP_S:
            self._swept = moment
            one = replace(one, sweep=True)
        found = home.run(tables.beat(one), home.alias())
        seconds = found[0][0] if found else None
        return seconds is not None and seconds > 0

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        self._watched, self._counted = False, -_SWEEP_S
        if self._failures == 1:
            logger.warning(
                "This process cannot report to the fleet: %s. It tries again, at least every "
                "%d s, and logs when it has succeeded. If tables are missing, run 'manage.py "
                "migrate' on the alias that has them; see %s.",
                *(reason(error).rstrip("."), SLOWEST_S, home.SETTING),
            )
        return self._some(min(BEAT_S * 2.0 ** min(self._failures - 1, 10), SLOWEST_S))

    def _some(self, seconds: float) -> float:
        return seconds * self._chance.uniform(1 - JITTER, 1 + JITTER)

    def stop(self) -> None:
        """Stop to report, and remove the row of this process, if the database answers."""
        self._stopping = True
        self._leave(_EXIT_S)

    def pause(self, timeout: float) -> None:
        """Do the same until the next pool is opened.

        :param timeout: seconds to wait at most.
        """
        if self._beats.goes_on or self._known:  # otherwise it has not begun
            self._paused = True
            self._leave(timeout)

    def _leave(self, timeout: float) -> None:
        """Have `beat` remove the row in another thread: a server may be silent for ever."""
        if self._beats.goes_on:
            # At exit no thread can be started any more, but this one is there.
            self._beats.wake()
            self._beats.wait(timeout)
        elif self._known:
            call = BackgroundCall(self.beat)
            with suppress(RuntimeError):  # no more threads: others delete the row, later
                call.start()
                call.wait(timeout)

    def _remove(self) -> None:
        if self._known and not self._failures:
            self._known = False
            with suppress(Exception):  # it is deleted by others, later
                home.run(tables.goodbye(self.id), home.alias())


def _under_test() -> bool:
    """Whether Django's test runner, or pytest-django, has set up its environment.

    Its databases come and go, and a session from here would be in the way.
    """
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


reporter = Reporter()
_installed = False


def install() -> None:
    """Have this process report itself from its first pool on."""
    global _installed
    pools.on_open, pools.before_close = reporter.begin, reporter.pause
    if not _installed:
        _installed = True
        at_fork(after_in_child=reporter.forked)
        # Before the pools are closed: exit handlers run in reverse order.
        atexit.register(reporter.stop)
    if any(pools):
        reporter.begin()
    _connect_celery()


def _connect_celery() -> None:
    """Stop when a worker process of Celery's ends, which runs no exit handlers."""
    if (signals := sys.modules.get("celery.signals")) is not None:
        signals.worker_process_shutdown.connect(_stop, weak=False, dispatch_uid="relet.dashboard")


def _stop(**kwargs: Any) -> None:
    reporter.stop()
