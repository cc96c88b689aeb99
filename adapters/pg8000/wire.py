"""Wire: the simple-query protocol, and nothing else, on a connection that pg8000 has opened.

Each statement is one Query message, and what comes back is read here: one round trip, and one
loop over what has been received, where pg8000 reads each message by itself.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from socket import SHUT_RDWR
from ssl import SSLError, SSLWantReadError, SSLWantWriteError
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from threading import RLock
from typing import Any, NamedTuple

from pg8000.core import CoreConnection

from relet.core import TransactionStatus
from relet.core.locks import locked
from relet.core.outside import from_handler, from_outside

from . import errors
from .encodings import codec
from .errors import SOCKETS
from .exclusive import exclusive
from .loaders import Loaders
from .results import Copying, Result
from .values import Values

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
_FATAL = ("FATAL", "PANIC")
CLOSED = "the connection is closed"
_NUL = "a statement cannot contain NUL (0x00) characters"
_BUSY = "the connection is already running a statement"
_CLOSED_BY_SERVER = "the server closed the connection unexpectedly"
#: What a socket says whose other end has gone.
_PEER_GONE = (ConnectionError, SSLError)
#: Seconds that `Wire.close` waits for who reads an answer, and has been told to end.
_CLOSE_TIMEOUT = 1.0
#: What a socket says that would have to wait.
_WOULD_BLOCK = (BlockingIOError, InterruptedError, SSLWantReadError, SSLWantWriteError)

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_DATA_ROW, _ROW_DESCRIPTION, _COMMAND_COMPLETE, _READY = b"DTCZ"
_ERROR, _NOTICE, _NOTIFICATION, _PARAMETER, _EMPTY = b"ENASI"
_COPY_IN, _COPY_OUT, _COPY_DATA, _COPY_DONE = b"GHdc"
#: Those that may be long, and those that are never longer than `_SHORT`.
_LONG_KINDS, _SHORT_KINDS, _SHORT = b"TDdENA", b"CZSIGHc", 1 << 20
#: What Python says of a message in which something is missing, or is what it cannot be.
_UNREADABLE = (ValueError, LookupError, StructError)


class Notify(NamedTuple):
    """What another session has sent by ``NOTIFY``."""

    channel: str
    payload: str
    pid: int


class Wire:
    """The messages of a connection. Threads may share it: they take turns.

    :param pg: a connection of pg8000's, opened by whatever opens them; it is this one's now.
    :param values: what makes values of rows. It follows the session's encoding.
    """

    def __init__(self, pg: CoreConnection, values: Values) -> None:
        self.pg = pg
        self.values = values
        # A cycle, for which it, and its socket, would wait to be collected where they are dropped.
        pg.message_types = {}
        self._socket: Any = pg._usock
        # What has come and has not been read; at first, where pg8000 has read more than it has
        # taken. It grows in place, and what is read goes from its front without a copy of the rest.
        self._rest = bytearray(_take_buffered(pg))
        self.lock = RLock()
        #: The transaction status, one of `relet.core.TransactionStatus`.
        self.transaction_status: int = IDLE
        #: The server's settings that it reports, such as ``TimeZone``.
        self.parameters: dict[str, str] = dict(pg.parameter_statuses)
        #: Messages of the server, the last ones.
        self.notices: deque[errors.Diagnostic] = deque(maxlen=50)
        #: What has been sent by ``NOTIFY`` and arrived, in order; whoever reads it clears it.
        self.notifies: deque[Notify] = deque()
        self._follow_encoding()

    def _follow_encoding(self) -> None:
        self._encode, self._decode = codec(self.parameters.get("client_encoding", "UTF8"))
        self.values.follow(self._decode)

    def exchange(
        self, sql: str, loaders: Loaders | None = None, copying: Copying | None = None
    ) -> list[Result]:
        """Send *sql* as a Query message; return the results of its statements.

        :param loaders: what makes values of rows; those of `values` by default.
        :param copying: what ``COPY`` reads or writes.
        :raises Error: the server's, or `OperationalError` when the connection is lost.
        """
        data = self._encode(sql)
        if b"\0" in data:
            raise errors.ProgrammingError(_NUL)
        try:
            return locked(
                self.lock,
                lambda: self._exchange(data, sql, loaders or self.values.loaders, copying),
            )
        except OSError as error:
            if self._socket is not None or from_outside(error, *SOCKETS):
                raise  # it is the file's, of a COPY, or interrupts this
            raise errors.OperationalError(f"the connection is lost: {error}") from error
        except _UNREADABLE as error:
            if self._socket is not None or from_outside(error, *SOCKETS):
                raise  # it is of a value, or of the file of a COPY
            raise errors.InterfaceError(
                f"the server sent a message that cannot be read: {error}"
            ) from error
        except AttributeError as error:
            if self._socket is not None or error.obj is not None:
                raise
            # A signal's handler, or the file of a COPY, has closed it meanwhile.
            raise errors.OperationalError(CLOSED) from None

    def check(self, sql: str) -> None:
        """Raise what `exchange` would raise for *sql* before it is sent."""
        if b"\0" in self._encode(sql):
            raise errors.ProgrammingError(_NUL)

    def _receive(self, sql: str, loaders: Loaders, copying: Copying | None) -> list[Result]:
        data, position = bytes(self._rest), 0
        self._rest.clear()
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
                if end:
                    _check_header(data[position], end - position - 1)
                try:
                    data = self._receive_more(data[position:], (end - position) if end else 5)
                except OSError as error:
                    if failure is None or from_outside(error, *SOCKETS):
                        raise
                    if not (isinstance(failure, errors.OperationalError) or _is_fatal(failure)):
                        raise error from failure
                    # It has said why: an administrator's command, say.
                    self._abort()
                    raise _connection_lost(failure) from None
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
                except Exception as error:
                    if from_outside(error, *SOCKETS):
                        raise
                    # Of a value that Python does not have. The rest is to be read all the same.
                    if failure is None:
                        failure = _load_error(error, data[position + 5 : end])
                    load = ()
                if at != end and (failure is None or end < at):
                    raise _unreadable_message(kind)
            elif end < position + 5:
                raise _unreadable_message(kind)
            elif kind == _ROW_DESCRIPTION:
                columns, load = loaders.describe(data[position + 5 : end])
                rows = []
            elif kind == _COMMAND_COMPLETE:
                results.append(Result(columns, rows, data[position + 5 : end - 1].decode()))
                columns, rows = None, []
            elif kind == _READY:
                if end != position + 6:
                    raise _unreadable_message(kind)
                if self._socket is None:
                    raise errors.OperationalError(CLOSED)
                self._rest += data[end:]
                self.transaction_status = _STATUSES[data[position + 5]]
                if failure is not None:
                    raise failure
                return results
            elif kind == _ERROR:
                told: Any = errors.from_fields(self._fields(data[position + 5 : end]), sql)
                told.completed = len(results)
                # What ends the connection is the reason for that, whatever was wrong before.
                if failure is None or _is_fatal(told):
                    failure = told
            elif kind == _EMPTY:
                results.append(Result(None, [], ""))
            elif kind == _COPY_IN:
                failure = self._copy_in(copying) or failure
                # What has come while it was sent.
                data += self._rest
                self._rest.clear()
            elif kind in (_COPY_DATA, _COPY_OUT):
                if failure is None:
                    failure = self._copy_out(copying, data[position + 5 : end], kind == _COPY_OUT)
            elif kind != _COPY_DONE:
                self._asynchronous(kind, data[position + 5 : end])
            position = end

    def _exchange(
        self, data: bytes, sql: str, loaders: Loaders, copying: Copying | None
    ) -> list[Result]:
        """Do it, under the lock."""
        if self._socket is None:
            raise errors.OperationalError(CLOSED)
        if self.transaction_status == ACTIVE:
            raise errors.ProgrammingError(_BUSY)
        try:
            self.transaction_status = ACTIVE
            self._send_query(data)
            return self._receive(sql, loaders, copying)
        finally:
            if self.transaction_status == ACTIVE:
                self._abort()  # in the middle of an answer, so nobody can go on

    def _send_query(self, data: bytes) -> None:
        # A function of its own: Python does not guard the instruction of a ``try`` in a ``try``.
        try:
            self._socket.sendall(b"".join((_header(b"Q", len(data) + 5), data, b"\0")))
        except _PEER_GONE as error:
            # What it has said before it went is still to be read.
            if from_outside(error, *SOCKETS):
                raise

    def _receive_more(self, data: bytes, needed: int) -> bytes:
        """Return *data* and what comes after it, *needed* bytes of it at least."""
        if not data:
            data = self._socket.recv(_CHUNK)
            if len(data) >= needed:
                return data
            if not data:
                raise ConnectionResetError(_CLOSED_BY_SERVER)
        chunks, length = [data], len(data)
        while length < needed:
            chunk = self._socket.recv(min(max(_CHUNK, needed - length), _LARGE_CHUNK))
            if not chunk:
                raise ConnectionResetError(_CLOSED_BY_SERVER)
            chunks.append(chunk)
            length += len(chunk)
        return b"".join(chunks)

    def _asynchronous(self, kind: int, data: bytes) -> None:
        """Take a message that may come at any time.

        :raises InterfaceError: it is none of these, or cannot be read. The connection is closed.
        """
        try:
            self._take_asynchronous(kind, data)
        except _UNREADABLE as error:
            if from_outside(error, *SOCKETS):
                raise
            self._abort()
            raise _unreadable_message(kind) from error

    def _take_asynchronous(self, kind: int, data: bytes) -> None:
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
            raise _unknown_message(kind)

    def _fields(self, data: bytes) -> dict[str, str]:
        return {chr(field[0]): self._text(field[1:]) for field in data.split(b"\0") if field}

    def _text(self, data: bytes) -> str:
        try:
            return self._decode(data)
        except UnicodeDecodeError:
            return data.decode("ascii", errors="replace")

    def _copy_in(self, copying: Copying | None) -> BaseException | None:
        """Send what a ``COPY`` is to read; return what went wrong with that."""
        try:
            for chunk in _chunks(copying, self._encode):
                if isinstance(chunk, Exception):
                    reason = self._encode_reason(chunk)
                    self._send(_header(b"f", len(reason) + 4) + reason)
                    return chunk
                self._send(_header(b"d", len(chunk) + 4) + chunk)
            self._send(_header(b"c", 4))
        except _PEER_GONE as error:
            # What it has said before it went is still to be read.
            if from_outside(error, *SOCKETS):
                raise
        return None

    def _copy_out(self, copying: Copying | None, data: bytes, begins: bool) -> BaseException | None:
        """Write what has come; return what went wrong."""
        try:
            if copying is None:
                raise errors.ProgrammingError(
                    "COPY TO STDOUT needs a file to write to: use copy_expert()"
                )
            if not begins:
                copying.write(data, self._decode)
        except Exception as error:  # whatever a file raises
            if from_handler(error):
                raise
            return error
        return None

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
                except _WOULD_BLOCK as error:
                    if from_outside(error, *SOCKETS):
                        raise
                    with DefaultSelector() as selector:
                        selector.register(sock, EVENT_READ | EVENT_WRITE)
                        if not selector.select(timeout):
                            raise TimeoutError("timed out") from None
                    self._read_available()
        finally:
            if self._socket is not None:
                sock.settimeout(timeout)

    def _read_available(self) -> None:
        """Read what has arrived, from a socket that does not wait."""
        try:
            while chunk := self._socket.recv(_CHUNK):
                self._rest += chunk
        except _WOULD_BLOCK as error:
            if from_outside(error, *SOCKETS):
                raise
        else:
            raise ConnectionResetError(_CLOSED_BY_SERVER)

    def fileno(self) -> int:
        """Return the file descriptor of its socket, to wait for what `poll` takes.

        :raises OperationalError: it is closed.
        """
        self.check_open()
        return int(self._socket.fileno())

    @property
    def timeout(self) -> float | None:
        """For how many seconds its socket waits for the server; None is for good."""
        seconds: float | None = self._socket.gettimeout()
        return seconds

    @exclusive("lock")
    def poll(self) -> None:
        """Take what the server has sent by itself, such as `notifies`, without waiting for it.

        :raises OperationalError: the connection is closed, or lost.
        """
        self.check_open()
        if self.transaction_status == ACTIVE:
            raise errors.ProgrammingError(_BUSY)
        lost = self._read_without_waiting()
        rest = self._rest
        while len(rest) >= 5:
            end = 1 + _size(rest, 1)[0]
            self._check_next(end - 1)
            if end > len(rest):
                break
            kind, data = rest[0], bytes(rest[5:end])
            del rest[:end]
            if kind == _ERROR:
                # It says why it closes the connection.
                self._abort()
                raise _connection_lost(errors.from_fields(self._fields(data)))
            self._asynchronous(kind, data)
        if lost is not None:
            self._abort()
            raise errors.OperationalError(f"the connection is lost: {lost}") from lost

    def _read_without_waiting(self) -> OSError | None:
        """Take what has come, and wait for nothing; return why the connection is lost, if so."""
        sock = self._socket
        timeout = sock.gettimeout()
        try:
            sock.settimeout(0)
            self._read_available()
            sock.settimeout(timeout)
        except BaseException as error:
            if self._socket is not None:
                sock.settimeout(timeout)
            if not isinstance(error, OSError) or from_outside(error, *SOCKETS):
                raise
            return error
        return None

    def _check_next(self, length: int) -> None:
        try:
            _check_header(self._rest[0], length)
        except errors.InterfaceError:
            self._abort()
            raise

    def close(self) -> None:
        """Close it; what was begun is undone. Closing it again does nothing.

        A thread that waits for an answer is told that it is closed.
        """
        if self.transaction_status == ACTIVE and (sock := self._socket) is not None:
            _shut_down(sock)
        # It may have been left taken, by a thread that an interrupt has ended.
        taken = self.lock.acquire(timeout=_CLOSE_TIMEOUT)
        try:
            self._abort()
        finally:
            if taken:
                self.lock.release()

    def _abort(self) -> None:
        """Close the socket. It may be called again, and does what is left to do."""
        self.transaction_status = UNKNOWN
        self._socket, sock = None, self.pg._usock
        if sock is None:
            return
        try:
            sock.settimeout(0)  # else it would wait for a server that does not read
            self.pg.close()
        except (errors.Error, OSError, AttributeError) as error:
            if from_outside(error, *SOCKETS):
                raise
        finally:
            if sock.fileno() != -1:  # pg8000's functions refer to it, which a traceback keeps
                _shut_down(sock)
                sock.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed, or lost."""
        return self._socket is None

    def check_open(self) -> None:
        """Raise `OperationalError` if it is closed, or lost."""
        if self._socket is None:
            raise errors.OperationalError(CLOSED)


def _take_buffered(pg: CoreConnection) -> bytes:
    """Return what pg8000 has read from the socket, and not taken yet."""
    timeout = pg._usock.gettimeout()
    pg._usock.settimeout(0)
    try:
        return bytes(pg._sock.read1(_CHUNK) or b"")
    except OSError as error:
        if from_outside(error, *SOCKETS):
            raise
        return b""
    finally:
        file, pg._sock = pg._sock, pg._usock.makefile("rwb", buffering=0)
        _close_file(file)
        pg._usock.settimeout(timeout)


def _close_file(file: Any) -> None:
    """Close a buffered file of a socket, which does not wait now.

    What it could not send, it would try to send again when it is collected, and nobody could catch
    what that raises: Python writes it to stderr.
    """
    try:
        file.close()
    except (OSError, ValueError) as error:
        if from_outside(error, *SOCKETS):
            raise


def _chunks(copying: Copying | None, encode: Callable[[str], bytes]) -> Iterator[bytes | Exception]:
    """Yield what a ``COPY`` is to read; at last, what went wrong."""
    try:
        if copying is None:
            raise errors.ProgrammingError("COPY FROM STDIN needs a file to read: use copy_expert()")
        yield from copying.chunks(encode)
    except Exception as error:  # whatever a file raises
        if from_handler(error):
            raise
        yield error


def _shut_down(sock: Any) -> None:
    """End the connection of *sock*, now."""
    try:
        sock.shutdown(SHUT_RDWR)
    except OSError as error:  # it has ended
        if from_outside(error, *SOCKETS):
            raise


def _is_fatal(failure: BaseException) -> bool:
    """Return whether *failure* is what the server said when it ended the connection."""
    diag: Any = getattr(failure, "diag", None)
    return diag is not None and (diag.severity_nonlocalized or diag.severity) in _FATAL


def _connection_lost(failure: BaseException) -> errors.OperationalError:
    if isinstance(failure, errors.OperationalError):
        return failure
    lost: Any = errors.OperationalError(f"the connection is lost: {failure}")
    if (diag := getattr(failure, "diag", None)) is not None:
        lost.sqlstate, lost.diag = diag.sqlstate, diag
    return lost


def _check_header(kind: int, length: int) -> None:
    """Raise for a message that cannot be: what is no message might say it has a gigabyte."""
    if kind not in _LONG_KINDS and kind not in _SHORT_KINDS:
        raise _unknown_message(kind)
    if length < 4 or (length > _SHORT and kind in _SHORT_KINDS):
        raise _unreadable_message(kind)


def _unknown_message(kind: int) -> errors.InterfaceError:
    return errors.InterfaceError(f"the server sent a message of kind {chr(kind)!r}")


def _unreadable_message(kind: int) -> errors.InterfaceError:
    return errors.InterfaceError(
        f"the server sent a message of kind {chr(kind)!r} that cannot be read"
    )


def _load_error(error: Exception, data: bytes) -> Exception:
    """Return what to raise where a value of a DataRow could not be loaded because of *error*.

    :raises InterfaceError: it is no row.
    """
    at = 2
    try:
        for _ in range(int.from_bytes(data[:2], "big")):
            at += 4 + max(_size(data, at)[0], 0)
    except StructError:
        at = -1
    if at != len(data):
        raise _unreadable_message(_DATA_ROW) from error
    if isinstance(error, (errors.Error, UnicodeError)):
        return error
    failure: Exception = errors.DataError(f"cannot load a value: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
