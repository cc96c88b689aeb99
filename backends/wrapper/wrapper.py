"""LeasingWrapper: Django's DatabaseWrapper API, over leases.

Each method here overrides a method of Django that opens a connection or assumes an open one. In
Django, ``cursor()``, ``atomic()`` and ``get_autocommit()`` connect the wrapper until ``close()``.
Here none of them takes a connection. They change the state of the wrapper, which the first
statement applies to the connection that it leases.
"""

from __future__ import annotations

from _thread import get_ident
from asyncio import _get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings as django_settings
from django.utils.asyncio import async_unsafe

from relet.backends.config import credentials
from relet.backends.config.copying import copy_settings
from relet.backends.config.observe import observe_or_default
from relet.backends.config.options import OWN_OPTIONS, check_connect, check_name
from relet.backends.leases.observed_runner import observed
from relet.backends.leases.runner import LeaseRunner
from relet.backends.leases.tagging import tagging
from relet.backends.observe import collection
from relet.backends.pools import pools
from relet.backends.temporarily import temporarily
from relet.core import PoolAdapter, State

from .connection import LeasedConnection
from .creation import PooledCreation
from .cursor import LeasedCursor
from .cursor_wrapper import LeasedCursorWrapper
from .observed_cursor import observed_cursor, observed_server_cursor
from .schema import PooledSchemaEditor
from .server_cursor import LeasedServerCursor
from .transactions import LazyTransactions

if TYPE_CHECKING:
    from django.db.backends.utils import CursorWrapper

    from relet.backends.typing import WrapperBase


def _driver_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return *settings* with only the driver's options left in ``OPTIONS``."""
    options = {key: value for key, value in settings["OPTIONS"].items() if key not in OWN_OPTIONS}
    return {**settings, "OPTIONS": options}


def _makes_plain_cursors(backend: Any) -> bool:
    """Whether ``connection.cursor()`` makes the same cursor as *backend*'s `create_cursor`.

    That holds only for a connection that has the wrapper's time zone.
    """
    if hasattr(backend, "plain_cursors"):
        return bool(backend.plain_cursors)
    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    # With psycopg2, Django sets the time zone on each cursor.
    return backend.create_cursor is DatabaseWrapper.create_cursor and is_psycopg3


class _SingleConnectionPool:
    """Replaces the pool while Django's connect() runs for a connection that is already open."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def open(self) -> None:
        pass

    def getconn(self) -> Any:
        return self._raw


class LeasingWrapper(LazyTransactions):
    """A mixin for a Django backend's ``DatabaseWrapper``; see `relet.backends.build`."""

    adapter_class: ClassVar[type[PoolAdapter[Any]]]
    #: The Django backend that this class is built on.
    plain_backend: ClassVar[type[WrapperBase]]
    #: The Django backend of the adapter's driver.
    driver_backend: ClassVar[type[WrapperBase]]
    #: The class that runs its statements.
    runner_class: ClassVar[type[LeaseRunner]] = LeaseRunner
    cursor_class: ClassVar[type[LeasedCursor]] = LeasedCursor
    server_cursor_class: ClassVar[type[LeasedServerCursor]] = LeasedServerCursor

    #: Whether `create_cursor` is the one of `driver_backend`.
    makes_drivers_cursors = True
    #: Whether ``connection.cursor()`` makes the same cursors as `create_cursor`.
    makes_plain_cursors = False
    #: Whether the adapter reports facts about connections; see `PoolAdapter.facts`.
    tells_facts = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.tells_facts = cls.adapter_class.facts is not PoolAdapter.facts
        cls.makes_drivers_cursors = cls.create_cursor is cls.driver_backend.create_cursor
        cls.makes_plain_cursors = cls.makes_drivers_cursors and _makes_plain_cursors(
            cls.driver_backend
        )
        for attribute, mixin in (
            ("client_class", credentials.CredentialsClient),
            ("creation_class", PooledCreation),
            ("SchemaEditorClass", PooledSchemaEditor),
        ):
            theirs = getattr(cls, attribute)
            if not issubclass(theirs, mixin):
                setattr(cls, attribute, type(theirs.__name__, (mixin, theirs), {}))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (observe := observe_or_default(self.alias, self.settings_dict)) is not None:
            collection.follow(self.alias, queries=observe.queries, routes=observe.routes)
            vars(self).update(
                runner_class=observed(self.runner_class),  # type: ignore[arg-type]
                cursor_class=observed_cursor(self.cursor_class),  # type: ignore[arg-type]
                server_cursor_class=observed_server_cursor(self.server_cursor_class),  # type: ignore[arg-type]
            )
        runner_class: Any = self.runner_class
        if self.settings_dict["OPTIONS"].get("tag") is True:
            runner_class = tagging(runner_class)
        self._runner = runner_class(self)

    def copy(self, alias: str | None = None) -> Any:
        # Django makes a deep copy, which fails for a connector or a function that has a client.
        return type(self)(copy_settings(self.settings_dict), self.alias if alias is None else alias)

    # The connection.

    @property
    def connection(self) -> Any:
        """The driver's connection or a proxy of it; None while there is no lease.

        Inside a transaction it is never None: reading it begins the lease. With
        django-debug-toolbar it is never None either, because its SQL panel reads it before each
        statement. The lease then begins when the proxy is used.
        """
        try:
            runner = self._runner
        except AttributeError:
            return None  # still in Django's __init__
        lease = runner.lease
        if lease.connection is None and (
            self.closed_in_transaction
            or not (self._in_transaction or "debug_toolbar" in django_settings.INSTALLED_APPS)
        ):
            return None
        internal = runner.internal_access
        proxied = self.tells_facts and not internal and runner.initializing is None
        if lease.connection is None and (self._in_transaction or not proxied):
            self.connect()
        if proxied:
            return LeasedConnection(runner)
        return lease.connection.raw if internal else self._lend()  # type: ignore[union-attr]

    @connection.setter
    def connection(self, raw: Any) -> None:
        if raw is None:
            # Django sets None at the end of an atomic block during which close() was called.
            self._unconnected = True
            if hasattr(self, "_runner"):
                self.begin_session()
        elif raw is not self._runner.initializing:
            raise AttributeError(
                f"DATABASES[{self.alias!r}]: relet leases connections from a pool; "
                "'connection' cannot be set."
            )

    def _lend(self) -> Any:
        return self._runner.lend()

    @async_unsafe
    def connect(self) -> None:
        """Lease a connection until the next statement has ended."""
        if self._runner.initializing is not None:
            super().connect()
            return
        self.begin_session()
        with self.wrap_database_errors:
            self._runner.open()

    def get_connection_params(self) -> dict[str, Any]:
        # Without the pool's options: with psycopg2, Django raises an error for them.
        settings = self.settings_dict
        check_name(self.alias, settings)
        stripped = credentials.strip_callables(_driver_settings(settings))
        parameters = temporarily(self, super().get_connection_params, settings_dict=stripped)
        check_connect(self.alias, settings, self.adapter_class, parameters)
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        raw = self._runner.initializing
        if raw is None:
            return super().get_new_connection(conn_params)
        # Django sets the isolation level of transactions here. If autocommit were on, psycopg2
        # would make it the default of the session, for other statements, too.
        raw.autocommit = False
        super().get_new_connection(conn_params)
        raw.autocommit = True
        return raw

    def is_usable(self) -> bool:
        runner = self._runner
        if runner.lease.connection is None and self._unconnected:
            return False
        # Django considers the wrapper connected, even without a lease.
        try:
            with self.temporary_connection():
                ask = partial(runner.call, super().is_usable)
                return temporarily(runner, ask, internal_access=True)
        except self.Database.Error:
            return False

    @contextmanager
    def temporary_connection(self) -> Iterator[CursorWrapper]:
        with self.cursor() as cursor:
            cursor.cursor.driver_cursor()
            yield cursor

    def close_if_health_check_failed(self) -> None:
        """Do nothing. Connections are checked when they are taken from the pool."""

    def close_if_unusable_or_obsolete(self) -> None:
        if not self._unconnected:
            self.close()

    @async_unsafe
    def close(self) -> None:
        if self._thread_ident != get_ident():
            self.validate_thread_sharing()
        self.run_on_commit = []
        if self.closed_in_transaction:
            return
        runner = self._runner
        lease = runner.lease
        if lease.connection is None and lease.state is State.RELEASED and not self.in_atomic_block:
            # No lease, as at the end of most requests.
            runner.closed = self._unconnected = True
            lease.pool = None
            return
        if runner.initializing is not None or (
            lease.connection is None and lease.state is not State.RELEASED
        ):
            # A signal handler or a receiver of connection_created calls this during a checkout.
            # Close when the checkout has ended.
            runner.leave(_close_host)
            return
        if runner.is_busy() and lease.pool.is_in_call(lease.connection.raw):  # type: ignore[union-attr]
            # A signal handler calls this during a call of the driver.
            runner.cut_off()
            return
        try:
            self._close()
        finally:
            if self.in_atomic_block:
                self.closed_in_transaction = True
                self.needs_rollback = True
            else:
                self._unconnected = True
        runner.tell()

    def _close(self) -> None:
        with self.wrap_database_errors:
            self._runner.close()

    # Cursors.

    def cursor(self) -> CursorWrapper:
        # Faster: Django's method catches an exception for each cursor if no event loop runs.
        if _get_running_loop() is not None:
            return super().cursor()
        return self._cursor()

    def make_cursor(self, cursor: Any) -> CursorWrapper:
        return LeasedCursorWrapper(cursor, self)

    def _cursor(self, name: str | None = None) -> CursorWrapper:
        if self._unconnected:
            self.begin_session()
        # As Django's _prepare_cursor(), but without taking a lock for each cursor.
        if self._thread_ident != get_ident():
            self.validate_thread_sharing()
        runner = self._runner
        cursor: Any = (
            self.cursor_class(runner) if name is None else self.server_cursor_class(runner, name)
        )
        make = self.make_debug_cursor if self.queries_logged else self.make_cursor
        return make(cursor)

    # Blocks that hold a connection: `relet.hold` and `relet.policies`.

    @async_unsafe("An event loop is running: use 'async with' or sync_to_async().")
    def hold(self, block: object = None) -> None:
        """Keep one connection, from the next statement until `release_hold`.

        :param block: identifies this hold for `release_hold`. By default, holds are only counted.
        """
        if self._thread_ident != get_ident():
            self.validate_thread_sharing()
        self._runner.hold(object() if block is None else block)

    def release_hold(self, block: object = None) -> None:
        """End one `hold`. The last one undoes session state and ends the lease.

        Called by another thread or during a statement, it takes effect after the statement.
        """
        runner = self._runner
        if block is None:
            if not runner.holds:
                return
            block = next(reversed(runner.holds))
        with self.wrap_database_errors:
            runner.leave(lambda owner: owner.release_hold(block))
        runner.tell()

    def on_override_exit(self, policy: object) -> None:
        """Go back to the outer policy after a block that overrode it with *policy*.

        Any thread may call this.
        """
        with self.wrap_database_errors:
            self._runner.leave(lambda owner: owner.on_override_exit(policy))

    # Threads.

    def inc_thread_sharing(self) -> None:
        super().inc_thread_sharing()
        self._runner.share(True)

    def dec_thread_sharing(self) -> None:
        super().dec_thread_sharing()
        if not self.allow_thread_sharing:
            self._runner.share(False)

    # Pools. Django defines these names.

    @property
    def pool(self) -> Any:
        if (raw := self._runner.initializing) is not None:
            return _SingleConnectionPool(raw)
        return self._runner.find_pool().pool.native

    def close_pool(self) -> None:
        pools.close_alias(self.alias)

    @contextmanager
    def _nodb_cursor(self) -> Iterator[CursorWrapper]:
        """Yield a cursor outside the pool, for creating and dropping databases."""
        with self._plain()._nodb_cursor() as cursor:
            yield cursor

    @contextmanager
    def outside_pool(self, **options: Any) -> Iterator[CursorWrapper]:
        """Yield a cursor on a new connection outside the pool, which is closed afterwards.

        Any thread may call this.

        :param options: keyword arguments for the driver's ``connect()``, unless the settings have
            them.
        """
        plain = self._plain()
        plain.settings_dict["OPTIONS"] = {**options, **plain.settings_dict["OPTIONS"]}
        try:
            with plain.cursor() as cursor:
                yield cursor
        finally:
            plain.close()

    def _plain(self) -> WrapperBase:
        """Return a wrapper of Django's own, with the same settings and without a pool."""
        settings = credentials.resolve_credentials(self.alias, _driver_settings(self.settings_dict))
        return self.plain_backend(settings, alias=self.alias)


def _close_host(runner: LeaseRunner) -> None:
    runner.host.close()
