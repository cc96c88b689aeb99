"""Stateful: keeps account, in a wrapper's lease, of what its statements leave in the session.

What is left keeps the lease or not, as the policy says; `leasing` undoes it when the lease
ends. So does what the blocks of `hold` and `policies` begin and end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relet.core import Event, ReleasePolicy, TransactionStatus
from relet.core.session.ledger import SessionLedger
from relet.core.sql.classifier import EFFECTS
from relet.core.sql.effects import Effects

from . import session_rules as session_state
from .runner import Leasing


class Stateful(Leasing):
    """The part of the wrapper that knows of session state. Off the hot path, all of it."""

    #: The blocks that hold a connection, in the order in which they began.
    _holds: dict[object, None]

    def _init_lease(self) -> None:
        super()._init_lease()
        self._holds = {}

    # Statements with effects.

    def _effects_of(self, query: Any) -> Effects | None:
        """Return what *query* leaves in the session, if anything."""
        return EFFECTS[self._text(query)]

    def _text(self, query: Any) -> str:
        return query if query.__class__ is str else self.adapter_class.sql_text(query)

    def _carries(self, effects: Effects, query: Any, params: object) -> bool:
        """Whether a statement is not to run, but goes with the wrapper: see `carried`."""
        return False

    def _expect(self, effects: Effects, query: Any, params: object) -> None:
        """A statement with *effects* is about to run: refuse it, or warn."""
        if self._introducing is not None:
            return
        lease = self._lease
        if effects.reads_sequence and lease.connection is None:
            session_state.warn_of_sequence(self.alias, effects, self._text(query))
        if lease.session is None or not lease.session.holds:
            policy = self._policy if lease.connection is not None else self._next_policy()
            steps = effects.resolve(params, None)
            session_state.refuse(self.alias, policy, steps, self._text(query))

    def _ran(
        self,
        effects: Effects,
        query: Any,
        params: object,
        driver: Any,
        before: int,
        error: BaseException | None = None,
    ) -> None:
        """A statement with *effects* has run.

        :param driver: the driver's cursor, if it may have a result.
        :param before: the transaction status before.
        :param error: what it has raised.
        """
        lease = self._lease
        connection, pool = lease.connection, lease.pool
        if self._introducing is not None:
            self._configured.update(session_state.settings_made(effects.resolve(params, None)))
            return
        if connection is None or pool is None:
            return
        after = pool.transaction_status(connection.raw)
        ok = session_state.succeeded(effects, before, after, error)
        session_state.account(
            lease,
            self._policy,
            effects.resolve(
                params, pool.boolean_columns(driver) if ok and driver is not None else None
            ),
            self._text(query),
            self._messages,
            before=before,
            after=after,
            ok=ok,
            single=effects.single,
        )

    def _tell(self) -> None:
        """Tell the log what there is to tell, if nothing is under way."""
        if (
            self._messages
            and self.autocommit
            and not self.in_atomic_block
            and self._introducing is None
            and self._is_idle_here()
        ):
            self._messages.log()

    def _look_at_driver(self) -> None:
        """What was handed out leads to the driver's connection, too: has that been changed?"""
        connection, pool = self._lease.connection, self._lease.pool
        if connection is None or pool is None:
            return
        if not pool.is_as_it_was(connection.raw, connection):
            self._expose()

    def _end_with_state(self, end: Callable[[], object], *, committing: bool) -> None:
        """Call *end*, the driver's commit or rollback, where there is session state."""
        # COMMIT rolls back what has failed, and does not say so.
        committing &= self._status() != TransactionStatus.IN_ERROR
        try:
            self._call(end)
            self._transaction_ended(committed=committing)
        except BaseException as error:
            # Only what the server itself says is known to have come before it was done.
            failed = isinstance(error, self.Database.Error) and session_state.sqlstate(error)
            self._transaction_ended(committed=False if failed else None)
            raise

    def _transaction_ended(self, *, committed: bool | None) -> None:
        lease = self._lease
        if lease.session is not None:
            session_state.transaction_ended(
                lease, lease.session, self._messages, committed=committed
            )

    # Blocks.

    def _hold(self, block: object) -> None:
        with self._exclusive():
            self._holds[block] = None
            self._count_holds()

    def _count_holds(self) -> None:
        """Tell the session how many blocks hold a connection."""
        lease = self._lease
        if lease.session is None and self._holds:
            lease.session = SessionLedger()
        if lease.session is not None:
            lease.session.holds = len(self._holds)

    def _release_hold(self, block: object) -> None:
        with self._exclusive():
            lease = self._lease
            self._holds.pop(block, None)
            held = lease.session is not None and lease.session.holds > 0
            self._count_holds()
            if lease.session is None or self._holds:
                return
            if lease.connection is None:
                lease.session = None
            elif held:
                # Of what functions have done to it, nobody knows.
                lease.session.dirty()
                self._settle()
                self._undo_in_place()

    def _undo_in_place(self) -> None:
        """Undo session state now, if the lease goes on for its release mode alone."""
        lease = self._lease
        session = lease.session
        if (
            lease.connection is None
            or session is None
            or session.keeps
            or self.in_atomic_block
            or not self.autocommit
            or self._status() != TransactionStatus.IDLE
            or (lease.pins and self._policy.release != "cursor")
            or any(open_cursor is not None for open_cursor in lease.pins.values())
        ):
            return
        if self._undo(lease):
            lease.clean()
        else:
            lease.pins.clear()
            self._perform(lease.send(Event.LOST))

    def _on_override_exit(self, policy: ReleasePolicy) -> None:
        with self._exclusive():
            if self._lease.connection is not None and self._policy is policy:
                self._choose_policy()
                self._settle()
