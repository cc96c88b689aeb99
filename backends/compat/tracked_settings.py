"""Carried: what a backend SETs whenever it makes a cursor goes with the wrapper.

A backend such as django-tenants sets the ``search_path`` in ``_cursor()``, and takes for
granted that statements run in the session where it did so. Here each may run in another.
So such a SET does not run when the backend asks for it. The wrapper keeps it, and before a
statement it is made in the session that is leased, unless it has been already. It stays
there when the lease ends: a connection remembers what was made in its session, and the next
wrapper changes what differs. So it is no session state, and keeps no lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from relet.backends.temporarily import temporarily
from relet.backends.wrapper.cursor import LeasedCursor
from relet.core import Lease, PoolAdapter, PooledConnection, TransactionStatus
from relet.core.session.baseline import reset
from relet.core.sql.effects import ALL, Change, Effects, Kind

if TYPE_CHECKING:
    from django.db.backends.utils import CursorWrapper

    from relet.backends.wrapper.wrapper import LeasingWrapper
else:
    LeasingWrapper = object

IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION


@dataclass(frozen=True)
class Setting:
    """A statement that sets something, and the names of what it sets."""

    names: frozenset[str]
    sql: Any
    params: Any


class Carried:
    """What was made in one session, by whichever wrappers had it.

    :ivar made: settings that hold in it, in the order they were made; None if in doubt.
    :ivar names: of all that was ever made in it.
    :ivar doubted: whether its owner has set something, too, which holds until the lease ends.
    """

    __slots__ = ("doubted", "made", "names")

    def __init__(self) -> None:
        self.made: tuple[Setting, ...] | None = ()
        self.names: frozenset[str] = frozenset()
        self.doubted = False


class Carrying(LeasingWrapper):
    """Mixed in above a backend that has a ``_cursor()`` of its own."""

    #: What holds for this wrapper, on whatever connection.
    _carried: tuple[Setting, ...] = ()
    #: Whether that was before `close`.
    _stale = False
    #: Whether the backend is at work on a cursor.
    _making = False

    # What the backend sees.

    def _cursor(self, name: str | None = None) -> CursorWrapper:
        # Else the statements of another thread would be taken for the backend's.
        with self._exclusive():
            self._forget()
            make = partial(super()._cursor, name)
            # In Django's connect(), which is trusted, receivers make cursors, too.
            return temporarily(self, make, _making=True, _trusted=False)

    @property
    def connection(self) -> Any:
        if self._making and not self._trusted:
            # The SET of a server-side cursor's session needs a cursor of its own.
            return _Connection(self)
        return super().connection

    @connection.setter
    def connection(self, raw: Any) -> None:
        super(Carrying, type(self)).connection.fset(self, raw)  # type: ignore[attr-defined]

    def _lend(self) -> Any:
        raw = super()._lend()
        # What is carried may be other than when it was leased.
        with self._exclusive():
            self._carry(self._lease)
        return raw

    def _carries(self, effects: Effects, sql: Any, params: object) -> bool:
        """Whether a statement is the backend's SET, which is kept and not run."""
        if not self._making:
            return False
        names = {_setting(step) for step in effects.resolve(params, None)}
        if not names or None in names or not effects.single:
            return False
        others = (other for other in self._carried if not other.names <= names)
        self._carried = (*others, Setting(frozenset(map(str, names)), sql, _copy(params)))
        return True

    def close(self) -> None:
        super().close()
        # As in Django, where the session is gone. But a cursor from before may be used again.
        self._stale = True

    def connect(self) -> None:
        if self._introducing is None:
            self._forget()
        super().connect()

    def _forget(self) -> None:
        """Carry nothing any more, if that was before `close`."""
        if self._stale:
            self._carried, self._stale = (), False

    # Leases.

    def _open_lease(self) -> None:
        super()._open_lease()
        try:
            with self._exclusive():
                if self._lease.connection is not None:
                    self._carry(self._lease)
        except BaseException:
            self._close_lease()
            raise

    def _begin(self, cursor: LeasedCursor) -> Any:
        raw = super()._begin(cursor)
        self._carry(self._lease)
        return raw

    def _begin_transaction(self, lease: Lease) -> None:
        # Before, for ROLLBACK would take it back.
        self._carry(lease)
        super()._begin_transaction(lease)

    def _pin(self, pin: object) -> Any:
        raw = super()._pin(pin)
        try:
            with self._exclusive():
                self._carry(self._lease)
        except BaseException:
            self._unpin(pin)
            raise
        return raw

    def _introduce(self, outer: Lease) -> None:
        temporarily(self, partial(super()._introduce, outer), _making=False)

    def _carry(self, lease: Lease) -> None:
        """Make what is carried in the session that is leased, if it is not there."""
        connection, pool = self._leased(lease)
        carried: Carried | None = connection.tracked_settings
        if carried is None:
            carried = connection.tracked_settings = Carried()
        wanted = self._carried
        if carried.made == wanted or self._introducing is not None:
            return
        status = pool.transaction_status(connection.raw)
        if status not in (IDLE, IN_TRANSACTION):
            return  # after an error, nothing but ROLLBACK runs
        names = frozenset(name for setting in wanted for name in setting.names)
        undone = sorted(carried.names - names)
        carried.names |= names
        carried.made = None
        if status == IN_TRANSACTION:
            # It may be rolled back, to any savepoint: so each statement makes it anew.
            self._make(connection, pool, undone, wanted)
            return
        if connection.raw.autocommit:
            self._make(connection, pool, undone, wanted)
        else:
            try:
                connection.raw.autocommit = True
                self._make(connection, pool, undone, wanted)
                connection.raw.autocommit = False
            except BaseException:
                with suppress(self.Database.Error):  # it may be lost
                    connection.raw.autocommit = False
                raise
        carried.made = wanted

    def _make(
        self,
        connection: PooledConnection,
        pool: PoolAdapter[Any],
        undone: list[str],
        wanted: tuple[Setting, ...],
    ) -> None:
        """Take back *undone*, and make *wanted* in order, in one round trip where it can be."""
        plain = [reset(name, connection.baseline) for name in undone]
        for setting in wanted:
            if setting.params is None:
                plain.append(pool.sql_text(setting.sql))
                continue
            if plain:
                pool.execute_internal(connection.raw, "; ".join(plain))
                plain = []
            self._other_cursor(None).execute(setting.sql, setting.params)
        if plain:
            pool.execute_internal(connection.raw, "; ".join(plain))

    # What else happens to a session.

    def _ran(self, effects: Effects, query: Any, params: object, *rest: Any) -> None:
        super()._ran(effects, query, params, *rest)
        connection = self._lease.connection
        if (
            connection is None
            or connection.tracked_settings is None
            or self._introducing is not None
        ):
            return
        for step in effects.resolve(params, None):
            if isinstance(step, Change) and step.kind is Kind.SETTING:
                connection.tracked_settings.doubted = True
                if step.undoes:
                    # RESET, DISCARD: others must not find the session bare.
                    connection.tracked_settings.made = None

    def _undo(self, lease: Lease) -> bool:
        connection = self._leased(lease)[0]
        if (
            connection.tracked_settings is not None
            and lease.session is not None
            and lease.session.left
        ):
            connection.tracked_settings.made = None
        return super()._undo(lease)

    def _checkin(self, lease: Lease, connection: PooledConnection, pool: PoolAdapter[Any]) -> None:
        if connection.tracked_settings is not None and connection.tracked_settings.doubted:
            connection.tracked_settings.made, connection.tracked_settings.doubted = None, False
        super()._checkin(lease, connection, pool)


class _Connection:
    """What a backend sees as the driver's connection while it makes a cursor."""

    def __init__(self, db: Carrying) -> None:
        self._db = db

    def cursor(self) -> LeasedCursor:
        return LeasedCursor(self._db)

    def __getattr__(self, name: str) -> Any:
        raw = temporarily(self._db, lambda: self._db.connection, _trusted=True)
        return getattr(raw, name)


def _setting(step: object) -> str | None:
    """Return the name of the setting that *step* changes, if that is all it does."""
    if not isinstance(step, Change) or step.kind is not Kind.SETTING or step.name in (None, ALL):
        return None
    name = "".join(map(str, step.name))
    # SET SESSION CHARACTERISTICS sets several, and the server has none by that name.
    return None if name == "default_transaction" else name


def _copy(params: object) -> object:
    if isinstance(params, Mapping):
        return dict(params)
    return tuple(params) if isinstance(params, (list, tuple)) else params
