"""What processes of the project have reported of themselves to the fleet."""

from __future__ import annotations

import time
from typing import Any

from ..support import driver
from .process import PATIENCE_S

_ROWS = "SELECT pid FROM relet_dashboard_process"


class Table:
    """What processes have reported to the project's database."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def execute(self, sql: str) -> list[Any]:
        with driver.connect(**self._parameters) as observer:
            cursor = observer.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def pids(self) -> list[int]:
        return sorted(pid for (pid,) in self.execute(_ROWS))

    def wait_for(self, pids: set[int]) -> None:
        """Wait until these processes are in it, each once, and no others."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.pids()) != sorted(pids):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
