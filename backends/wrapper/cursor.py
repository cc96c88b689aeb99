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
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorWrapper

from relet.core import TransactionStatus
from relet.core.sql.classifier import EFFECTS

from .connection import LeasedConnection
from .transfers import Copy, Stream

if TYPE_CHECKING:
    from relet.core.sql.effects import Effects

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

    __slots__ = (
        *("__weakref__", "_closed", "_db", "_driver", "_pin", "_raw", "_settings", "_sql"),
    )

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
        #: What keeps the lease until this cursor is closed, or gone.
        self._pin: weakref.ref[LeasedCursor] | None = None
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
            or db._detour
            or db._thread_ident != get_ident()
        ):
            self._run("execute", query, () if params is None else (params,), kwargs)
            return self
        self._sql = query
        try:
            raw = db._begin(self)
            driver = self._driver if self._raw is raw else self._bind(raw)
            if params is None:
                driver.execute(query)
            else:
                driver.execute(query, params)
            db._end(self)
        except BaseException as error:
            db._failed(self, error)
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
        db = self._db
        if db._guard is None and db._thread_ident != get_ident():
            db.validate_thread_sharing()
        # If shared between threads: no release under another's statement.
        with db._exclusive():
            if db._notes and db._is_idle():
                db._act_on_notes()
            text, params = _statement(method, query, args)
            self._sql = text
            if (effects := db._effects_of(text)) is None:
                return self._run_plain(method, (query, *args), kwargs)
            if method == "executemany":
                effects = effects.repeated
            elif self.name is not None:
                effects = effects.deferred  # done when rows are fetched, if they are
            result = self._run_with(effects, text, params, method, (query, *args), kwargs)
        db._tell()
        return result

    def _run_plain(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what leaves nothing in its session."""
        db = self._db
        try:
            raw = db._begin(self)
            driver = self._driver if self._raw is raw else self._bind(raw)
            result = getattr(driver, method)(*args, **kwargs)
            db._end(self)
        except BaseException as error:
            db._failed(self, error)
            raise
        return result

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
        before, accounted = None, False
        try:
            raw = db._begin(self)
            before = db._status()
            driver = self._driver if self._raw is raw else self._bind(raw)
            result = getattr(driver, method)(*args, **kwargs)
            db._ran(effects, query, params, driver, before)
            accounted = True
            db._end(self)
        except BaseException as error:
            if before is not None and not accounted:
                db._ran(effects, query, params, None, before, error)
            db._failed(self, error)
            raise
        return result

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
        if self._db._tells_facts and self._db._introducing is None:
            return LeasedConnection(self._db, self)
        self.keep()
        return self._db._lend()

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
            self._pin = self._db._pin_of(self)
        self._pinned_driver(self._pin)

    def _release(self) -> None:
        if self._pin is not None:
            self._db._unpin(self._pin)
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
            raw = self._db._pin(pin)
            return self._driver if self._raw is raw else self._bind(raw)
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
        try:
            self.keep()
            return super().execute(query, params, **kwargs)
        except BaseException as error:
            if not isinstance(error, self._db.Database.Error):
                self._db._expose()  # from outside: nobody knows whether it is open
            if not kept:
                self._release()
            raise

    def keep(self) -> None:
        super().keep()
        self._db._lease.pins[self._pin] = self._driver

    # What is on the server is asked for there.

    def fetchone(self) -> Any:
        return self._db._call(super().fetchone)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._db._call(super().fetchmany, *args, **kwargs)

    def fetchall(self) -> Any:
        return self._db._call(super().fetchall)

    def scroll(self, *args: Any, **kwargs: Any) -> Any:
        return self._db._call(self.driver_cursor().scroll, *args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        rows = iter(self.driver_cursor())
        while (row := self._db._call(next, rows, _END)) is not _END:
            yield row

    def close(self) -> None:
        db = self._db
        lease = db._lease
        if lease.connection is None or self._pin not in lease.pins:
            self._closed = True
            # The lease has ended, and with it what was on the server; in a child, that is its
            # parent's.
            if self._is_alone():
                with suppress(db.Database.Error):
                    self._close_driver()
        elif db._is_idle_here():
            if db._status() == TransactionStatus.IN_ERROR:
                # It cannot be closed now, and one WITH HOLD outlives the transaction.
                db._expose()
            self._closed = True
            try:
                self._close_driver()
            finally:
                self._release()
        else:
            self._closed = True
            self._release()  # its owner closes it

    def _is_alone(self) -> bool:
        """Whether the driver's cursor is still to be closed, and nobody has its connection.

        Its collector may come in the middle of a statement of the next lease's, on the same one.
        """
        driver, db = self._driver, self._db
        if driver is None or driver.closed:
            return False
        connection, entry = db._lease.connection, db._handle
        raw = driver.connection
        return (connection is None or connection.raw is not raw) and not (
            entry is not None and entry.pool.is_blocked(raw)
        )

    def _close_driver(self) -> None:
        if self._driver is not None:
            self._db._call(self._close_on_server)

    def _close_on_server(self) -> None:
        try:
            self._driver.close()
        except self._db.Database.Error:
            # The server is gone. psycopg warns of the cursor until it knows that, too.
            with suppress(self._db.Database.Error):
                self._driver.close()
            raise


_END = object()


#: Methods of `LeasedCursorWrapper` that Django's wrapper has no name for.
_LOOKED_UP = "fetchone", "fetchmany", "fetchall", "close"


class _LookedUp:
    """A method that a class is to look up by name, as it does in Django."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        return self if wrapper is None else wrapper.__getattr__(self._name)


class LeasedCursorWrapper(CursorWrapper):
    """Django's, with methods for what it looks up by name on every call.

    A class laid around it that has a ``__getattr__``, to forbid or to observe them, is asked.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__getattr__ is not LeasedCursorWrapper.__getattr__:
            for name in _LOOKED_UP:
                if getattr(cls, name) is getattr(LeasedCursorWrapper, name):
                    setattr(cls, name, _LookedUp(name))

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
