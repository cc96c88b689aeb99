"""What the PostgreSQL server itself says of the connections to the project's database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..support import driver
from .process import PATIENCE_S

_CONNECTIONS = (
    "SELECT pid, coalesce(state, 'starting') FROM pg_stat_activity "
    "WHERE datname = %s AND backend_type = 'client backend'"
)


class Watch:
    """Looks at them; its own connections are to another database."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        self._name, self._parameters = name, parameters
        #: The most that were there at one time.
        self.most = 0

    def rows(self, sql: str, parameters: list[Any]) -> list[Any]:
        with driver.connect(**self._parameters) as observer:
            return list(observer.execute(sql, parameters).fetchall())

    def states(self) -> list[str]:
        """Return the state of each connection."""
        return [state for _, state in self.rows(_CONNECTIONS, [self._name])]

    def pids(self) -> set[int]:
        """Return the server process of each connection."""
        return {pid for pid, _ in self.rows(_CONNECTIONS, [self._name])}

    def counts(self) -> tuple[int, int]:
        """Return how many have ever been opened, and how many of them cut and not closed."""
        sql = "SELECT sessions, sessions_abandoned FROM pg_stat_database WHERE datname = %s"
        opened, cut = self.rows(sql, [self._name])[0]
        return int(opened), int(cut)

    def wait_for(self, states: set[str]) -> None:
        """Wait until all connections are in one of *states*; of none, until all are gone."""
        deadline = time.monotonic() + PATIENCE_S
        while not set(found := self.states()) <= states:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    @contextmanager
    def limit(
        self, most: int, *, processes: int = 1, replaced: int = 0, closed: bool = True
    ) -> Iterator[None]:
        """There never are more than *most* connections, of *processes* together.

        :param replaced: how many may be opened in place of others.
        :param closed: whether all are closed, as is polite; else some may be cut.
        """
        self.wait_for(set())
        opened_before, cut_before = self.counts()
        self.most = 0
        done = threading.Event()

        def look() -> None:
            with driver.connect(**self._parameters) as observer:
                while not done.wait(0.005):
                    now = observer.execute(_CONNECTIONS, [self._name]).fetchall()
                    self.most = max(self.most, len(now))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
            self.wait_for(set())
        finally:
            done.set()
            thread.join()
        assert 0 < self.most <= most
        opened, cut = self.counts()
        # One is to find out whether the server lets a process connect, before its pool is opened.
        assert opened - opened_before <= most + processes + replaced
        assert cut == cut_before or not closed
