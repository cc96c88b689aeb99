"""LeasingWrapper: Django's DatabaseWrapper API, over a lease.

Each method here replaces one of Django's that asks for a connection, or takes for
granted that there is one. In Django a wrapper connects with ``cursor()``,
``atomic()`` or ``get_autocommit()`` and stays so until ``close()``. Here none of
these takes a connection; what they change is kept in the wrapper, and the first
statement finds it so.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from asyncio import _get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.db import DatabaseError, transaction
from django.db.backends.utils import debug_transaction
from django.db.transaction import TransactionManagementError
from django.utils.asyncio import async_unsafe

from relet.backends.config import credentials
from relet.backends.config.options import check_connect
from relet.backends.leases.runner import RUNNING
from relet.backends.leases.session_tracking import Stateful
from relet.backends.pools import copy_settings, pools
from relet.backends.temporarily import temporarily
from relet.core import Event, PoolAdapter, State, TransactionStatus

from .connection import LeasedConnection
from .creation import PooledCreation
from .cursor import LeasedCursor, LeasedCursorWrapper, LeasedServerCursor
from .schema import PooledSchemaEditor

if TYPE_CHECKING:
    from django.db.backends.utils import CursorWrapper

    from relet.core import ReleasePolicy


def _is_called(raw: Any) -> bool:
    """Whether this thread is in the middle of a method of *raw*, a driver's connection."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_varnames[:1] == ("self",) and frame.f_locals.get("self") is raw:
            return True
        frame = frame.f_back
    return False


@async_unsafe
def _refuse_coroutine() -> None:
    """Raise what Django does where an event loop runs, unless it is told that this is safe."""


def _drivers(settings: dict[str, Any]) -> dict[str, Any]:
    """Return *settings* with what is the driver's in ``OPTIONS``, and nothing else."""
    options = {
        key: value for key, value in settings["OPTIONS"].items() if key not in ("pool", "policy")
    }
    return {**settings, "OPTIONS": options}


def _makes_plain_cursors(backend: Any) -> bool:
    """Whether the connection's own cursors do, where its time zone is the wrapper's."""
    if hasattr(backend, "plain_cursors"):
        return bool(backend.plain_cursors)
    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    # With psycopg2, Django tells each cursor its time zone.
    return backend.create_cursor is DatabaseWrapper.create_cursor and is_psycopg3


class _Handed:
    """Stands in for the pool while Django's connect() runs for a new connection."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def open(self) -> None:
        pass

    def getconn(self) -> Any:
        return self._raw


class LeasingWrapper(Stateful):
    """Mixed into a Django backend's ``DatabaseWrapper`` by `relet.backends.build`."""

    #: Whether cursors are made in the way of the driver's own backend.
    _drivers_cursors = True
    #: Whether that is the connection's own, with nothing done to them.
    _plain_cursors = False
    #: Whether the adapter knows what connections tell of themselves.
    _tells_facts = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._tells_facts = cls.adapter_class.facts is not PoolAdapter.facts
        cls._drivers_cursors = cls.create_cursor is cls.driver_backend.create_cursor
        cls._plain_cursors = cls._drivers_cursors and _makes_plain_cursors(cls.driver_backend)
        for attribute, mixin in (
            ("client_class", credentials.AskingClient),
            ("creation_class", PooledCreation),
            ("SchemaEditorClass", PooledSchemaEditor),
        ):
            theirs = getattr(cls, attribute)
            if not issubclass(theirs, mixin):
                setattr(cls, attribute, type(theirs.__name__, (mixin, theirs), {}))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._init_lease()

    def copy(self, alias: str | None = None) -> Any:
        # Django's goes deep: a connector, or a function with a client in it, cannot be copied.
        return type(self)(copy_settings(self.settings_dict), self.alias if alias is None else alias)

    # The connection.

    @property
    def connection(self) -> Any:
        """What stands for the driver's connection, or None while there is no lease.

        Inside a transaction there always is one: looking for it begins the lease. Where
        django-debug-toolbar is installed there always is something, for its SQL panel looks at it
        before each statement; a lease begins when it is used.
        """
        try:
            lease = self._lease
        except AttributeError:
            return None  # Django's __init__ is at work
        if lease.connection is None and (
            self.closed_in_transaction
            or not (self._in_transaction or "debug_toolbar" in django_settings.INSTALLED_APPS)
        ):
            return None
        stands = self._tells_facts and not self._trusted and self._introducing is None
        if lease.connection is None and (self._in_transaction or not stands):
            self.connect()
        if stands:
            return LeasedConnection(self)
        return lease.connection.raw if self._trusted else self._lend()  # type: ignore[union-attr]

    @connection.setter
    def connection(self, raw: Any) -> None:
        if raw is None:
            # Django's way to say: forget it, at the end of a block that was closed inside.
            self._fresh = True
            if hasattr(self, "_lease"):
                self._begin_session()
        elif raw is not self._introducing:
            raise AttributeError("relet leases connections from a pool; none can be set.")

    @property
    def _in_transaction(self) -> bool:
        """Whether Django has begun a transaction, and not ended it."""
        return self.in_atomic_block or not (self.autocommit or self._fresh)

    @async_unsafe
    def connect(self) -> None:
        """Take a connection; it is kept until the next statement has ended."""
        if self._introducing is not None:
            super().connect()
            return
        self._begin_session()
        with self.wrap_database_errors:
            self._open_lease()

    def get_connection_params(self) -> dict[str, Any]:
        # Django takes offence at a pool where the driver is psycopg2.
        settings = self.settings_dict
        drivers = credentials.strip_callables(_drivers(settings))
        parameters = temporarily(self, super().get_connection_params, settings_dict=drivers)
        check_connect(self.alias, settings, self.adapter_class, parameters)
        return parameters

    def is_usable(self) -> bool:
        lease = self._lease
        if lease.connection is None and self._closed:
            return False
        # Connected, as Django sees it.
        try:
            with self.temporary_connection():
                ask = partial(self._call, super().is_usable)
                return temporarily(self, ask, _trusted=True)
        except self.Database.Error:
            return False

    @contextmanager
    def temporary_connection(self) -> Iterator[CursorWrapper]:
        with self.cursor() as cursor:
            cursor.cursor.driver_cursor()
            yield cursor

    def close_if_health_check_failed(self) -> None:
        """Nothing: connections are checked when they are taken from the pool."""

    def close_if_unusable_or_obsolete(self) -> None:
        if not self._fresh:
            self.close()

    @async_unsafe
    def close(self) -> None:
        if self._thread_ident != get_ident():
            self.validate_thread_sharing()
        self.run_on_commit = []
        if self.closed_in_transaction:
            return
        lease = self._lease
        if lease.connection is None and lease.state is State.RELEASED and not self.in_atomic_block:
            # At rest: so it is at the end of most requests.
            self._closed = self._fresh = True
            lease.pool = None
            return
        if self._introducing is not None or (
            lease.connection is None and lease.state is not State.RELEASED
        ):
            # From the handler of a signal, or a receiver of connection_created: a connection is
            # being taken, and closed when that has come to its end.
            self._leave(LeasingWrapper.close)
            return
        if self._is_busy() and _is_called(lease.connection.raw):  # type: ignore[union-attr]
            # From the handler of a signal.
            self._cut_off()
            return
        try:
            self._close()
        finally:
            if self.in_atomic_block:
                self.closed_in_transaction = True
                self.needs_rollback = True
            else:
                self._fresh = True
        self._tell()

    def _close(self) -> None:
        with self.wrap_database_errors:
            self._close_lease()

    def _forked(self, in_transaction: bool) -> None:
        """This process is a child: the lease is gone, and with it any transaction."""
        self._closed, self._handle = True, None
        self._pending_savepoints = []
        self.run_on_commit = []
        if self._guard is not None:
            self._guard = threading.RLock()
        if self.in_atomic_block:
            self.closed_in_transaction = True
        if self.in_atomic_block or in_transaction:
            self.needs_rollback = self._forked_inside = True

    def validate_no_broken_transaction(self) -> None:
        if self.needs_rollback and self._forked_inside:
            self._refuse_forked()
        super().validate_no_broken_transaction()

    def _refuse_forked(self) -> None:
        raise TransactionManagementError(
            f"DATABASES[{self.alias!r}]: this process was forked inside a transaction, which is "
            "its parent's and goes on there. Fork outside of atomic(), or leave the block in this "
            "process first; where there is no block, call rollback() or close()."
        )

    # Cursors.

    def cursor(self) -> CursorWrapper:
        # Django's own learns from an exception, for each cursor, that no event loop runs.
        if _get_running_loop() is not None:
            return super().cursor()
        return self._cursor()

    def make_cursor(self, cursor: Any) -> CursorWrapper:
        return LeasedCursorWrapper(cursor, self)

    def _cursor(self, name: str | None = None) -> CursorWrapper:
        if self._fresh:
            self._begin_session()
        # What follows is _prepare_cursor(), without a lock for each cursor.
        if self._thread_ident != get_ident():
            self.validate_thread_sharing()
        cursor: Any = LeasedCursor(self) if name is None else LeasedServerCursor(self, name)
        make = self.make_debug_cursor if self.queries_logged else self.make_cursor
        return make(cursor)

    def _other_cursor(self, name: str | None) -> Any:
        """A driver's cursor that Django, or the backend, is to make."""
        cursor = temporarily(self, partial(self.create_cursor, name), _trusted=True)
        if not self._drivers_cursors and getattr(cursor, "statusmessage", None) is not None:
            # The backend ran something on it: nobody knows what.
            self._expose()
        return cursor

    # Transactions.

    def get_autocommit(self) -> bool:
        if _get_running_loop() is not None:
            _refuse_coroutine()
        self._begin_session()
        return self.autocommit

    def set_autocommit(
        self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False
    ) -> None:
        if _get_running_loop() is not None:
            _refuse_coroutine()
        self.validate_no_atomic_block()
        self._begin_session()
        if autocommit:
            if self._lease.connection is not None and self._is_left_open():
                self._rollback()
            self._set_autocommit(autocommit)
        else:
            with debug_transaction(self, "BEGIN"):
                self._set_autocommit(autocommit)
        if autocommit and self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False
        self._tell()

    def _is_left_open(self) -> bool:
        """Whether an atomic block is being left whose COMMIT or ROLLBACK was interrupted.

        Then the driver would refuse the change, and its error replace the interrupt.
        """
        if self._status() not in (TransactionStatus.IN_TRANSACTION, TransactionStatus.IN_ERROR):
            return False
        # Frames: this, set_autocommit(), and whoever has called that.
        return sys._getframe(2).f_code is transaction.Atomic.__exit__.__code__

    def _set_autocommit(self, autocommit: bool) -> None:
        """Change it, here and on the connection, if one is leased: both, or none."""
        before = self.autocommit
        try:
            self.autocommit = autocommit
            self._tell_driver()
        except BaseException:
            self.autocommit = before
            with suppress(self.Database.Error, DatabaseError):
                self._tell_driver()
            raise

    def _tell_driver(self) -> None:
        connection = self._lease.connection
        if (
            connection is not None
            and connection.raw.autocommit is not self.autocommit
            # One that is lost is told nothing: its error would replace what has lost it.
            and self._status() != TransactionStatus.UNKNOWN
        ):
            with self.wrap_database_errors:
                self._call(setattr, connection.raw, "autocommit", self.autocommit)

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
        if self._lease.state in RUNNING:
            # From the handler of a signal: it cannot be done now, and says so.
            self._lease.send(Event.STATEMENT)
        try:
            if not self._fresh:
                with debug_transaction(self, sql), self.wrap_database_errors:
                    self._end_driver_transaction(sql)
            self._end_transaction()
        except BaseException:
            self._end_transaction()
            raise

    def _end_driver_transaction(self, sql: str) -> None:
        lease = self._lease
        if lease.connection is None:
            return
        end = getattr(lease.connection.raw, sql.lower())
        if lease.session is None:
            self._call(end)
            return
        self._end_with_state(end, committing=sql == "COMMIT")

    def _savepoint(self, sid: str) -> None:
        if self._lease.connection is None and self.in_atomic_block:
            self.validate_no_broken_transaction()
            with debug_transaction(self, self.ops.savepoint_create_sql(sid)):
                self._pending_savepoints.append(sid)
        else:
            super()._savepoint(sid)

    def _savepoint_rollback(self, sid: str) -> None:
        if sid in self._pending_savepoints:
            with debug_transaction(self, self.ops.savepoint_rollback_sql(sid)):
                del self._pending_savepoints[self._pending_savepoints.index(sid) + 1 :]
        else:
            super()._savepoint_rollback(sid)

    def _savepoint_commit(self, sid: str) -> None:
        if sid in self._pending_savepoints:
            with debug_transaction(self, self.ops.savepoint_commit_sql(sid)):
                del self._pending_savepoints[self._pending_savepoints.index(sid) :]
        else:
            super()._savepoint_commit(sid)

    # Blocks that hold a connection: `relet.hold` and `relet.policies`.

    @async_unsafe("There is an event loop here: use 'async with', or sync_to_async().")
    def hold(self, block: object = None) -> None:
        """Keep one connection, from the next statement on, until `release_hold`.

        :param block: what `release_hold` will be given. By default holds are only counted.
        """
        if self._thread_ident != get_ident():
            self.validate_thread_sharing()
        self._hold(object() if block is None else block)

    def release_hold(self, block: object = None) -> None:
        """End one `hold`; with the last, session state is undone and the lease ends.

        Called by another thread, or in the middle of something, it ends when that does.
        """
        if block is None:
            if not self._holds:
                return
            block = next(reversed(self._holds))
        with self.wrap_database_errors:
            self._leave(lambda owner: owner._release_hold(block))
        self._tell()

    def on_override_exit(self, policy: ReleasePolicy) -> None:
        """A block that overrode the policy by *policy* is left, by whichever thread."""
        with self.wrap_database_errors:
            self._leave(lambda owner: owner._on_override_exit(policy))

    # Threads.

    def inc_thread_sharing(self) -> None:
        super().inc_thread_sharing()
        self._lease.shared = True
        if self._guard is None:
            self._guard = threading.RLock()
        self._detour = True

    def dec_thread_sharing(self) -> None:
        super().dec_thread_sharing()
        if not self.allow_thread_sharing:
            self._lease.shared = False
            self._guard = None
            self._detour = bool(self._notes)

    # Pools. Django's own names.

    @property
    def pool(self) -> Any:
        if self._introducing is not None:
            return _Handed(self._introducing)
        return self._find_pool().pool.native

    def close_pool(self) -> None:
        pools.close_alias(self.alias)

    @contextmanager
    def _nodb_cursor(self) -> Iterator[CursorWrapper]:
        """A cursor beside any pool: it is for creating and dropping databases."""
        settings = credentials.resolve_credentials(self.alias, _drivers(self.settings_dict))
        plain = self.plain_backend(settings, alias=self.alias)
        with plain._nodb_cursor() as cursor:
            yield cursor
