"""LeasedCursor: what Django sees as the driver's cursor.

It stands where the driver's cursor stands in Django, inside ``CursorWrapper``, so
all that Django and others lay around a cursor stays as it is. It has the driver's
cursor of its last statement, and passes on to it whatever is asked of results.
What runs on the server runs through a lease.
"""

from __future__ import annotations

import weakref
from _thread import get_ident
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from relet.backends.leases.runner import PIN_CURSOR, LeaseRunner
from relet.core.sql.classifier import EFFECTS

from .connection import LeasedConnection
from .transfers import Copy, Stream

if TYPE_CHECKING:
    from relet.core.sql.effects import Effects


def _statement(method: str, query: Any, args: tuple[Any, ...]) -> tuple[Any, object]:
    """Return the query that *method* runs, and its parameters, if they are known."""
    if method in ("copy_from", "copy_to"):
        return "COPY", None  # what they have is a file and a table
    params = None if method == "copy_expert" or not args else args[0]
    if method == "callproc":
        placeholders = ", ".join(["%s"] * len(params or ()))
        return f"SELECT {query}({placeholders})", params
    return query, None if method == "executemany" else params


class DriverSetting:
    """A writable attribute of the driver's cursor; kept, for each statement may get a new one."""

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

    __slots__ = (*("__weakref__", "_closed", "_driver", "_pin", "_raw", "_runner", "_settings"),)

    arraysize = DriverSetting()
    format = DriverSetting()
    row_factory = DriverSetting()
    tzinfo_factory = DriverSetting()

    #: The name of a server-side cursor.
    name: str | None = None

    def __init__(self, runner: LeaseRunner) -> None:
        self._runner = runner
        self._driver: Any = None
        self._raw: Any = None
        self._closed = False
        self._settings: dict[str, object] | None = None
        #: What keeps the lease until this cursor is closed, or gone.
        self._pin: weakref.ref[LeasedCursor] | None = None

    # What runs on the server.

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        # The hot path, so `_run` stands here once more, without its detours.
        runner = self._runner
        if (
            query.__class__ is not str
            or EFFECTS[query] is not None
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

    # psycopg2's COPY, all of it in one call.

    def copy_expert(self, query: Any, /, *args: Any, **kwargs: Any) -> None:
        self._run("copy_expert", query, args, kwargs)

    def copy_from(self, file: Any, /, *args: Any, **kwargs: Any) -> None:
        self._run("copy_from", file, args, kwargs)

    def copy_to(self, file: Any, /, *args: Any, **kwargs: Any) -> None:
        self._run("copy_to", file, args, kwargs)

    def _run(self, method: str, query: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        runner = self._runner
        if not runner.is_owner():
            runner.host.validate_thread_sharing()
        # If shared between threads: no release under another's statement.
        with runner.exclusive():
            runner.lease.thread = get_ident()
            if runner.notes and runner.is_idle():
                runner.act_on_notes()
            text, params = _statement(method, query, args)
            if (effects := runner.effects_of(text)) is None:
                return self._run_plain(text, method, (query, *args), kwargs)
            if method == "executemany":
                effects = effects.repeated
            elif self.name is not None:
                effects = effects.deferred  # done when rows are fetched, if they are
            result = self._run_with(effects, text, params, method, (query, *args), kwargs)
        runner.tell()
        return result

    def _run_plain(
        self, text: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run what leaves nothing in its session."""
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
        """Run what leaves something in its session."""
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
        """The driver's ``copy()``; the lease lasts until the block is left."""
        return Copy(self, query, args, kwargs)

    def stream(self, query: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The driver's ``stream()``; the lease lasts until it is exhausted or closed."""
        return Stream(self, query, args, kwargs)

    @property
    def connection(self) -> Any:
        """What stands for the driver's connection.

        When it is used, a lease begins, which lasts until this cursor is closed.
        """
        runner = self._runner
        if runner.tells_facts and runner.initializing is None:
            return LeasedConnection(runner, self)
        self.keep()
        return runner.lend()

    # Results, all of them on the client by now.

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

    # What the driver has sent. Django's log of queries asks, also where nothing could be sent.

    @property
    def query(self) -> Any:
        return None if self._driver is None else self._driver.query

    @property
    def _query(self) -> Any:
        return None if self._driver is None else self._driver._query

    def __getattr__(self, name: str) -> Any:
        # Whatever else the driver's cursor has.
        if name.startswith("__"):
            raise AttributeError(name)
        driver = self.driver_cursor()
        value = getattr(driver, name)
        # Its connection is had in one way, whatever it is called.
        return self.connection if value is driver.connection else value

    # Life.

    def close(self) -> None:
        self._closed = True
        try:
            if self._driver is not None:
                self._driver.close()
        finally:
            if self._pin is not None:
                self._release()

    def keep(self) -> None:
        """Keep the lease, or take one, until this cursor is closed, or gone."""
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
        """The driver's cursor of the last statement.

        Before there was one, asking for it takes a lease, which then lasts until
        this cursor is closed.
        """
        if self._driver is None:
            self.keep()
            if self._closed:
                self._release()
        return self._driver

    def _pinned_driver(self, pin: object) -> Any:
        """The driver's cursor, on a lease that lasts until *pin* is taken away."""
        try:
            raw = self._runner.pin(pin)
            return self._driver if self._raw is raw else self._bind(raw)
        except BaseException:
            self._runner.unpin(pin)
            raise

    def _bind(self, raw: Any) -> Any:
        """Make a driver's cursor on the connection that is leased now."""
        runner = self._runner
        # The pool's connections load timestamps in the time zone they were opened
        # for; Django looks whether that is still the wrapper's, for each cursor.
        if (
            self.name is None
            and runner.plain_cursors
            and runner.host.timezone is runner.pool_timezone
        ):
            driver = raw.cursor()
        else:
            driver = runner.make_cursor(self.name)
            if self.name is None and not runner.drivers_cursors:
                # What a backend does to a cursor that it makes, it may do to the session. That
                # is another's when the lease ends: the next statement gets a cursor anew.
                raw = None
        self._driver, self._raw = driver, raw
        if self._settings is not None:
            for name, value in self._settings.items():
                setattr(driver, name, value)
        if self._closed:
            driver.close()  # it will say so itself
        return driver
