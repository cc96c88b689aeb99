"""Children, and where their parent's connections are watched."""

from __future__ import annotations

import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .wire import Wire

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


def fork() -> int:
    with warnings.catch_warnings():
        # Since 3.12, where there are threads: pools have some.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def child_of(function: Callable[[], Any], within: float = 20) -> int:
    """Fork; return the exit code of *function* in the child, which is killed if it hangs."""
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    # It is closed by the child's end.
    ended = select.select([reading], [], [], within)[0]
    os.close(reading)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended, "the child hangs"
    return code


@contextmanager
def untouched(wire: Wire, statement: Callable[[], Any]) -> Iterator[None]:
    """In the block nothing arrives on the connection that passes *wire*, and it does not end.

    After it, *statement* is run on it, which arrives behind whatever a child has sent.
    """
    wire.forget()
    yield
    statement()
    for log in wire.logs.values():
        sent = [message for message in log if message.sender == "client"]
        # Others are the child's own.
        if any(b"after the child" in message.data for message in sent):
            assert b"after the child" in sent[0].data
            # What else there is comes from the driver, with the statement.
            assert {message.kind for message in sent} <= set("QPBDES")
            return
    raise AssertionError("the statement has not passed by")
