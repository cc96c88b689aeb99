"""Stateful: keeps account, in a wrapper's lease, of what its statements leave in the session.

What is left keeps the lease or not, as the policy says; `leasing` undoes it when the lease
ends. So does what `relet.core.hold` and `relet.core.policies` begin and end: their blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relet.core import Event, ReleasePolicy, TransactionStatus
from relet.core.classifier import EFFECTS
from relet.core.effects import Effects
from relet.core.session import SessionState

from . import session_state
from .leasing import Leasing


class Stateful(Leasing):
    """The part of the wrapper that knows of session state. Off the hot path, all of it."""

    # Statements with effects.

    def _effects_of(self, query: Any) -> Effects | None:
        """Return what *query* leaves in the session, if anything."""
        return EFFECTS[query if query.__class__ is str else self.adapter_class.text(query)]

    def _carries(self, effects: Effects, query: Any, params: object) -> bool:
        """Whether a statement is not to run, but goes with the wrapper: see `carried`."""
        return False

    def _expect(self, effects: Effects, query: Any, params: object) -> None:
        """A statement with *effects* is about to run: refuse it, or warn."""
        if self._introducing is not None:
            return
        lease = self._lease
        if effects.reads_sequence and lease.connection is None:
            session_state.warn_of_sequence(self.alias, effects, query)
        if lease.session is None or not lease.session.holds:
            policy = self._policy if lease.connection is not None else self._next_policy()
            session_state.refuse(self.alias, policy, effects.resolve(params, None), query)

    def _ran(
        self,
        effects: Effects,
        query: Any,
        params: object,
        driver: Any,
        before: int,
        ok: bool | None,
    ) -> None:
        """A statement with *effects* has run, well or not; None is that an interrupt came."""
        lease = self._lease
        connection, pool = lease.connection, lease.pool
        if self._introducing is not None:
            self._configured.update(session_state.settings_made(effects.resolve(params, None)))
            return
        if connection is None or pool is None:
            return
        session_state.account(
            lease,
            self._policy,
            effects.resolve(params, pool.truths(driver) if ok and driver is not None else None),
            query,
            before=before,
            after=pool.transaction_status(connection.raw),
            ok=ok,
            single=effects.single,
        )

    def _expose(self) -> None:
        """The driver's connection is handed out: of what is done with it, nobody knows."""
        lease = self._lease
        if self._introducing is None and lease.connection is not None:
            if lease.session is None:
                lease.session = SessionState()
            lease.session.dirty()

    def _closing(self, pin: object) -> None:
        """The server-side cursor that *pin* is of is about to be closed."""
        lease = self._lease
        pinned = lease.connection is not None and pin in lease.pins
        if pinned and self._status() == TransactionStatus.IN_ERROR:
            # It cannot be closed now, and one WITH HOLD outlives the transaction.
            self._expose()

    def _end_with_state(self, end: Callable[[], object], *, committing: bool) -> None:
        """Call *end*, the driver's commit or rollback, where there is session state."""
        lease = self._lease
        connection, pool = self._leased(lease)
        # COMMIT rolls back what has failed, and does not say so.
        committing &= pool.transaction_status(connection.raw) != TransactionStatus.IN_ERROR
        committed: bool | None = None
        try:
            end()
            committed = committing
        except self.Database.Error:
            committed = False
            raise
        finally:
            if lease.session is not None:
                session_state.transaction_ended(lease, lease.session, committed=committed)

    # Blocks.

    def _hold(self) -> None:
        with self._exclusive():
            if self._lease.session is None:
                self._lease.session = SessionState()
            self._lease.session.holds += 1

    def _let_go(self) -> None:
        with self._exclusive():
            lease = self._lease
            session = lease.session
            if session is None or not session.holds:
                return
            session.holds -= 1
            if session.holds:
                return
            if lease.connection is None:
                lease.session = None
            else:
                # Of what functions have done to it, nobody knows.
                session.dirty()
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

    def _overridden(self, policy: ReleasePolicy) -> None:
        with self._exclusive():
            if self._lease.connection is not None and self._policy is policy:
                self._choose_policy()
                self._settle()
