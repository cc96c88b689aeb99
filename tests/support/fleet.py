"""A fleet: processes whose threads query one database, each process by a pool of its own.

This file is also their program. It forks them, because to import Django once is much faster. What
they have done so far is in a file that all of them map into memory, so a test can watch them, and
can read it after it has killed them.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

#: A process' part of the file: its pid, and `Work`.
_PART = struct.Struct("5q")


class Work(NamedTuple):
    """What a process has done.

    :param served: requests that have got their answer.
    :param lost: those whose connection broke, or could not be opened.
    :param timeouts: those for which no connection came free in time.
    :param others: those that failed otherwise.
    """

    served: int = 0
    lost: int = 0
    timeouts: int = 0
    others: int = 0


class Fleet:
    """Processes that run. Killed at the end of the block of `started`, if not before."""

    def __init__(self, program: subprocess.Popen[bytes], path: Path, processes: int) -> None:
        self._program = program
        self._log = path.with_suffix(".log")
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), processes * _PART.size)
        self._count = processes

    def pids(self) -> list[int]:
        """Their pids; 0 for one that has not begun."""
        return [self._part(number)[0] for number in range(self._count)]

    def work(self) -> list[Work]:
        return [Work(*self._part(number)[1:]) for number in range(self._count)]

    def _part(self, number: int) -> tuple[int, ...]:
        return _PART.unpack_from(self._map, number * _PART.size)

    def kill(self, number: int) -> None:
        """End a process that cannot do anything about it."""
        os.kill(self.pids()[number], signal.SIGKILL)

    def stop(self) -> str:
        """Let all finish what they do; return what they have written to stderr."""
        if self._program.stdin is not None and not self._program.stdin.closed:
            self._program.stdin.close()
        self._program.wait(30)
        return self._log.read_text()


@contextmanager
def started(
    database: Mapping[str, Any], *, processes: int, threads: int, sql: str
) -> Iterator[Fleet]:
    """Start *processes*, each of whose *threads* runs *sql* again and again."""
    with tempfile.TemporaryDirectory(prefix="relet-") as directory:
        path = Path(directory) / "work"
        path.write_bytes(bytes(processes * _PART.size))
        told = json.dumps([dict(database), str(path), processes, threads, sql])
        with path.with_suffix(".log").open("wb") as log:
            program = subprocess.Popen(
                [sys.executable, __file__, told], stdin=subprocess.PIPE, stderr=log
            )
        fleet = Fleet(program, path, processes)
        try:
            yield fleet
        finally:
            for pid in filter(None, fleet.pids()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            fleet.stop()


def _main() -> None:
    database, path, processes, threads, sql = json.loads(sys.argv[1])

    import django
    from django.conf import settings

    settings.configure(DATABASES={"default": database}, USE_TZ=True)
    django.setup()
    from django.db import connections

    connections["default"]  # imports the engine, but connects to nothing
    children = []
    for number in range(processes):
        if (pid := os.fork()) == 0:
            _process(Path(path), number, threads, sql)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


def _process(path: Path, number: int, threads: int, sql: str) -> None:
    from django.db import Error, OperationalError, close_old_connections, connection

    from relet.core import PoolTimeout

    stops = threading.Event()
    lock = threading.Lock()
    done = Work()
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 0)

    def count(what: str) -> None:
        nonlocal done
        with lock:
            done = done._replace(**{what: getattr(done, what) + 1})
            _PART.pack_into(shared, number * _PART.size, os.getpid(), *done)

    def run() -> None:
        while not stops.is_set():
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    cursor.fetchall()
                count("served")
            except OperationalError as error:
                timed_out = isinstance(error.__cause__, PoolTimeout)
                count("timeouts" if timed_out else "lost")
                if timed_out:
                    print(error, file=sys.stderr, flush=True)
                stops.wait(0.05)
            except Error as error:
                print(repr(error), file=sys.stderr, flush=True)
                count("lost" if "connection" in str(error) else "others")
            close_old_connections()

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    sys.stdin.buffer.read()
    stops.set()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    _main()
