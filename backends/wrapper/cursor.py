"""LeasedCursor: stands in for the driver's cursor.

Django puts it inside ``CursorWrapper``, where the driver's cursor would be, so everything that
Django and other tools wrap around a cursor works as before. Each statement runs on a leased
connection, with a driver cursor that this one keeps for reading the results.
"""

from __future__ import annotations

import weakref
from _thread import get_ident
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from relet.backends.leases.runner import PIN_CURSOR, LeaseRunner
from relet.core.sql.quoting import quote_identifier

from .connection import LeasedConnection
from .transfers import Copy, Stream

if TYPE_CHECKING:
    from relet.core import PoolAdapter
    from relet.core.sql.effects import Effects


def _statement(
    adapter: type[PoolAdapter[Any]],
    method: str,
    query: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, object]:
    """Return the query that *method* runs, and its parameters if they are known."""
    if method in ("copy_from", "copy_to"):
        # Their arguments are a file and a table, whose name psycopg2 quotes.
        table = quote_identifier(str(args[0] if args else kwargs.get("table", "")))
        return f"COPY {table} {'FROM' if method == 'copy_from' else 'TO'} file", None
    params = None if method == "copy_expert" or not args else args[0]
    if method == "callproc":
        placeholders = ", ".join(["%s"] * len(params or ()))
        return f"SELECT {adapter.function_name(query)}({placeholders})", params
    return query, None if method == "executemany" else params


class DriverSetting:
    """A writable attribute of the driver's cursor.

    Its value is kept here, because each statement may run on a new driver cursor.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, cursor: LeasedCursor, owner: type | None = None) -> Any:
        return getattr(cursor.driver_cursor(), self.name)

    def __set__(self, cursor: LeasedCursor, value: object) -> None:
        cursor._settings = {**(cursor._settings or {}), self.name: value}
        if cursor._driver is not None:
            setattr(cursor._driver, self.name, value)


class LeasedCursor:
    """A cursor that leases a connection for each statement it runs."""

    __slots__ = (
        *("__weakref__", "_closed", "_driver", "_pin"),
        *("_raw", "_runner", "_settings", "_wrapper"),
    )

    arraysize = DriverSetting()
    format = DriverSetting()
    row_factory = DriverSetting()
    tzinfo_factory = DriverSetting()

    #: The name of a server-side cursor.
    name: str | None = None

    def __init__(self, runner: LeaseRunner) -> None:
        self._runner = runner
        #: Kept alive by this, as by Django's cursor.
        self._wrapper = runner.find_host()
        self._driver: Any = None
        self._raw: Any = None
        self._closed = False
        self._settings: dict[str, object] | None = None
        #: The pin that keeps the lease until this cursor is closed or collected.
        self._pin: weakref.ref[LeasedCursor] | None = None

    # Statements.

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        # The hot path: `_run_plain` inlined, for plain statements of an unshared wrapper.
        runner = self._runner
        if (
            query.__class__ is not str
            or runner.effects[query] is not None
            or kwargs
            or runner.detour
            or runner.thread != get_ident()
        ):
            self._run("execute", query, () if params is None else (params,), kwargs)
            return self
        try:
            raw = runner.begin(query)
            driver = self._driver if self._raw is raw else self._bind(raw)
            if params is None:
                driver.execute(query)
            else:
                driver.execute(query, params)
            if runner.end() is PIN_CURSOR:
                self._pin_lease()
        except BaseException as error:
            self._fail(error)
            raise
        return self

    def executemany(self, query: Any, /, *args: Any, **kwargs: Any) -> None:
        self._run("executemany", query, args, kwargs)

    def callproc(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return self._run("callproc", name, args, kwargs)

    # psycopg2's COPY, which is complete when the call returns.

    def copy_expert(self, query: Any, /, *args: Any, **kwargs: Any) -> None:
        self._run("copy_expert", query, args, kwargs)

    def copy_from(self, file: Any, /, *args: Any, **kwargs: Any) -> None:
        self._run("copy_from", file, args, kwargs)

    def copy_to(self, file: Any, /, *args: Any, **kwargs: Any) -> None:
        self._run("copy_to", file, args, kwargs)

    def _run(self, method: str, query: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        runner = self._runner
        if not runner.is_owner():
            self._wrapper.validate_thread_sharing()
        # If the wrapper is shared, no other thread may end the lease during this statement.
        with runner.exclusive():
            runner.lease.thread = get_ident()
            if runner.detour and runner.is_idle():
                runner.act_on_notes()
                runner.refuse_during_transfer()
            text, params = _statement(runner.host_class.adapter_class, method, query, args, kwargs)
            try:
                if (effects := runner.effects_of(text)) is None:
                    return self._run_plain(text, method, (query, *args), kwargs)
                if method == "executemany":
                    effects = effects.repeated
                elif self.name is not None:
                    effects = effects.deferred  # they happen when rows are fetched, if at all
                result = self._run_with(effects, text, params, method, (query, *args), kwargs)
            except BaseException:
                runner.drop_prepared()
                raise
        runner.tell()
        return result

    def _run_plain(
        self, text: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a statement that leaves nothing in its session."""
        runner = self._runner
        try:
            raw = runner.begin(text)
            driver = self._driver if self._raw is raw else self._bind(raw)
            result = getattr(driver, method)(*args, **kwargs)
            if runner.end() is PIN_CURSOR:
                self._pin_lease()
        except BaseException as error:
            self._fail(error)
            raise
        return result

    def _run_with(
        self,
        effects: Effects,
        text: Any,
        params: object,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a statement with *effects* on its session."""
        runner = self._runner
        if runner.tracks(effects, text, params):
            return None
        runner.expect(effects, text, params)
        before, accounted = None, False
        try:
            raw = runner.begin(text)
            before = runner.status()
            driver = self._driver if self._raw is raw else self._bind(raw)
            result = getattr(driver, method)(*args, **kwargs)
            runner.account(effects, text, params, driver, before)
            accounted = True
            if runner.end() is PIN_CURSOR:
                self._pin_lease()
        except BaseException as error:
            if before is not None and not accounted:
                runner.account(effects, text, params, None, before, error)
            self._fail(error)
            raise
        return result

    def _pin_lease(self) -> None:
        """In release mode "cursor": the lease lasts until this cursor is closed."""
        self.keep()
        self._runner.pinned()

    def _fail(self, error: BaseException) -> None:
        if self._runner.failed(error) is PIN_CURSOR:
            self._pin_lease()

    def copy(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return the driver's ``copy()`` block. The lease lasts until the block is left."""
        return Copy(self, query, args, kwargs)

    def stream(self, query: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Return the driver's ``stream()``. The lease lasts until it is exhausted or closed."""
        return Stream(self, query, args, kwargs)

    @property
    def connection(self) -> Any:
        """The driver's connection, or a proxy of it.

        Using it begins a lease, which lasts until this cursor is closed.
        """
        runner = self._runner
        if runner.tells_facts and runner.initializing is None:
            return LeasedConnection(runner, self)
        self.keep()
        return runner.lend()

    # Results. All rows are on the client by now.

    def fetchone(self) -> Any:
        return (self._driver or self.driver_cursor()).fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return (self._driver or self.driver_cursor()).fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        return (self._driver or self.driver_cursor()).fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.driver_cursor())

    @property
    def description(self) -> Any:
        return None if self._driver is None else self._driver.description

    @property
    def rowcount(self) -> int:
        return -1 if self._driver is None else self._driver.rowcount

    @property
    def closed(self) -> bool:
        return self._closed

    # The SQL that the driver sent. Django's query log reads it even if nothing could be sent.

    @property
    def query(self) -> Any:
        return None if self._driver is None else self._driver.query

    @property
    def _query(self) -> Any:
        return None if self._driver is None else self._driver._query

    def __getattr__(self, name: str) -> Any:
        # Every other attribute of the driver's cursor.
        if name.startswith("__"):
            raise AttributeError(name)
        driver = self.driver_cursor()
        value = getattr(driver, name)
        # Never hand out the raw connection, under any name.
        return self.connection if value is driver.connection else value

    # Closing.

    def close(self) -> None:
        self._closed = True
        try:
            if self._driver is not None:
                self._driver.close()
        finally:
            if self._pin is not None:
                self._release()

    def keep(self) -> None:
        """Keep the lease, or take one, until this cursor is closed or collected."""
        if self._pin is None:
            self._pin = self._runner.pin_for(self)
        self._pinned_driver(self._pin)

    def _release(self) -> None:
        if self._pin is not None:
            self._runner.unpin(self._pin)
            self._pin = None

    def __enter__(self) -> LeasedCursor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def driver_cursor(self) -> Any:
        """Return the driver's cursor of the last statement.

        Before the first statement, this takes a lease that lasts until this cursor is closed.
        """
        if self._driver is None:
            self.keep()
            if self._closed:
                self._release()
        return self._driver

    def _pinned_driver(self, pin: object) -> Any:
        """Return the driver's cursor, on a lease that lasts until *pin* is removed."""
        try:
            raw = self._runner.pin(pin)
            return self._driver if self._raw is raw else self._bind(raw)
        except BaseException:
            self._runner.unpin(pin)
            raise

    def _bind(self, raw: Any) -> Any:
        """Make a driver's cursor on *raw*, the leased connection."""
        runner = self._runner
        # A connection loads timestamps in the time zone it was opened for. If the wrapper's time
        # zone is another by now, Django must make the cursor.
        if (
            self.name is None
            and runner.plain_cursors
            and self._wrapper.timezone is runner.pool_timezone
        ):
            driver = runner.lease.pool.new_cursor(raw)  # type: ignore[union-attr]
        else:
            driver = runner.make_cursor(self.name)
            if self.name is None and not runner.drivers_cursors:
                # A backend that makes its own cursors may change the session for each of them.
                # The next lease has another session, so its statement needs a new cursor.
                raw = None
        self._driver, self._raw = driver, raw
        if self._settings is not None:
            for name, value in self._settings.items():
                setattr(driver, name, value)
        if self._closed:
            driver.close()  # the driver raises its own error for a closed cursor
        return driver
