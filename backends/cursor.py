"""LeasedCursor: what Django sees as the driver's cursor.

It stands where the driver's cursor stands in Django, inside ``CursorWrapper``, so
all that Django and others lay around a cursor stays as it is. It has the driver's
cursor of its last statement, and passes on to it whatever is asked of results.
What runs on the server runs through a lease.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorWrapper

from relet.core.classifier import EFFECTS

if TYPE_CHECKING:
    from relet.core.effects import Effects

    from .wrapper import LeasingWrapper


def _statement(method: str, query: Any, args: tuple[Any, ...]) -> tuple[Any, object]:
    """Return the query that *method* runs, and its parameters, if they are known."""
    if method in ("copy_from", "copy_to"):
        return "COPY", None  # what they have is a file and a table
    params = None if method == "copy_expert" or not args else args[0]
    if method == "callproc":
        placeholders = ", ".join(["%s"] * len(params or ()))
        return f"SELECT {query}({placeholders})", params
    return query, None if method == "executemany" else params


class _DriverSetting:
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

    __slots__ = ("_closed", "_db", "_driver", "_pin", "_raw", "_settings", "_sql")

    arraysize = _DriverSetting()
    format = _DriverSetting()
    row_factory = _DriverSetting()
    tzinfo_factory = _DriverSetting()

    #: The name of a server-side cursor.
    name: str | None = None

    def __init__(self, db: LeasingWrapper) -> None:
        self._db = db
        self._driver: Any = None
        self._raw: Any = None
        self._closed = False
        self._settings: dict[str, object] | None = None
        #: What keeps the lease until this cursor is closed.
        self._pin: object = None
        #: The statement that was run last, or is running.
        self._sql: object = None

    # What runs on the server.

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        # The hot path, so `_run` stands here once more, without its detours.
        db = self._db
        if (
            query.__class__ is not str
            or EFFECTS[query] is not None
            or kwargs
            or db._guard is not None
            or db._thread_ident != get_ident()
        ):
            self._run("execute", query, () if params is None else (params,), kwargs)
            return self
        self._sql = query
        raw = db._begin(self)
        try:
            driver = self._driver if self._raw is raw else self._bind(raw)
            if params is None:
                driver.execute(query)
            else:
                driver.execute(query, params)
        finally:
            db._end(self)
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
        db = self._db
        guard = db._guard
        if guard is not None:
            # Shared between threads: no release under another's statement.
            guard.acquire()
        elif db._thread_ident != get_ident():
            db.validate_thread_sharing()
        try:
            text, params = _statement(method, query, args)
            self._sql = text
            if (effects := db._effects_of(text)) is not None:
                effects = effects.repeated if method == "executemany" else effects
                return self._run_with(effects, text, params, method, (query, *args), kwargs)
            raw = db._begin(self)
            try:
                driver = self._driver if self._raw is raw else self._bind(raw)
                return getattr(driver, method)(query, *args, **kwargs)
            finally:
                db._end(self)
        finally:
            if guard is not None:
                guard.release()

    def _run_with(
        self,
        effects: Effects,
        query: Any,
        params: object,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run what leaves something in its session."""
        db = self._db
        if db._carries(effects, query, params):
            return None
        db._expect(effects, query, params)
        raw = db._begin(self)
        try:
            before, ok = db._status(), None
            try:
                driver = self._driver if self._raw is raw else self._bind(raw)
                result = getattr(driver, method)(*args, **kwargs)
                ok = True
                return result
            except db.Database.Error:
                ok = False
                raise
            finally:
                db._ran(effects, query, params, self._driver, before, ok)
        finally:
            db._end(self)

    @contextmanager
    def copy(self, query: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The driver's ``copy()``; the lease lasts until the block is left."""
        with self._pinned(query, args) as driver, driver.copy(query, *args, **kwargs) as copy:
            yield copy

    def stream(self, query: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The driver's ``stream()``; the lease lasts until it is exhausted or closed."""
        with self._pinned(query, args) as driver:
            yield from driver.stream(query, *args, **kwargs)

    @contextmanager
    def _pinned(self, query: Any, args: tuple[Any, ...]) -> Iterator[Any]:
        """The driver's cursor, with a lease that lasts until the block is left."""
        db = self._db
        text, params = _statement("stream", query, args)
        if (effects := db._effects_of(text)) is not None:
            db._expect(effects, text, params)
        driver, pin = self._pinned_driver(object())
        try:
            if effects is None:
                yield driver
                return
            before, ok = db._status(), None
            try:
                yield driver
                ok = True
            except db.Database.Error:
                ok = False
                raise
            finally:
                db._ran(effects, text, params, None, before, ok)
        finally:
            db._unpin(pin)

    @property
    def connection(self) -> Any:
        """The driver's connection; the lease lasts until this cursor is closed.

        Of what is done with it, nobody knows, so the session is restored after.
        """
        self.keep()
        self._db._expose()
        return self._db._lease.connection.raw  # type: ignore[union-attr]

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
        return getattr(self.driver_cursor(), name)

    # Life.

    def close(self) -> None:
        self._closed = True
        try:
            if self._driver is not None:
                self._driver.close()
        except self._db.Database.Error:
            # The server was to close it, and is gone. psycopg warns of it until it knows that, too.
            with suppress(self._db.Database.Error):
                self._driver.close()
            raise
        finally:
            if self._pin is not None:
                self._release()

    def keep(self) -> None:
        """Keep the lease, or take one, until this cursor is closed."""
        if self._pin is None:
            self._pin = object()
        self._pinned_driver(self._pin)

    def _release(self) -> None:
        pin, self._pin = self._pin, None
        self._db._unpin(pin)

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

    def _pinned_driver(self, pin: object) -> tuple[Any, object]:
        raw = self._db._pin(pin)
        try:
            return self._driver if self._raw is raw else self._bind(raw), pin
        except BaseException:
            self._db._unpin(pin)
            raise

    def _bind(self, raw: Any) -> Any:
        """Make a driver's cursor on the connection that is leased now."""
        db = self._db
        # The pool's connections load timestamps in the time zone they were opened
        # for; Django looks whether that is still the wrapper's, for each cursor.
        if self.name is None and db._plain_cursors and db.timezone is db._pool_timezone:
            driver = raw.cursor()
        else:
            driver = db._other_cursor(self.name)
            if self.name is None and not db._drivers_cursors:
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


class LeasedServerCursor(LeasedCursor):
    """A named cursor: its rows are on the server, so the lease lasts until it is closed."""

    __slots__ = ("name",)

    itersize = _DriverSetting()

    def __init__(self, db: LeasingWrapper, name: str) -> None:
        super().__init__(db)
        self.name = name

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        kept = self._pin is not None
        if (effects := self._db._effects_of(query)) is not None:
            self._db._expect(effects, query, params)
        self.keep()
        try:
            return super().execute(query, params, **kwargs)
        except BaseException:
            if not kept:
                self._release()
            raise

    def keep(self) -> None:
        super().keep()
        self._db._lease.pins[self._pin] = self._driver

    def close(self) -> None:
        self._db._closing(self._pin)
        leased = self._pin in self._db._lease.pins
        try:
            super().close()
        except self._db.Database.Error:
            if leased:
                raise  # else it went with the lease: in a child that is its parent's


class LeasedCursorWrapper(CursorWrapper):
    """Django's, with methods for what it looks up by name on every call."""

    def fetchone(self) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchall()

    def close(self) -> None:
        try:
            self.cursor.close()
        except self.db.Database.Error:
            # A server-side cursor is closed by the server, which may be gone.
            with self.db.wrap_database_errors:
                raise
