"""Tracked settings: what a backend SETs whenever it makes a cursor goes with the wrapper.

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
from typing import TYPE_CHECKING, Any, ClassVar

from relet.backends.leases.ending import leased
from relet.backends.leases.runner import LeaseRunner
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


class TrackedSettings:
    """What was set in one session, by whichever wrappers had it.

    :ivar made: settings that hold in it, in the order they were made; None if in doubt.
    :ivar names: of all that was ever set in it.
    :ivar doubted: whether its owner has set something, too, which holds until the lease ends.
    """

    __slots__ = ("doubted", "made", "names")

    def __init__(self) -> None:
        self.made: tuple[Setting, ...] | None = ()
        self.names: frozenset[str] = frozenset()
        self.doubted = False


class SettingsReplay(LeasingWrapper):
    """Mixed in above a backend that has a ``_cursor()`` of its own."""

    runner_class: ClassVar[type[LeaseRunner]]

    # What the backend sees.

    def _cursor(self, name: str | None = None) -> CursorWrapper:
        runner: Any = self._runner
        # Else the statements of another thread would be taken for the backend's.
        with runner.exclusive():
            runner.forget_if_outdated()
            make = partial(super()._cursor, name)
            # In Django's connect(), which has internal access, receivers make cursors, too.
            return temporarily(runner, make, making_cursor=True, internal_access=False)

    @property
    def connection(self) -> Any:
        runner: Any = getattr(self, "_runner", None)
        if runner is not None and runner.making_cursor and not runner.internal_access:
            # The SET of a server-side cursor's session needs a cursor of its own.
            return _Connection(self)
        return super().connection

    @connection.setter
    def connection(self, raw: Any) -> None:
        super(SettingsReplay, type(self)).connection.fset(self, raw)  # type: ignore[attr-defined]

    def close(self) -> None:
        super().close()
        # As in Django, where the session is gone. But a cursor from before may be used again.
        self._runner.outdated = True  # type: ignore[attr-defined]

    def connect(self) -> None:
        runner: Any = self._runner
        if runner.initializing is None:
            runner.forget_if_outdated()
        super().connect()


class ReplayingRunner(LeaseRunner):
    """Sets in each session what the backend has set for its wrapper."""

    def __init__(self, host: Any) -> None:
        #: What holds for this wrapper, on whatever connection.
        self.tracked: tuple[Setting, ...] = ()
        #: Whether that was before `close`.
        self.outdated = False
        #: Whether the backend is at work on a cursor.
        self.making_cursor = False
        super().__init__(host)

    def tracks(self, effects: Effects, sql: Any, params: object) -> bool:
        if not self.making_cursor:
            return False
        names = {_setting(step) for step in effects.resolve(params, None)}
        if not names or None in names or not effects.single:
            return False
        others = (other for other in self.tracked if not other.names <= names)
        self.tracked = (*others, Setting(frozenset(map(str, names)), sql, _copy(params)))
        return True

    def forget_if_outdated(self) -> None:
        """Track nothing any more, if that was before `close`."""
        if self.outdated:
            self.tracked, self.outdated = (), False

    # Wherever a lease begins, or its connection is handed out.

    def open(self) -> None:
        super().open()
        try:
            with self.exclusive():
                if self.lease.connection is not None:
                    self._replay(self.lease)
        except BaseException:
            self.close()
            raise

    def begin(self, sql: object) -> Any:
        raw = super().begin(sql)
        self._replay(self.lease)
        return raw

    def begin_transaction(self, lease: Lease) -> None:
        # Before, because ROLLBACK would take it back.
        self._replay(lease)
        super().begin_transaction(lease)

    def pin(self, pin: object) -> Any:
        raw = super().pin(pin)
        try:
            with self.exclusive():
                self._replay(self.lease)
        except BaseException:
            self.unpin(pin)
            raise
        return raw

    def lend(self) -> Any:
        raw = super().lend()
        # What is tracked may be other than when it was leased.
        with self.exclusive():
            self._replay(self.lease)
        return raw

    def initialize_connection(self, lease: Lease) -> None:
        temporarily(self, partial(super().initialize_connection, lease), making_cursor=False)

    def _replay(self, lease: Lease) -> None:
        """Set what is tracked in the session that is leased, if it is not there."""
        connection, pool = leased(lease)
        found: TrackedSettings | None = connection.tracked_settings
        if found is None:
            found = connection.tracked_settings = TrackedSettings()
        wanted = self.tracked
        if found.made == wanted or self.initializing is not None:
            return
        status = pool.transaction_status(connection.raw)
        if status not in (IDLE, IN_TRANSACTION):
            return  # after an error, nothing but ROLLBACK runs
        names = frozenset(name for setting in wanted for name in setting.names)
        undone = sorted(found.names - names)
        found.names |= names
        found.made = None
        if status == IN_TRANSACTION:
            # It may be rolled back, to any savepoint: so each statement makes it anew.
            self._set(connection, pool, undone, wanted)
            return
        if connection.raw.autocommit:
            self._set(connection, pool, undone, wanted)
        else:
            try:
                connection.raw.autocommit = True
                self._set(connection, pool, undone, wanted)
                connection.raw.autocommit = False
            except BaseException:
                with suppress(self.host.Database.Error):  # it may be lost
                    connection.raw.autocommit = False
                raise
        found.made = wanted

    def _set(
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
            self.make_cursor().execute(setting.sql, setting.params)
        if plain:
            pool.execute_internal(connection.raw, "; ".join(plain))

    # What else happens to a session.

    def account(self, effects: Effects, sql: Any, params: object, *rest: Any) -> None:
        super().account(effects, sql, params, *rest)
        connection = self.lease.connection
        if (
            connection is None
            or connection.tracked_settings is None
            or self.initializing is not None
        ):
            return
        for step in effects.resolve(params, None):
            if isinstance(step, Change) and step.kind is Kind.SETTING:
                connection.tracked_settings.doubted = True
                if step.undoes:
                    # RESET, DISCARD: others must not find the session bare.
                    connection.tracked_settings.made = None

    def undo(self, lease: Lease) -> bool:
        found = leased(lease)[0].tracked_settings
        if found is not None and lease.session is not None and lease.session.left:
            found.made = None
        return super().undo(lease)

    def checkin(self, lease: Lease, connection: PooledConnection, pool: PoolAdapter[Any]) -> None:
        found = connection.tracked_settings
        if found is not None and found.doubted:
            found.made, found.doubted = None, False
        super().checkin(lease, connection, pool)


class _Connection:
    """What a backend sees as the driver's connection while it makes a cursor."""

    def __init__(self, db: SettingsReplay) -> None:
        self._db = db

    def cursor(self) -> LeasedCursor:
        return LeasedCursor(self._db._runner)

    def __getattr__(self, name: str) -> Any:
        raw = temporarily(self._db._runner, lambda: self._db.connection, internal_access=True)
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


SettingsReplay.runner_class = ReplayingRunner
