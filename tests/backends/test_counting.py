"""Each call is counted once, whatever threads, readers, resets and interrupts do meanwhile."""

import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FrameType
from typing import Any, TypeVar

import pytest

import relet.backends.observe
import relet.core.observe
from relet.backends.observe.collection import Collection
from relet.core.observe import tally

from ..support.strikes import each_instruction

COUNTING = (relet.core.observe, relet.backends.observe)
FOLDERS = tuple(next(iter(package.__path__)) for package in COUNTING)
#: Of the instructions of a read, one in so many is interrupted.
STEP = 47
#: Statements and routes that a thread keeps for itself here.
LIMIT = 5

T = TypeVar("T")


@pytest.fixture(autouse=True)
def few_statements(monkeypatch):
    monkeypatch.setattr(tally, "_LIMIT", LIMIT)


def meanwhile(number: int, run: Callable[[], T], other: Callable[[], object]) -> tuple[T, bool]:
    """Call *run*, and *other* before the line *number* that it runs of what counts.

    :return: the result of *run*, and whether it runs so many lines.
    """
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(FOLDERS):
            return None
        if event == "line":
            left -= 1
            if not left:
                other()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        result = run()
    finally:
        sys.settrace(before)
    return result, left <= 0


def execute(found: Collection, sql: str = "SELECT a") -> None:
    """Count a statement as the hot path does."""
    mine = found.here("default")
    try:
        counts = mine.texts["/"][sql]
    except KeyError:
        counts = mine.find("/", sql)
    counts.total += 0.25
    counts.buckets[-1] += 1


def fill(found: Collection, statements: int) -> None:
    """Execute so many different statements."""
    for number in range(statements):
        execute(found, f"SELECT b{'x' * number}")


def of_statements(found: Collection) -> int:
    return sum(counts.calls for _, counts in found.totals().statements)


def of_routes(found: Collection) -> int:
    return sum(counts.leases for _, counts in found.totals().routes)


def of_pools(found: Collection) -> int:
    return sum(pool.operations.count for pool in found.pools().values())


ALL = pytest.mark.parametrize("read", [of_statements, of_routes, of_pools])
RESETS = pytest.mark.parametrize(
    ("read", "reset"),
    [
        (of_statements, Collection.forget_statements),
        (of_routes, Collection.forget_routes),
    ],
)


class Worker:
    """A thread that has counted one call, and waits for its end."""

    def __init__(self, found: Collection) -> None:
        self._found = found
        self._counted, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        self._counted.wait()

    def _work(self) -> None:
        execute(self._found)
        self._counted.set()
        self._over.wait()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@ALL
def test_a_thread_that_ends_while_its_calls_are_read_counts_once(read):
    for number in count(1):
        found = Collection()
        worker = Worker(found)
        first, reached = meanwhile(number, partial(read, found), worker.end)
        worker.end()
        assert (first, read(found), read(found)) == (1, 1, 1), number
        if not reached:
            return


@ALL
def test_a_thread_that_hands_over_while_its_calls_are_read_counts_once(read):
    for number in count(1):
        found = Collection()
        fill(found, LIMIT - 1)
        before = read(found)
        first, reached = meanwhile(number, partial(read, found), partial(fill, found, 2 * LIMIT))
        assert before == LIMIT - 1 <= first <= 3 * LIMIT - 1, number
        assert read(found) == (3 * LIMIT - 1 if reached else before), number
        if not reached:
            return


@ALL
def test_calls_that_are_read_while_they_are_handed_over_count_once(read):
    for number in count(1):
        found = Collection()
        fill(found, LIMIT - 1)
        seen: list[int] = []
        other = partial(lambda found, seen: seen.append(read(found)), found, seen)
        _, reached = meanwhile(number, partial(execute, found), other)
        assert seen in ([], [LIMIT - 1], [LIMIT]), number
        assert read(found) == LIMIT, number
        if not reached:
            return


@RESETS
def test_a_statement_that_runs_during_a_reset_is_counted_afterwards(read, reset):
    """Its thread never goes on counting where nobody looks."""
    for number in count(1):
        found = Collection()
        execute(found)
        _, reached = meanwhile(number, partial(reset, found), partial(execute, found))
        for _ in range(5):
            execute(found)
        assert 5 <= read(found) <= 6, number
        assert of_pools(found) == 6 + reached, number
        if not reached:
            return


@RESETS
@pytest.mark.parametrize("kept", [1, LIMIT - 1])
def test_a_reset_while_a_statement_is_counted(read, reset, kept):
    for number in count(1):
        found = Collection()
        fill(found, kept)
        _, reached = meanwhile(number, partial(execute, found), partial(reset, found))
        if not reached:
            reset(found)
        for _ in range(5):
            execute(found)
        assert 5 <= read(found) <= 6, number
        assert of_pools(found) == kept + 6, number
        if not reached:
            return


@pytest.mark.slow
@ALL
def test_an_interrupt_loses_nothing_and_counts_nothing_twice(read):
    found: Collection
    workers: list[Worker] = []

    def before() -> None:
        nonlocal found
        found = Collection()
        workers[:] = [Worker(found) for _ in range(3)]
        fill(found, LIMIT + 1)
        for worker in workers[1:]:
            worker.end()

    for number in each_instruction(lambda: read(found), COUNTING, before, step=STEP):
        assert read(found) == LIMIT + 4, number
        workers[0].end()
        assert read(found) == LIMIT + 4, number
        assert (len(found._live), len(found._ended)) == (1, 0), number
    workers[0].end()


def test_many_threads_that_end_leave_a_few_sums():
    found = Collection()
    for _ in range(300):
        Worker(found).end()
    assert len(found._live) <= 17
    assert len(found._merged.parts) <= 8
    assert of_statements(found) == of_routes(found) == of_pools(found) == 300
