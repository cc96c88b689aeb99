"""Tagging: names each transaction in ``pg_stat_activity`` by the code that began it.

The name is set with ``SET LOCAL``, in one message with ``BEGIN`` where the driver can do that. So
it ends with the transaction, and is no session state.
"""

from __future__ import annotations

import os
from functools import cache, lru_cache, partial
from typing import Any

from relet.backends.observe.collection import current_route
from relet.backends.temporarily import temporarily
from relet.core import Lease
from relet.core.application_name import transaction_name
from relet.core.sql.transactions import name_session
from relet.core.status import TransactionStatus

from .ending import leased
from .runner import LeaseRunner

IDLE = TransactionStatus.IDLE


class TaggingRunner(LeaseRunner):
    """A runner that names transactions.

    A transaction begins with its first statement, as drivers do it: until then, the connection's
    isolation level can be changed.
    """

    own_settings = frozenset({"application_name"})

    def begin(self, sql: object) -> Any:
        raw = super().begin(sql)
        if not raw.autocommit:
            self._begin_named(raw)
        return raw

    def transfer(self, sql: object) -> None:
        super().transfer(sql)
        self._begin_named(leased(self.lease)[0].raw)

    def begin_transaction(self, lease: Lease) -> None:
        savepoints = self.pending_savepoints
        temporarily(self, partial(super().begin_transaction, lease), pending_savepoints=[])
        if savepoints:
            self._begin_named(
                leased(lease)[0].raw, *map(self.host.ops.savepoint_create_sql, savepoints)
            )
            self.pending_savepoints = []

    def _begin_named(self, raw: Any, *statements: str) -> None:
        """Begin the transaction that the driver would begin before its next statement, if any.

        :param statements: what to run in it, in the same message.
        """
        pool: Any = self.lease.pool
        if not raw.autocommit and pool.transaction_status(raw) == IDLE:
            named = _name_session(current_route(), os.getpid())
            pool.begin_transaction(raw, "; ".join((named, *statements)))


@lru_cache(maxsize=512)
def _name_session(route: str, pid: int) -> str:
    """Return the statement that names a transaction of *route*.

    :param pid: this process's, which is another one after a fork.
    """
    return name_session(transaction_name(route))


@cache
def tagging(runner_class: type[Any]) -> type[LeaseRunner]:
    """Return *runner_class* with `TaggingRunner` mixed in."""
    if issubclass(runner_class, TaggingRunner):
        return runner_class
    return type(f"Tagging{runner_class.__name__}", (TaggingRunner, runner_class), {})
