"""PoolDefinitions: what the functions, triggers and views of a pool's database leave in a session.

They are read on the pool's first connection, by the thread that opens it, before the connection is
first leased. Each further connection compares them with one cheap query. A statement of this
process that defines something makes them stale at once; they are then read before the next
statement that is not known to be harmless.
"""

from __future__ import annotations

import _thread
import threading
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from relet.core import PoolAdapter
from relet.core.catalogue.closure import Closure
from relet.core.catalogue.memo import CatalogueMemo, Definer, Either
from relet.core.catalogue.names import Catalogue
from relet.core.catalogue.queries import (
    SIGNATURE,
    SearchPath,
    Separators,
    Signature,
    read_relations,
    read_signature,
    read_sources,
    relations_query,
    sources_query,
)
from relet.core.locks import locked
from relet.core.outside import from_outside
from relet.core.status import TransactionStatus

from .idle import idle_connection
from .session_rules import sqlstate

if TYPE_CHECKING:
    from relet.core import ReleasePolicy

IDLE, UNKNOWN = TransactionStatus.IDLE, TransactionStatus.UNKNOWN
_OPEN = (TransactionStatus.IN_TRANSACTION, TransactionStatus.IN_ERROR)

#: Seconds to wait for a connection in the background.
_TIMEOUT_S = 0.1
#: In a transaction, an error of these queries must not abort it.
_SAVEPOINT = "relet_definitions"
_LEAVE = f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}; RELEASE SAVEPOINT {_SAVEPOINT}"
#: Where to return to if that is not there; and the SQLSTATE that says so.
_RETURN, _NO_SAVEPOINT = "relet_definitions_left", "3B001"
#: Seconds to wait for a thread that is reading them. It may wait for a server of PgBouncer's, which
#: the transaction of whoever waits here has.
_OTHERS_S = 1.0
#: Seconds until a thread that could not read them, or waited in vain, does so again.
_AGAIN_S = 1.0
#: Classes of errors that would come again: no right to read, or a server without what is read.
_FOR_GOOD = ("42", "0A")


class PoolDefinitions:
    """The memo of a pool, and when its catalogue was read.

    :ivar memo: the effects of texts.
    :ivar ttl: seconds after which `is_due`; None if the definitions are not read at all.
    :ivar late: whether a new connection is not as it will be before its first lease, because other
        code configures it, too.
    """

    def __init__(self, policy: ReleasePolicy, *, pooled: bool, late: bool = False) -> None:
        self.late = late
        # Without a pool, the session ends with its lease.
        self.ttl = policy.catalogue_ttl if pooled else None
        self.memo = CatalogueMemo(stale=self.ttl is not None)
        #: Why they could not be read, and whether that was told.
        self._problem, self._told = "", False
        self._lock = threading.RLock()
        #: When they were last compared, in seconds of `monotonic`.
        self._seen_at = float("-inf")
        #: When they could not be read for a reason that passes, or not be judged, in the same
        #: seconds.
        self._failed_at = float("-inf")
        #: When a thread has last waited in vain for one that was reading them, in the same seconds.
        self._gave_up_at = float("-inf")
        self._signature: str | None = None
        self._path = SearchPath()
        #: The catalogue that all transactions see.
        self._committed: Catalogue | None = None

    def set_ttl(self, ttl: float | None) -> None:
        """Set `ttl`, which the policy may change at any time."""
        if ttl is None and self.ttl is not None:
            self.memo.renew(None)
        elif ttl is not None and self.ttl is None:
            self.memo.expire()
        self.ttl = ttl

    def is_due(self, now: float) -> bool:
        """Return whether to compare them again."""
        return self.ttl is not None and now - self._seen_at > self.ttl

    def compare_soon(self, pool: PoolAdapter[Any]) -> None:
        """Compare them on an idle connection, in a thread of its own."""
        self._seen_at = monotonic()
        with suppress(RuntimeError):  # too many threads, or the interpreter is shutting down
            _thread.start_new_thread(self._compare_idle, (pool,))

    def _compare_idle(self, pool: PoolAdapter[Any]) -> None:
        # Whoever needs a connection comes first. Of errors, the next statement tells.
        with suppress(Exception), idle_connection(pool, timeout=_TIMEOUT_S) as raw:
            if raw is not None:
                self.compare(pool, raw)

    def forget(self) -> None:
        """Have them read before the next statement, changed or not."""
        self._signature = None
        self.expire()

    def begin(self, definer: Definer) -> None:
        """Record that *definer* is about to define something. Others see that when it commits."""
        if self.ttl is not None:
            self.memo.definers[definer] = None
            self.memo.clear()

    def finish(self, definer: Definer) -> None:
        """Record that all that *definer* has defined is committed, or rolled back."""
        self.memo.definers.pop(definer, None)
        self.expire()

    def is_defined_by_others(self, own: Definer) -> bool:
        """Return whether a transaction, other than that of *own*, may be defining something."""
        for other in list(self.memo.definers):
            if other() is None:
                self.finish(other)
            elif other is not own:
                return True
        return False

    def take_problem(self) -> str:
        """Return why they could not be read, the first time that this is called."""
        if not self._problem or self._told:
            return ""
        self._told = True
        return self._problem

    def expire(self) -> None:
        """Have them read before the next statement, because they may have changed."""
        if self.ttl is not None:
            self.memo.expire()

    def compare(
        self, pool: PoolAdapter[Any], raw: Any, *, tentative: bool = False, wait: bool = True
    ) -> bool:
        """Read them on *raw* unless they are as they were.

        If they cannot be read for a reason that passes, such as a lock, or not be judged, they
        stay stale.

        :param raw: a connection without a running statement, and without a failed transaction.
        :param tentative: whether its open transaction has changed some, which others do not see.
        :param wait: whether to wait a moment for a thread that is reading them.
        :return: whether what was read is what only this transaction sees.
        :raises Error: the driver's; the connection is lost.
        """
        if self.ttl is None or monotonic() - self._failed_at < _AGAIN_S:
            return False
        compare = partial(self._compare, pool, raw, tentative)
        waits = wait and monotonic() - self._gave_up_at > _AGAIN_S
        done = locked(self._lock, compare, timeout=_OTHERS_S if waits else 0)
        if done is None and waits:
            self._gave_up_at = monotonic()
        return bool(done)

    def _compare(self, pool: PoolAdapter[Any], raw: Any, tentative: bool) -> bool:
        in_transaction = pool.transaction_status(raw) != IDLE
        if begins := not in_transaction and not raw.autocommit:
            raw.autocommit = True  # else the driver would begin the caller's transaction
        left = not in_transaction
        try:
            if in_transaction:
                pool.execute_internal(raw, f"SAVEPOINT {_SAVEPOINT}")
            tentative = self._read(pool, raw, tentative)
            if in_transaction:
                pool.execute_internal(raw, _LEAVE)
                left = True
        except Exception as error:
            drivers = {type(raw).__module__.partition(".")[0]}
            if sqlstate(error) is not None:  # the server's, in a class of the driver's
                drivers.add(type(error).__module__.partition(".")[0])
            if from_outside(error, *drivers) or pool.transaction_status(raw) == UNKNOWN:
                raise
            if in_transaction:
                pool.execute_internal(raw, _LEAVE)
                left = True
            self._signature = None
            self._problem = f"{type(error).__name__}: {error}".partition("\n")[0]
            # They cannot be judged either if the error is relet's own. That must not hide effects.
            if not (sqlstate(error) or "").startswith(_FOR_GOOD):
                self._failed_at = monotonic()
                self.expire()
                return tentative
            self.memo.renew(self._committed)
        finally:
            # After an error or an interrupt. In the middle of a query, the connection is discarded.
            if not left:
                _leave_if_there(pool, raw)
            if begins and pool.transaction_status(raw) == IDLE:
                raw.autocommit = False
        self._seen_at = monotonic()
        return tentative

    def _read(self, pool: PoolAdapter[Any], raw: Any, tentative: bool) -> bool:
        signature = read_signature(pool.execute_internal(raw, SIGNATURE))
        # Other isolation levels see what there was when the transaction began.
        tentative = tentative or (
            pool.transaction_status(raw) != IDLE and signature.isolation != "read committed"
        )
        memo = self.memo
        if self._signature is not None and signature.path.schemas != self._path.schemas:
            memo.look_anywhere()  # sessions of this pool differ
        same_path = memo.looks_anywhere or signature.path == self._path
        if signature.text == self._signature and same_path and not tentative:
            if memo.stale:
                memo.renew(self._committed)
            return False
        found = self._closure(pool, raw, signature, tentative)
        if tentative:
            known = self._committed
            if memo.temporary is None:
                memo.temporary = signature.path.temporary
            memo.renew(found if known is None else Either(known, found))
        else:
            self._committed, self._signature = found, signature.text
            self._path = signature.path
            memo.temporary = signature.path.temporary
            memo.renew(found)
        return tentative

    def _closure(
        self, pool: PoolAdapter[Any], raw: Any, signature: Signature, tentative: bool
    ) -> Catalogue:
        """Read the definitions; return what has effects."""
        separators = Separators()
        query = sources_query(signature, separators)
        rows = pool.execute_internal(raw, query) if query else ()
        closure = Closure(read_sources(rows, separators, signature.path))
        relations = None
        if closure.judge():
            query = relations_query(signature, separators, temporary=tentative)
            rows = pool.execute_internal(raw, query)
            relations = read_relations(rows, separators)
        found = closure.relate(relations)
        if closure.changes_path:
            self.memo.look_anywhere()
        return found


def _leave_if_there(pool: PoolAdapter[Any], raw: Any) -> None:
    """Leave the savepoint, and its limits, after an interrupt that came before, in or after it."""
    status = pool.transaction_status(raw)
    if status not in _OPEN:
        return
    if status != TransactionStatus.IN_ERROR:  # else it is there: the error came in it
        pool.execute_internal(raw, f"SAVEPOINT {_RETURN}")
    try:
        pool.execute_internal(raw, _LEAVE)
    except Exception as error:
        if sqlstate(error) != _NO_SAVEPOINT:
            raise
        pool.execute_internal(raw, f"ROLLBACK TO SAVEPOINT {_RETURN}; RELEASE SAVEPOINT {_RETURN}")
