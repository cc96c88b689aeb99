"""Tracked settings: replays a backend's SET in each session that its wrapper leases.

A backend such as django-tenants sets the ``search_path`` in ``_cursor()`` and expects statements
to run in the same session. Here each statement may run in another one. So the wrapper records such
a SET instead of running it, and replays it in the leased session before a statement, unless it is
in force there already. The setting stays when the lease ends: a connection remembers what was set
in its session, and the next wrapper changes only what differs. So these settings do not count as
session state and never keep a lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from relet.backends.leases.ending import leased
from relet.backends.leases.runner import LeaseRunner
from relet.backends.temporarily import temporarily
from relet.backends.wrapper.cursor import LeasedCursor
from relet.core import Lease, PoolAdapter, PooledConnection, TransactionStatus
from relet.core.session.baseline import reset
from relet.core.sql.classifier import EFFECTS
from relet.core.sql.effects import ALL, Change, Effects, Kind

if TYPE_CHECKING:
    from django.db.backends.utils import CursorWrapper

    from relet.backends.wrapper.wrapper import LeasingWrapper
else:
    LeasingWrapper = object

IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION


class Setting(NamedTuple):
    """A statement that changes settings, and the names of these settings."""

    names: frozenset[str]
    sql: Any
    params: Any


class TrackedSettings:
    """The tracked settings that are in force in one session.

    :ivar current: the settings in force, in the order in which they were made; None if unknown.
    :ivar names: the names of all settings that were ever made in it.
    :ivar overridden: whether the current lease has changed settings itself.
    """

    __slots__ = ("current", "names", "overridden")

    def __init__(self) -> None:
        self.current: tuple[Setting, ...] | None = ()
        self.names: frozenset[str] = frozenset()
        self.overridden = False


class SettingsReplay(LeasingWrapper):
    """A mixin above a backend that has a ``_cursor()`` of its own."""

    runner_class: ClassVar[type[LeaseRunner]]

    # The API that the backend uses.

    def _cursor(self, name: str | None = None) -> CursorWrapper:
        runner: Any = self._runner
        # Exclusive, or statements of another thread would be taken for the backend's.
        with runner.exclusive():
            runner.forget_if_outdated()
            make = partial(super()._cursor, name)
            # Receivers of connection_created make cursors too, while internal access is on.
            return temporarily(runner, make, making_cursor=True, internal_access=False)

    @property
    def connection(self) -> Any:
        runner: Any = getattr(self, "_runner", None)
        if runner is not None and runner.making_cursor and not runner.internal_access:
            # For a server-side cursor, the backend makes a second cursor to run its SET.
            return _ConnectionProxy(self)
        return super().connection

    @connection.setter
    def connection(self, raw: Any) -> None:
        super(SettingsReplay, type(self)).connection.fset(self, raw)  # type: ignore[attr-defined]

    def close(self) -> None:
        super().close()
        # In Django, close() ends the session and its settings. Not cleared now, because a cursor
        # made before close() may be used again.
        self._runner.outdated = True  # type: ignore[attr-defined]

    def connect(self) -> None:
        runner: Any = self._runner
        if runner.initializing is None:
            runner.forget_if_outdated()
        super().connect()


class ReplayingRunner(LeaseRunner):
    """A runner that replays the wrapper's tracked settings in each session it leases."""

    def __init__(self, host: Any) -> None:
        #: The wrapper's settings, on any connection.
        self.tracked: tuple[Setting, ...] = ()
        #: Whether `close` was called since they were tracked.
        self.outdated = False
        #: Whether the backend is making a cursor.
        self.making_cursor = False
        super().__init__(host)

    def tracks(self, effects: Effects, sql: Any, params: object) -> bool:
        if not self.making_cursor:
            return False
        names = {_setting_name(step) for step in effects.resolve(params, None)}
        if not names or None in names or not effects.single:
            return False
        others = (other for other in self.tracked if not other.names <= names)
        self.tracked = (*others, Setting(frozenset(map(str, names)), sql, _copy(params)))
        return True

    def _judge(self, text: str) -> Effects | None:
        if self.making_cursor:
            return EFFECTS[text]  # no lease: it is tracked, and replayed in the one that follows
        return super()._judge(text)

    def forget_if_outdated(self) -> None:
        """Drop settings that were tracked before `close`."""
        if self.outdated:
            self.tracked, self.outdated = (), False

    # Every place where a lease begins or its connection is handed out.

    def open(self) -> None:
        super().open()
        try:
            self.effects.look_anywhere()  # the replayed settings may be the search path
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
        # Before BEGIN, because ROLLBACK would undo the settings.
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
        # The tracked settings may have changed since the lease began.
        with self.exclusive():
            self._replay(self.lease)
        return raw

    def initialize_connection(self, lease: Lease) -> None:
        temporarily(self, partial(super().initialize_connection, lease), making_cursor=False)

    def _replay(self, lease: Lease) -> None:
        """Make the tracked settings in the leased session, unless they are in force there."""
        connection, pool = leased(lease)
        found: TrackedSettings | None = connection.tracked_settings
        if found is None:
            found = connection.tracked_settings = TrackedSettings()
        wanted = self.tracked
        if found.current == wanted or self.initializing is not None:
            return
        status = pool.transaction_status(connection.raw)
        if status not in (IDLE, IN_TRANSACTION):
            return  # after an error, only ROLLBACK can run
        names = frozenset(name for setting in wanted for name in setting.names)
        undone = sorted(found.names - names)
        found.names |= names
        found.current = None
        if status == IN_TRANSACTION:
            # Rolling back to a savepoint may undo the settings, so `current` stays unknown and
            # each statement makes them again.
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
                with suppress(self.Database.Error):  # the connection may be lost
                    connection.raw.autocommit = False
                raise
        found.current = wanted

    def _set(
        self,
        connection: PooledConnection,
        pool: PoolAdapter[Any],
        undone: list[str],
        wanted: tuple[Setting, ...],
    ) -> None:
        """Reset *undone* and make *wanted* in order, in one round trip if none has parameters."""
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
        if pool.plans is not None:
            # All sessions have these in turn, so each prepares for each.
            made = tuple((pool.sql_text(one.sql), repr(one.params)) for one in wanted)
            pool.plans.restored(connection.raw, made)

    # Other changes of the session.

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
                connection.tracked_settings.overridden = True
                if step.undoes:
                    # RESET and DISCARD also drop the tracked settings.
                    connection.tracked_settings.current = None

    def undo(self, lease: Lease) -> bool:
        found = leased(lease)[0].tracked_settings
        if found is not None and lease.session is not None and lease.session.left:
            found.current = None
        return super().undo(lease)

    def checkin(self, lease: Lease, connection: PooledConnection, pool: PoolAdapter[Any]) -> None:
        found = connection.tracked_settings
        if found is not None and found.overridden:
            found.current, found.overridden = None, False
        super().checkin(lease, connection, pool)


class _ConnectionProxy:
    """The driver's connection as a backend sees it while it makes a cursor."""

    def __init__(self, db: SettingsReplay) -> None:
        self._db = db

    def cursor(self) -> LeasedCursor:
        return LeasedCursor(self._db._runner)

    def __getattr__(self, name: str) -> Any:
        raw = temporarily(self._db._runner, lambda: self._db.connection, internal_access=True)
        return getattr(raw, name)


def _setting_name(step: object) -> str | None:
    """Return the name of the one setting that *step* changes; None for any other step."""
    if not isinstance(step, Change) or step.kind is not Kind.SETTING or step.name in (None, ALL):
        return None
    name = "".join(map(str, step.name))
    # SET SESSION CHARACTERISTICS changes several settings and is not the name of one.
    return None if name == "default_transaction" else name


def _copy(params: object) -> object:
    if isinstance(params, Mapping):
        return dict(params)
    return tuple(params) if isinstance(params, (list, tuple)) else params


SettingsReplay.runner_class = ReplayingRunner
