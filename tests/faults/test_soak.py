"""I12, I15, I17, I18 for as many minutes as RELET_SOAK_MINUTES says: chaos again and again.

The pool stays the same. What it takes of memory is measured after each round, when all is at rest.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import tracemalloc
from contextlib import suppress
from time import monotonic

import psutil
import pytest

from ..support.interrupts import possible
from .chaos import ALIAS, CONNECTIONS, SEED, chaos

MINUTES = float(os.environ.get("RELET_SOAK_MINUTES", "0"))
#: Seconds of a round.
ROUND = 15.0
#: Rounds after which nothing is made for the first time any more.
WARM = 2
#: What may come after that, in bytes: of what Python allocates, and of the process as a whole.
MORE, MORE_RESIDENT = 1 << 19, 16 << 20


def memory() -> tuple[int, int]:
    """Return how many bytes Python has allocated, and how many the process has."""
    gc.collect()
    with suppress(AttributeError, OSError):  # it is the C library's of Linux
        ctypes.CDLL(None).malloc_trim(0)
    return tracemalloc.get_traced_memory()[0], psutil.Process().memory_info().rss


@pytest.fixture
def traced():
    """Python tells where memory was allocated, and nothing is kept of the log."""
    logging.disable(logging.CRITICAL)
    tracemalloc.start()
    yield
    tracemalloc.stop()
    logging.disable(logging.NOTSET)


@possible
@pytest.mark.skipif(not MINUTES, reason="it takes as many minutes as RELET_SOAK_MINUTES says")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("garbage", "traced")
def test_soak(postgres, network, use):
    print(f"RELET_CHAOS_SEED={SEED}")
    use(network.port, alias=ALIAS, size=CONNECTIONS)
    deadline = monotonic() + 60 * MINUTES
    found = []
    before = None
    while monotonic() < deadline or len(found) < WARM + 2:
        chaos(postgres, network, ROUND, name=f"{SEED}-{len(found)}", interrupts=True)
        found.append(memory())
        if len(found) == WARM:
            before = tracemalloc.take_snapshot()
        allocated, resident = found[-1]
        print(f"memory: {allocated / 1e6:.2f} MB allocated, {resident / 1e6:.1f} MB resident")
    (allocated, resident), (later, resident_later) = found[WARM - 1], found[-1]
    if later - allocated > MORE or resident_later - resident > MORE_RESIDENT:
        grown = tracemalloc.take_snapshot().compare_to(before, "lineno")
        pytest.fail("\n".join(["memory grows:", *map(str, grown[:20])]))
