"""Lazy transactions: only the first statement of a transaction takes a connection.

``atomic()`` and ``set_autocommit(False)`` only change the state of the wrapper. The lease of the
first statement then begins inside the transaction.
"""

from __future__ import annotations

import sys
from asyncio import _get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, ProgrammingError, transaction
from django.db.backends.utils import debug_transaction
from django.db.transaction import TransactionManagementError
from django.utils.asyncio import async_unsafe

from relet.backends.leases.runner import RUNNING
from relet.backends.typing import WrapperBase
from relet.core import Event, TransactionStatus

if TYPE_CHECKING:
    from relet.backends.leases.runner import LeaseRunner


@async_unsafe
def _refuse_coroutine() -> None:
    """Raise Django's error if an event loop runs, unless ``DJANGO_ALLOW_ASYNC_UNSAFE`` is set."""


class LazyTransactions(WrapperBase):
    """The transaction methods of the wrapper."""

    _runner: LeaseRunner
    #: Whether the wrapper appears unconnected to Django.
    _unconnected = True
    #: Whether this process was forked inside a transaction of its parent.
    _forked_inside = False

    @property
    def _in_transaction(self) -> bool:
        """Whether Django has begun a transaction and not ended it yet."""
        return self.in_atomic_block or not (self.autocommit or self._unconnected)

    def begin_session(self) -> None:
        """Reset the wrapper's state as Django's connect() does, if it is not connected."""
        if self._unconnected:
            self._unconnected = False
            self.in_atomic_block = False
            self.savepoint_ids = []
            self.atomic_blocks = []
            self.needs_rollback = False
            self.closed_in_transaction = False
            self.errors_occurred = False
            self._forked_inside = False
            self.run_on_commit = []
            self.autocommit = self.settings_dict["AUTOCOMMIT"]

    # Autocommit.

    def get_autocommit(self) -> bool:
        if _get_running_loop() is not None:
            _refuse_coroutine()
        self.begin_session()
        return self.autocommit

    def set_autocommit(
        self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False
    ) -> None:
        if _get_running_loop() is not None:
            _refuse_coroutine()
        self.validate_no_atomic_block()
        self.begin_session()
        if autocommit:
            if self._runner.lease.connection is not None and self._is_left_open():
                self._rollback()
            self._set_autocommit(autocommit)
        else:
            with debug_transaction(self, "BEGIN"):
                self._set_autocommit(autocommit)
        if autocommit and self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False
        self._runner.tell()

    def _is_left_open(self) -> bool:
        """Whether an atomic block is being left after an interrupted COMMIT or ROLLBACK.

        The driver would then refuse the change, and its error would replace the interrupt.
        """
        status = self._runner.status()
        if status not in (TransactionStatus.IN_TRANSACTION, TransactionStatus.IN_ERROR):
            return False
        # Frame 0 is this method, 1 is set_autocommit(), 2 is its caller.
        return sys._getframe(2).f_code is transaction.Atomic.__exit__.__code__

    def _set_autocommit(self, autocommit: bool) -> None:
        """Set autocommit on the wrapper and on a leased connection: on both, or on neither."""
        before = self.autocommit
        try:
            self.autocommit = autocommit
            self._set_driver_autocommit()
        except BaseException:
            self.autocommit = before
            with suppress(self.Database.Error, DatabaseError):
                self._set_driver_autocommit()
            raise

    def _set_driver_autocommit(self) -> None:
        runner = self._runner
        connection = runner.lease.connection
        if (
            connection is not None
            and connection.raw.autocommit is not self.autocommit
            # Skip a lost connection: its error would hide the error that lost it.
            and runner.status() != TransactionStatus.UNKNOWN
        ):
            with self.wrap_database_errors:
                runner.call(setattr, connection.raw, "autocommit", self.autocommit)

    # COMMIT and ROLLBACK.

    def commit(self) -> None:
        if self._forked_inside and not self.in_atomic_block:
            self._refuse_forked()
        super().commit()

    def rollback(self) -> None:
        super().rollback()
        self._forked_inside = False

    def _commit(self) -> None:
        self._close_transaction("COMMIT")

    def _rollback(self) -> None:
        self._close_transaction("ROLLBACK")

    def _close_transaction(self, sql: str) -> None:
        runner = self._runner
        if runner.lease.state in RUNNING:
            # Called from a signal handler during a statement: this raises IllegalEvent.
            runner.lease.send(Event.STATEMENT)
        try:
            if not self._unconnected:
                with debug_transaction(self, sql), self.wrap_database_errors:
                    self._close_driver_transaction(sql)
            runner.transaction_ended()
        except BaseException:
            runner.transaction_ended()
            raise

    def _close_driver_transaction(self, sql: str) -> None:
        runner = self._runner
        lease = runner.lease
        if sql == "ROLLBACK":
            runner.end_transfers()
        if lease.connection is None:
            return
        runner.look_at_transfers()
        runner.refuse_during_transfer()
        if lease.connection is None:
            raise self.Database.InterfaceError(f"connection already closed, so there is no {sql}")
        end = getattr(lease.connection.raw, sql.lower())
        if lease.session is None:
            runner.call(end)
        else:
            runner.end_with_state(end, committing=sql == "COMMIT")

    # Savepoints.

    def _savepoint(self, sid: str) -> None:
        runner = self._runner
        # Wrappers of execute() are to see it, as in Django, so then it is sent at once.
        if runner.lease.connection is None and self.in_atomic_block and not self.execute_wrappers:
            self.validate_no_broken_transaction()
            with debug_transaction(self, self.ops.savepoint_create_sql(sid)):
                runner.pending_savepoints.append(sid)
        else:
            super()._savepoint(sid)

    def _savepoint_rollback(self, sid: str) -> None:
        if not self._end_pending_savepoint(sid, self.ops.savepoint_rollback_sql(sid), kept=1):
            self._runner.end_transfers()
            super()._savepoint_rollback(sid)

    def _savepoint_commit(self, sid: str) -> None:
        if not self._end_pending_savepoint(sid, self.ops.savepoint_commit_sql(sid), kept=0):
            super()._savepoint_commit(sid)

    def _end_pending_savepoint(self, sid: str, sql: str, *, kept: int) -> bool:
        """End the savepoint *sid* if it has not been sent to the server; return whether it was not.

        :param sql: the statement to log in its place.
        :param kept: 1 to keep the savepoint and drop only later ones, as a rollback does; else 0.
        """
        pending = self._runner.pending_savepoints
        if sid not in pending:
            return False
        with debug_transaction(self, sql):
            del pending[pending.index(sid) + kept :]
        return True

    # Forks.

    def forked(self, in_transaction: bool) -> None:
        """Drop the transaction of the parent. Called in a forked child, which has no lease."""
        self.run_on_commit = []
        if self.in_atomic_block:
            self.closed_in_transaction = True
        if self.in_atomic_block or in_transaction:
            self.needs_rollback = self._forked_inside = True

    def validate_no_broken_transaction(self) -> None:
        if self.needs_rollback:  # else Django does nothing
            if self._forked_inside:
                self._refuse_forked()
            if self.closed_in_transaction and self.in_atomic_block:
                # Django's words, and its reason: there was no error in the transaction.
                raise ProgrammingError("Cannot open a new connection in an atomic block.")
            super().validate_no_broken_transaction()

    def _refuse_forked(self) -> Any:
        raise TransactionManagementError(
            f"DATABASES[{self.alias!r}]: this process was forked inside a transaction, which "
            "belongs to its parent. Fork outside atomic(), or leave the block in this process "
            "first. Without a block, call rollback() or close()."
        )
