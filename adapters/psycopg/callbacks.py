"""Callbacks: the functions in the pool's options that get each connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from relet.adapters.drivers.psycopg import Connection
from relet.adapters.opening import configure_or_close
from relet.core import PoolConfig
from relet.core.outside import from_handler

Callback = Callable[[Connection], object]


class Refused(psycopg.OperationalError):
    """A callback refuses a connection that works; the reason is its `__cause__`.

    :ivar option: the pool's option with the callback.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(option, reason)
        self.option, self.reason = option, reason

    def __str__(self) -> str:
        return f"{self.option!r} refuses the connection: {self.reason}"


class Callbacks:
    """The callbacks of a pool: relet's own ``configure``, and the user's."""

    def __init__(self, config: PoolConfig) -> None:
        self._own = config.configure
        options: Mapping[str, Any] = config.options or {}
        self._configure: Callback | None = options.get("configure")
        self._check: Callback | None = options.get("check")
        #: The last refusal, None if the last call succeeded; psycopg_pool only logs it.
        self.refused: Refused | None = None

    @property
    def options(self) -> dict[str, Callback]:
        """The pool's options with these callbacks."""
        checks = {} if self._check is None else {"check": self.check}
        return {"configure": self.configure, **checks}

    def configure(self, raw: Connection) -> None:
        # The pool would leave the connection open until garbage collection.
        configure_or_close(raw, self._configure_both)

    def _configure_both(self, raw: Connection) -> None:
        self._own(raw)
        if self._configure is not None:
            self._call("configure", self._configure, raw)

    def check(self, raw: Connection) -> None:
        if self._check is not None:
            self._call("check", self._check, raw)

    def _call(self, option: str, callback: Callback, raw: Connection) -> None:
        try:
            callback(raw)
        except Exception as error:
            if raw.closed or from_handler(
                error
            ):  # broken, or interrupted: the callback did not refuse it
                raise
            self.refused = Refused(option, str(error))
            raise self.refused from error
        self.refused = None
