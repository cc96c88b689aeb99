"""Connection: a connection of pg8000's that speaks the simple-query protocol, and nothing else.

pg8000 opens it, with all that belongs to that: TLS, passwords, startup. From then on, each
statement is one Query message, and what comes back is read here: one round trip, and one loop
over what has been received, where pg8000 reads each message by itself.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum
from functools import cache
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from ssl import SSLWantReadError, SSLWantWriteError
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from threading import RLock
from typing import Any, NamedTuple

from pg8000.converters import PG_PY_ENCODINGS
from pg8000.core import CoreConnection

from relet.core import TransactionStatus

from . import errors
from .cursor import Cursor, NamedCursor
from .loaders import Loaders, Zone
from .nested import load_hstore
from .results import Copying, Result

IDLE, ACTIVE, UNKNOWN = TransactionStatus.IDLE, TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN
_STATUSES = {
    ord("I"): IDLE,
    ord("T"): TransactionStatus.IN_TRANSACTION,
    ord("E"): TransactionStatus.IN_ERROR,
}
_size = Struct("!i").unpack_from
_header = Struct("!ci").pack
#: How much is asked for at once.
_CHUNK = 1 << 16
_LARGE_CHUNK = 1 << 20
_CLOSED = "the connection is closed"
_RUNS = "a statement runs on this connection already"
_ENDED = "the server closed it unexpectedly"
#: What a socket says that would have to wait.
_NOT_NOW = (BlockingIOError, InterruptedError, SSLWantReadError, SSLWantWriteError)

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_DATA_ROW, _ROW_DESCRIPTION, _COMMAND_COMPLETE, _READY = b"DTCZ"
_ERROR, _NOTICE, _NOTIFICATION, _PARAMETER, _EMPTY = b"ENASI"
_COPY_IN, _COPY_OUT, _COPY_DATA, _COPY_DONE = b"GHdc"


class IsolationLevel(IntEnum):
    """What ``BEGIN`` asks for; by psycopg's numbers, which Django's settings have."""

    READ_UNCOMMITTED = 1
    READ_COMMITTED = 2
    REPEATABLE_READ = 3
    SERIALIZABLE = 4


class Notify(NamedTuple):
    """What another session has sent by ``NOTIFY``."""

    channel: str
    payload: str
    pid: int


class Connection:
    """A connection, as PEP 249 and psycopg have it. Threads may share it: they take turns.

    :param pg: a connection of pg8000's, opened by whatever opens them; it is this one's now.
    :param texts: names of types that are loaded as text, as the server sends them.
    """

    def __init__(self, pg: CoreConnection, *, texts: frozenset[str] = frozenset()) -> None:
        self.pg = pg
        self._socket: Any = pg._usock
        # Where pg8000 has read more than it has taken.
        self._rest = _buffered(pg)
        self._lock = RLock()
        #: The transaction status, one of `relet.core.TransactionStatus`.
        self.transaction_status: int = IDLE
        #: The server's settings that it reports, such as ``TimeZone``.
        self.parameters: dict[str, str] = dict(pg.parameter_statuses)
        #: Messages of the server, the last ones.
        self.notices: deque[errors.Diagnostic] = deque(maxlen=50)
        #: What has been sent by ``NOTIFY`` and arrived, in order; whoever reads it clears it.
        self.notifies: deque[Notify] = deque()
        self._texts = texts
        self._registered: list[tuple[Any, ...]] = []
        self._loaders: dict[tuple[Zone, Any], Loaders] = {}
        self._encode: Any = str.encode
        self._decode: Any = bytes.decode
        self.zone = "server"
        #: The loader of hstore, and so what becomes of a dict, once `adapters` is told of it.
        self.has_hstore = False
        self._autocommit = False
        self._isolation_level: IsolationLevel | None = None
        self._read_only: bool | None = None
        self._deferrable: bool | None = None
        self._begin = b"BEGIN"
        self._follow_encoding()
        try:
            if pg._transaction_status not in (None, b"I"):
                self.run("ROLLBACK")
            if self.parameters.get("client_encoding") != "UTF8":
                self.run("SET client_encoding TO 'UTF8'")
        except BaseException:
            self.close()
            raise

    # Statements.

    def exchange(
        self, sql: str, loaders: Loaders | None = None, copying: Copying | None = None
    ) -> list[Result]:
        """Send *sql* as a Query message; return the results of its statements.

        :param loaders: what makes values of rows; those of `zone` by default.
        :param copying: what ``COPY`` reads or writes.
        :raises Error: the server's, or `OperationalError` when the connection is lost.
        """
        data = self._encode(sql)
        if b"\0" in data:
            raise errors.ProgrammingError("a statement cannot contain NUL (0x00) characters")
        try:
            # Not acquire(): an interrupt may strike between that and what comes next.
            with self._lock:
                if self._socket is None:
                    raise errors.OperationalError(_CLOSED)
                if self.transaction_status == ACTIVE:
                    raise errors.ProgrammingError(_RUNS)
                try:
                    self.transaction_status = ACTIVE
                    # If it is gone, what it has said before it went is still to be read.
                    with suppress(BrokenPipeError, ConnectionResetError):
                        self._socket.sendall(b"".join((_header(b"Q", len(data) + 5), data, b"\0")))
                    return self._receive(sql, loaders or self.loaders, copying)
                finally:
                    if self.transaction_status == ACTIVE:
                        self._abort()  # in the middle of an answer, so nobody can go on
        except OSError as error:
            if self._socket is not None:
                raise  # it is the file's, of a COPY
            raise errors.OperationalError(f"the connection is lost: {error}") from error
        except AttributeError as error:
            if self._socket is not None or error.obj is not None:
                raise
            # A signal's handler, or the file of a COPY, has closed it meanwhile.
            raise errors.OperationalError(_CLOSED) from None

    def _receive(self, sql: str, loaders: Loaders, copying: Copying | None) -> list[Result]:
        data, self._rest = self._rest, b""
        position = 0
        results: list[Result] = []
        columns: Any = None
        load: Any = ()
        rows: list[tuple[Any, ...]] = []
        failure: BaseException | None = None
        size = _size
        while True:
            try:
                # The header; then all of the message.
                end = position + 1 + size(data, position + 1)[0]
                missing = end - len(data)
            except StructError:  # not even the header is there
                end, missing = 0, 1
            if missing > 0:
                try:
                    data = self._more(data[position:], (end - position) if end else 5)
                except OSError:
                    if failure is not None:
                        # It has said why: an administrator's command, say.
                        self._abort()
                        raise _lost(failure) from None
                    raise
                position = 0
                continue
            kind = data[position]
            if kind == _DATA_ROW:
                at = position + 7
                row: list[Any] = []
                try:
                    for loader in load:
                        length = size(data, at)[0]
                        at += 4
                        if length < 0:
                            row.append(None)
                        else:
                            row.append(loader(data[at : at + length]))
                            at += length
                    rows.append(tuple(row))
                except Exception as error:  # noqa: BLE001
                    # Of a value that Python does not have. The rest is to be read all the same.
                    failure, load = failure or error, ()
            elif kind == _ROW_DESCRIPTION:
                columns, load = loaders.describe(data[position + 5 : end])
                rows = []
            elif kind == _COMMAND_COMPLETE:
                results.append(Result(columns, rows, data[position + 5 : end - 1].decode()))
                columns, rows = None, []
            elif kind == _READY:
                if self._socket is None:
                    raise errors.OperationalError(_CLOSED)
                self._rest = data[end:]
                self.transaction_status = _STATUSES[data[position + 5]]
                if failure is not None:
                    raise failure
                return results
            elif kind == _ERROR:
                failure = failure or errors.from_fields(self._fields(data[position + 5 : end]), sql)
            elif kind == _EMPTY:
                results.append(Result(None, [], ""))
            elif kind == _COPY_IN:
                failure = self._copy_in(copying) or failure
                # What has come while it was sent.
                data, self._rest = data[:end] + self._rest + data[end:], b""
            elif kind in (_COPY_DATA, _COPY_OUT):
                if failure is None:
                    failure = _copy_out(copying, data[position + 5 : end], kind == _COPY_OUT)
            elif kind != _COPY_DONE:
                self._asynchronous(kind, data[position + 5 : end])
            position = end

    def _more(self, data: bytes, needed: int) -> bytes:
        """Return *data* and what comes after it, *needed* bytes of it at least."""
        if not data:
            data = self._socket.recv(_CHUNK)
            if len(data) >= needed:
                return data
            if not data:
                raise ConnectionResetError(_ENDED)
        chunks, length = [data], len(data)
        while length < needed:
            chunk = self._socket.recv(min(max(_CHUNK, needed - length), _LARGE_CHUNK))
            if not chunk:
                raise ConnectionResetError(_ENDED)
            chunks.append(chunk)
            length += len(chunk)
        return b"".join(chunks)

    def _asynchronous(self, kind: int, data: bytes) -> None:
        """Take a message that may come at any time."""
        if kind == _PARAMETER:
            name, value = map(self._text, data[:-1].split(b"\0"))
            self.parameters[name] = value
            if name == "client_encoding":
                self._follow_encoding()
        elif kind == _NOTICE:
            self.notices.append(errors.Diagnostic(self._fields(data)))
        elif kind == _NOTIFICATION:
            channel, payload, _ = data[4:].split(b"\0")
            (pid,) = _size(data)
            self.notifies.append(Notify(self._text(channel), self._text(payload), pid))
        else:
            self._abort()
            raise errors.InterfaceError(f"the server sent a message of kind {chr(kind)!r}")

    def _fields(self, data: bytes) -> dict[str, str]:
        return {field[:1].decode(): self._text(field[1:]) for field in data.split(b"\0") if field}

    def _text(self, data: bytes) -> str:
        try:
            return self._decode(data)  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            return data.decode("ascii", errors="replace")

    def _copy_in(self, copying: Copying | None) -> BaseException | None:
        """Send what a ``COPY`` is to read; return what went wrong with that."""
        failure: BaseException | None = None
        # If the server is gone, what it has said before it went is still to be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            for chunk in _chunks(copying, self._encode):
                if isinstance(chunk, Exception):
                    failure = chunk
                    reason = self._encode_reason(failure)
                    self._send(_header(b"f", len(reason) + 4) + reason)
                    return failure
                self._send(_header(b"d", len(chunk) + 4) + chunk)
            self._send(_header(b"c", 4))
        return failure

    def _encode_reason(self, failure: BaseException) -> bytes:
        text = f"{type(failure).__name__}: {failure}".replace("\0", "")
        return text.encode("ascii", errors="backslashreplace") + b"\0"

    def _send(self, data: bytes) -> None:
        """Send *data*, and take what comes meanwhile: it may be that the server waits for that."""
        sock, rest = self._socket, memoryview(data)
        timeout = sock.gettimeout()
        sock.settimeout(0)
        try:
            while rest:
                try:
                    rest = rest[sock.send(rest) :]
                except _NOT_NOW:
                    with DefaultSelector() as selector:
                        selector.register(sock, EVENT_READ | EVENT_WRITE)
                        if not selector.select(timeout):
                            raise TimeoutError("timed out") from None
                    self._take()
        finally:
            if self._socket is not None:
                sock.settimeout(timeout)

    def _take(self) -> None:
        """Read what has arrived, from a socket that does not wait."""
        with suppress(*_NOT_NOW):
            while chunk := self._socket.recv(_CHUNK):
                self._rest += chunk
            raise ConnectionResetError(_ENDED)

    def fileno(self) -> int:
        """Return the file descriptor of its socket, to wait for what `poll` takes.

        :raises OperationalError: it is closed.
        """
        if self._socket is None:
            raise errors.OperationalError(_CLOSED)
        return int(self._socket.fileno())

    def poll(self) -> None:
        """Take what the server has sent by itself, such as `notifies`, without waiting for it.

        :raises OperationalError: the connection is closed, or lost.
        """
        with self._lock:
            if self._socket is None:
                raise errors.OperationalError(_CLOSED)
            if self.transaction_status == ACTIVE:
                raise errors.ProgrammingError(_RUNS)
            sock, lost = self._socket, None
            timeout = sock.gettimeout()
            sock.settimeout(0)
            try:
                self._take()
            except OSError as error:
                lost = error
            finally:
                if self._socket is not None:
                    sock.settimeout(timeout)
            while len(self._rest) >= 5:
                end = 1 + _size(self._rest, 1)[0]
                if end > len(self._rest):
                    break
                kind, data, self._rest = self._rest[0], self._rest[5:end], self._rest[end:]
                if kind == _ERROR:
                    # It says why it closes the connection.
                    self._abort()
                    raise _lost(errors.from_fields(self._fields(data)))
                self._asynchronous(kind, data)
            if lost is not None:
                self._abort()
                raise errors.OperationalError(f"the connection is lost: {lost}") from lost

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run *sql*, in autocommit or not; return the rows of the first statement that has some."""
        for result in self.exchange(sql):
            if result.columns is not None:
                return result.rows
        return []

    def begin(self) -> None:
        """Begin a transaction, if none has begun and this is not in autocommit."""
        if not self._autocommit and self.transaction_status == IDLE:
            self.exchange(self._begin.decode())

    # PEP 249.

    def cursor(
        self,
        name: str | None = None,
        *,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Cursor:
        """Return a cursor; one with a *name* leaves its rows on the server.

        :param scrollable: whether it can go back; None leaves it to the server.
        :param withhold: whether it outlives its transaction.
        """
        if self._socket is None:
            raise errors.OperationalError(_CLOSED)
        if name is None:
            return Cursor(self)
        return NamedCursor(self, name, scrollable=scrollable, withhold=withhold)

    def commit(self) -> None:
        """End the transaction, if there is one."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        self._end("ROLLBACK")

    def _end(self, sql: str) -> None:
        if self._socket is None:
            raise errors.OperationalError(_CLOSED)
        if self.transaction_status != IDLE:
            self.exchange(sql)

    def close(self) -> None:
        """Close it; what was begun is undone. Closing it again does nothing."""
        with self._lock:
            if self._socket is not None:
                self._abort()

    def _abort(self) -> None:
        sock, self._socket, self.transaction_status = self._socket, None, UNKNOWN
        with suppress(OSError):
            sock.settimeout(0)  # else it would wait for a server that does not read
        with suppress(errors.Error, OSError, AttributeError):
            self.pg.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed, or lost."""
        return self._socket is None

    # How transactions begin.

    @property
    def autocommit(self) -> bool:
        """Whether statements are transactions by themselves."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._change("autocommit")
        self._autocommit = bool(value)

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """That of the transactions that begin; None for the server's default."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, value: int | None) -> None:
        self._change("isolation_level")
        self._isolation_level = None if value is None else IsolationLevel(value)
        self._compose_begin()

    @property
    def read_only(self) -> bool | None:
        """Whether transactions only read; None for the server's default."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._change("read_only")
        self._read_only = value
        self._compose_begin()

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions wait for a snapshot that cannot fail; None for the default."""
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._change("deferrable")
        self._deferrable = value
        self._compose_begin()

    def _change(self, attribute: str) -> None:
        if self._socket is None:
            raise errors.OperationalError(_CLOSED)
        if self.transaction_status != IDLE:
            raise errors.ProgrammingError(
                f"{attribute} cannot be changed now: the connection is in a transaction"
            )

    def _compose_begin(self) -> None:
        words = ["BEGIN"]
        if self._isolation_level is not None:
            words.append(f"ISOLATION LEVEL {self._isolation_level.name.replace('_', ' ')}")
        if self._read_only is not None:
            words.append("READ ONLY" if self._read_only else "READ WRITE")
        if self._deferrable is not None:
            words.append("DEFERRABLE" if self._deferrable else "NOT DEFERRABLE")
        self._begin = " ".join(words).encode()

    # What values are.

    @property
    def zone(self) -> Zone:
        """What a ``timestamptz`` is loaded in; see `relet.adapters.pg8000.loaders.Zone`."""
        return self._zone

    @zone.setter
    def zone(self, zone: Zone) -> None:
        self._zone, self.loaders = zone, self.loaders_for(zone)

    def loaders_for(self, zone: Zone) -> Loaders:
        """Return the loaders of this connection for another zone."""
        key = zone, self._decode
        if (loaders := self._loaders.get(key)) is None:
            loaders = self._loaders[key] = Loaders(zone, self._texts, self._decode)
            for what in self._registered:
                loaders.register(*what)
        return loaders

    def register(self, name: str, oid: int, array_oid: int = 0) -> None:
        """Tell it of a type that an extension has brought: hstore, or one loaded as text."""
        what: tuple[Any, ...] = (name, oid, array_oid)
        if name == "hstore":
            what, self.has_hstore = (*what, load_hstore), True
        self._registered.append(what)
        for loaders in self._loaders.values():
            loaders.register(*what)

    def _follow_encoding(self) -> None:
        self._encode, self._decode = _codec(self.parameters.get("client_encoding", "UTF8"))
        self.zone = self._zone

    @property
    def info(self) -> Info:
        """What is known of the session, by psycopg's names."""
        return Info(self)

    @property
    def adapters(self) -> Adapters:
        """What psycopg, and so django.contrib.postgres, tells of types that extensions bring."""
        return Adapters(self)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = TransactionStatus(self.transaction_status).name
        return f"<{type(self).__module__}.{type(self).__qualname__} [{state}] at {id(self):#x}>"


class Info:
    """What is known of a session: psycopg's ``ConnectionInfo``, as far as there is one."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def server_version(self) -> int:
        """The server's version, 150004 for 15.4."""
        match = re.match(r"(\d+)(?:\.(\d+))?", self._connection.parameters["server_version"])
        assert match is not None
        return int(match.group(1)) * 10000 + int(match.group(2) or 0)

    @property
    def transaction_status(self) -> TransactionStatus:
        """The transaction status."""
        return TransactionStatus(self._connection.transaction_status)

    @property
    def backend_pid(self) -> int:
        """The process ID of the server's backend."""
        data = self._connection.pg._backend_key_data
        return int(_size(data)[0]) if data else 0

    @property
    def encoding(self) -> str:
        """What Python calls the encoding of the session."""
        return _python_encoding(self._connection.parameters.get("client_encoding", "UTF8"))

    @property
    def user(self) -> str:
        """The role that it was opened for."""
        return bytes(self._connection.pg.user).decode()

    def parameter_status(self, name: str) -> str | None:
        """Return a setting that the server reports, such as ``TimeZone``."""
        return self._connection.parameters.get(name)


class Adapters:
    """Takes what psycopg's types tell a connection, and leaves what is psycopg's own.

    ``TypeInfo.register()`` and ``register_hstore()``, by which django.contrib.postgres makes
    types known, call these.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def types(self) -> Adapters:
        """Itself: the registry of types."""
        return self

    def add(self, info: Any) -> None:
        """Make a type known."""
        self._connection.register(info.name, info.oid, info.array_oid)

    def register_dumper(self, cls: object, dumper: object) -> None:
        """Nothing: literals are made in another way."""

    def register_loader(self, oid: object, loader: object) -> None:
        """Nothing: rows are loaded in another way."""


def _buffered(pg: CoreConnection) -> bytes:
    """Return what pg8000 has read from the socket, and not taken yet."""
    timeout = pg._usock.gettimeout()
    pg._usock.settimeout(0)
    try:
        return bytes(pg._sock.read1(_CHUNK) or b"")
    except OSError:
        return b""
    finally:
        pg._usock.settimeout(timeout)
        # What a buffer could not send, it would try again when it is collected.
        pg._sock = pg._usock.makefile("rwb", buffering=0)


def _chunks(copying: Copying | None, encode: Callable[[str], bytes]) -> Iterator[bytes | Exception]:
    """Yield what a ``COPY`` is to read; at last, what went wrong."""
    try:
        if copying is None:
            raise errors.ProgrammingError("COPY FROM STDIN reads a file: use copy_expert()")
        yield from copying.chunks(encode)
    except Exception as error:  # noqa: BLE001 - whatever a file raises
        yield error


#: Where pg8000 knows none, or one that takes some characters for others than the server does.
_ENCODINGS = {
    "euc_kr": "cp949",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "shift_jis_2004": "ascii",  # in Python's, a backslash is a yen sign
    "sjis": "cp932",
    "win866": "cp866",
    **{f"iso_8859_{part}": f"iso8859_{part}" for part in (5, 6, 7, 8)},
}


def _python_encoding(name: str) -> str:
    name = name.lower()
    try:
        found = _ENCODINGS.get(name) or PG_PY_ENCODINGS.get(name, name)
        return codecs.lookup(found or "ascii").name
    except LookupError:
        return "ascii"


@cache
def _codec(name: str) -> tuple[Callable[[str], bytes], Callable[[bytes], str]]:
    """Return what encodes and decodes as PostgreSQL's encoding *name* does.

    Of one that Python does not have, what is not ASCII is an error.
    """
    python = _python_encoding(name)
    if python == "utf-8":
        return str.encode, bytes.decode

    def encode(text: str) -> bytes:
        data = text.encode(python)
        # Python makes a backslash of a yen sign, for one: in a literal, it could be an escape.
        if data.decode(python) != text:
            at = next(i for i, letter in enumerate(text) if not _returns(letter, python))
            raise UnicodeEncodeError(python, text, at, at + 1, "another character would arrive")
        return data

    return encode, lambda data: data.decode(python)


def _returns(letter: str, python: str) -> bool:
    return letter.encode(python).decode(python) == letter


def _lost(failure: BaseException) -> errors.OperationalError:
    if isinstance(failure, errors.OperationalError):
        return failure
    return errors.OperationalError(f"the connection is lost: {failure}")


def _copy_out(copying: Copying | None, data: bytes, begins: bool) -> BaseException | None:
    """Write what has come; return what went wrong."""
    try:
        if copying is None:
            raise errors.ProgrammingError("COPY TO STDOUT writes to a file: use copy_expert()")
        if not begins:
            copying.write(data)
    except Exception as error:  # noqa: BLE001 - whatever a file raises
        return error
    return None
