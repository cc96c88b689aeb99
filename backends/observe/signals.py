"""Signals: writes a report to stderr when the process gets a signal.

Python runs signal handlers in the main thread only, between two instructions, and only the main
thread may install them. A process that hangs may never get there, and a server may open its first
connection in another thread. So `faulthandler` handles the signal: any thread may register it, and
it runs at once, whatever the process does. It writes to a pipe, which wakes a thread that reports.
"""

from __future__ import annotations

import _thread
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: Returns the report. Set when the Django layer is installed.
report: Callable[[], str] = str

#: The signals that are reported. Both ends of each pipe: that for writing must stay open.
_pipes: dict[str, tuple[int, Any]] = {}


def watch(name: str) -> None:
    """Write a report to stderr on each signal *name* from now on. Again: change nothing.

    A handler that the process already has for it is called as well.
    """
    if name in _pipes or not hasattr(faulthandler, "register"):
        return
    number = signal.Signals[name]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # what nobody reads is dropped
    pipe = os.fdopen(writing, "wb", buffering=0)
    _pipes[name] = reading, pipe
    others = signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
    faulthandler.register(number, file=pipe, all_threads=False, chain=others)
    _start_thread(_serve, reading)


#: What each dump of faulthandler's has once. It is written in parts, which may be read one by one.
_DUMP = b"(most recent call first)"


def _serve(reading: int) -> None:
    begun = b""
    with suppress(OSError):  # the interpreter is shutting down
        while read := os.read(reading, 65536):
            begun += read
            if _DUMP in begun:
                text = f"\n{report()}".encode(errors="replace")
                while text:
                    text = text[os.write(2, text) :]
            begun = begun.rpartition(_DUMP)[2][-len(_DUMP) :]


def _start_thread(function: Callable[..., object], *args: object) -> None:
    """Start a thread of the operating system, also where gevent makes greenlets of threads."""
    start = _thread.start_new_thread
    if (monkey := sys.modules.get("gevent.monkey")) is not None:
        start = monkey.get_original("_thread", "start_new_thread")
    start(function, args)


def forked() -> None:
    """Watch the same signals in a forked child, which has no threads and shares the pipes."""
    names = list(_pipes)
    for reading, pipe in list(_pipes.values()):
        os.close(reading)
        pipe.close()
    _pipes.clear()
    for name in names:
        watch(name)
