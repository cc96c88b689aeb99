"""Wire: the simple-query protocol on a connection that pg8000 has opened.

Each statement is one Query message and one round trip. The answer is read in one loop over the
received bytes, while pg8000 reads each message separately.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from socket import SHUT_RDWR, SO_RCVTIMEO, SOL_SOCKET
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
#: How many bytes are read at a time.
_CHUNK = 1 << 16
_LARGE_CHUNK = 1 << 20
_FATAL = ("FATAL", "PANIC")
CLOSED = "the connection is closed"
_NUL = "a statement cannot contain NUL (0x00) characters"
_BUSY = "the connection is already running a statement"
_CLOSED_BY_SERVER = "the server closed the connection unexpectedly"
#: The errors of a socket whose peer has gone.
_PEER_GONE = (ConnectionError, SSLError)
#: Seconds after which a wait for the server looks for signals. One that arrives just before the
#: system call, or in another thread, does not interrupt it.
_LOOK = 0.1
_timeval = Struct("@ll").pack
#: Seconds that `Wire.close` waits for a thread that reads an answer and was told to end.
_CLOSE_TIMEOUT = 1.0
#: The errors of a non-blocking socket that would have to wait.
_WOULD_BLOCK = (BlockingIOError, InterruptedError, SSLWantReadError, SSLWantWriteError)

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_DATA_ROW, _ROW_DESCRIPTION, _COMMAND_COMPLETE, _READY = b"DTCZ"
_ERROR, _NOTICE, _NOTIFICATION, _PARAMETER, _EMPTY = b"ENASI"
_COPY_IN, _COPY_OUT, _COPY_DATA, _COPY_DONE = b"GHdc"
#: The kinds of messages that may be long, and those that are never longer than `_SHORT`.
_LONG_KINDS, _SHORT_KINDS, _SHORT = b"TDdENA", b"CZSIGHc", 1 << 20
#: Python's errors for a message that is incomplete or invalid.
_UNREADABLE = (ValueError, LookupError, StructError)


class Notify(NamedTuple):
    """A notification by ``NOTIFY``."""

    channel: str
    payload: str
    pid: int


class Wire:
    """Sends and receives the messages of a connection. Threads may share it: they take turns.

    :param pg: a connection of pg8000's that is logged in. This object takes it over.
    :param values: loads the values of rows, and is told the session's encoding.
    """

    def __init__(self, pg: CoreConnection, values: Values) -> None:
        self.pg = pg
        self.values = values
        # A reference cycle, which would keep a dropped connection open until garbage collection.
        pg.message_types = {}
        self._socket: Any = pg._usock
        # Received bytes that are not parsed yet; at first, those that pg8000 has buffered. They are
        # added and removed in place, so that the rest is not copied.
        self._rest = bytearray(_take_buffered(pg))
        _look_for_signals(pg._usock)
        self.lock = RLock()
        #: The transaction status, one of `relet.core.TransactionStatus`.
        self.transaction_status: int = IDLE
        #: The settings that the server reports, such as ``TimeZone``.
        self.parameters: dict[str, str] = dict(pg.parameter_statuses)
        #: The server's latest notices.
        self.notices: deque[errors.Diagnostic] = deque(maxlen=50)
        #: Notifications that have arrived, in order. The reader removes them.
        self.notifies: deque[Notify] = deque()
        self._follow_encoding()

    def _follow_encoding(self) -> None:
        self._encode, self._decode = codec(self.parameters.get("client_encoding", "UTF8"))
        self.values.follow(self._decode)

    def decoded(self, data: bytes) -> str:
        """Return *data*, which is in the client encoding, as text.

        :raises UnicodeDecodeError: it is no text.
        """
        return self._decode(data)

    def exchange(
        self,
        sql: str,
        loaders: Loaders | None = None,
        copying: Copying | None = None,
        before: Sequence[str] = (),
    ) -> list[Result]:
        """Send *sql* as a Query message; return the results of its statements.

        :param loaders: loads the values of rows; by default the loaders of `values`.
        :param copying: the file that ``COPY`` reads or writes.
        :param before: what to send before it, each as a message of its own, without waiting for an
            answer. Nothing is sent if one of them cannot be.
        :raises Error: the server reports an error, or the connection is closed or lost. An error of
            the server has ``message``, the number of the message that has failed.
        """
        messages = [(each, self._encode(each)) for each in (*before, sql)]
        if any(b"\0" in data for _, data in messages):
            raise errors.ProgrammingError(_NUL)
        try:
            return locked(
                self.lock,
                lambda: self._exchange(messages, loaders or self.values.loaders, copying),
            )
        except OSError as error:
            if self._socket is not None or from_outside(error, *SOCKETS):
                raise  # from the file of a COPY, or from outside
            raise errors.OperationalError(f"the connection is lost: {error}") from error
        except _UNREADABLE as error:
            if self._socket is not None or from_outside(error, *SOCKETS):
                raise  # from a value, the file of a COPY, or from outside
            raise errors.InterfaceError(
                f"the server sent a message that cannot be read: {error}"
            ) from error
        except AttributeError as error:
            if self._socket is not None or error.obj is not None:
                raise
            # A signal handler, or the file of a COPY, has closed the connection meanwhile.
            raise errors.OperationalError(CLOSED) from None

    def check(self, sql: str) -> None:
        """Raise the error that `exchange` would raise before it sends *sql*."""
        if b"\0" in self._encode(sql):
            raise errors.ProgrammingError(_NUL)

    def _receive(
        self, sql: str, loaders: Loaders, copying: Copying | None, *, last: bool = True
    ) -> list[Result]:
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
                # First the header, then the whole message.
                end = position + 1 + size(data, position + 1)[0]
                missing = end - len(data)
            except StructError:  # the header is incomplete
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
                    # The server has said why, such as an administrator's command.
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
                    # Python cannot represent a value. The rest must be read all the same.
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
                if last:
                    self.transaction_status = _STATUSES[data[position + 5]]
                if failure is not None:
                    raise failure
                return results
            elif kind == _ERROR:
                told: Any = errors.from_fields(self._fields(data[position + 5 : end]), sql)
                told.completed = len(results)
                # An error that ends the connection takes precedence over earlier errors.
                if failure is None or _is_fatal(told):
                    failure = told
            elif kind == _EMPTY:
                results.append(Result(None, [], ""))
            elif kind == _COPY_IN:
                failure = self._copy_in(copying) or failure
                # Bytes that were received while the file was sent.
                data += self._rest
                self._rest.clear()
            elif kind in (_COPY_DATA, _COPY_OUT):
                if failure is None:
                    failure = self._copy_out(copying, data[position + 5 : end], kind == _COPY_OUT)
            elif kind != _COPY_DONE:
                self._asynchronous(kind, data[position + 5 : end])
            position = end

    def _exchange(
        self, messages: Sequence[tuple[str, bytes]], loaders: Loaders, copying: Copying | None
    ) -> list[Result]:
        """Send and receive, under the lock."""
        if self._socket is None:
            raise errors.OperationalError(CLOSED)
        if self.transaction_status == ACTIVE:
            raise errors.ProgrammingError(_BUSY)
        try:
            self.transaction_status = ACTIVE
            self._send_queries(messages)
            if len(messages) > 1:
                return self._receive_all([sql for sql, _ in messages], loaders, copying)
            return self._receive(messages[0][0], loaders, copying)
        finally:
            if self.transaction_status == ACTIVE:
                self._abort()  # in the middle of an answer, so the connection is unusable

    def _receive_all(
        self, messages: Sequence[str], loaders: Loaders, copying: Copying | None
    ) -> list[Result]:
        """Receive the answers to several messages; return that to the last, or raise an error."""
        failure: Any = None
        *before, last = messages
        for number, sql in enumerate(before):
            try:
                # The connection stays in the middle of an answer.
                self._receive(sql, loaders, None, last=False)
            except errors.DatabaseError as error:
                if self._socket is None or from_outside(error, *SOCKETS):
                    raise
                if failure is None:
                    failure = error
                    failure.failed_message = number
        try:
            results = self._receive(last, loaders, copying)
        except errors.DatabaseError as error:
            if self._socket is None or failure is None or from_outside(error, *SOCKETS):
                raise
        if failure is not None:
            raise failure
        return results

    def _send_queries(self, messages: Sequence[tuple[str, bytes]]) -> None:
        # A function of its own, because the ``try`` instruction of a nested ``try`` is not guarded.
        parts: list[bytes] = []
        for _, data in messages:
            parts += _header(b"Q", len(data) + 5), data, b"\0"
        try:
            self._socket.sendall(b"".join(parts))
        except _PEER_GONE as error:
            # The messages that the peer sent before are still to be read.
            if from_outside(error, *SOCKETS):
                raise

    def _receive_more(self, data: bytes, needed: int) -> bytes:
        """Return *data* and the bytes that follow, at least *needed* in all."""
        if not data:
            data = self._read(_CHUNK)
            if len(data) >= needed:
                return data
        chunks, length = [data], len(data)
        while length < needed:
            chunk = self._read(min(max(_CHUNK, needed - length), _LARGE_CHUNK))
            chunks.append(chunk)
            length += len(chunk)
        return b"".join(chunks)

    def _read(self, size: int) -> bytes:
        """Wait for the server; return what it has sent, *size* bytes or fewer."""
        while True:
            try:
                data: bytes = self._socket.recv(size)
            except BlockingIOError as error:
                if self._socket.gettimeout() is not None or from_outside(error, *SOCKETS):
                    raise
            else:
                if data:
                    return data
                raise ConnectionResetError(_CLOSED_BY_SERVER)

    def _asynchronous(self, kind: int, data: bytes) -> None:
        """Handle a message that the server may send at any time.

        :raises InterfaceError: it is another message, or unreadable. The connection is closed.
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
        """Send the file of a ``COPY``; return the error of the file, if there was one."""
        try:
            for chunk in _chunks(copying, self._encode):
                if isinstance(chunk, Exception):
                    reason = self._encode_reason(chunk)
                    self._send(_header(b"f", len(reason) + 4) + reason)
                    return chunk
                self._send(_header(b"d", len(chunk) + 4) + chunk)
            self._send(_header(b"c", 4))
        except _PEER_GONE as error:
            # The messages that the peer sent before are still to be read.
            if from_outside(error, *SOCKETS):
                raise
        return None

    def _copy_out(self, copying: Copying | None, data: bytes, begins: bool) -> BaseException | None:
        """Write *data* to the file of a ``COPY``; return the error, if there was one."""
        try:
            if copying is None:
                raise errors.ProgrammingError(
                    "COPY TO STDOUT needs a file to write to: use copy_expert()"
                )
            if not begins:
                copying.write(data, self._decode)
        except Exception as error:  # a file may raise anything
            if from_handler(error):
                raise
            return error
        return None

    def _encode_reason(self, failure: BaseException) -> bytes:
        text = f"{type(failure).__name__}: {failure}".replace("\0", "")
        return text.encode("ascii", errors="backslashreplace") + b"\0"

    def _send(self, data: bytes) -> None:
        """Send *data*, and read meanwhile, because the server may wait until it can send."""
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
                        ready = selector.select(_LOOK if timeout is None else timeout)
                        if not ready and timeout is not None:
                            raise TimeoutError("timed out") from None
                    self._read_available()
        finally:
            if self._socket is not None:
                sock.settimeout(timeout)

    def _read_available(self) -> None:
        """Read the bytes that have arrived on a non-blocking socket."""
        try:
            while chunk := self._socket.recv(_CHUNK):
                self._rest += chunk
        except _WOULD_BLOCK as error:
            if from_outside(error, *SOCKETS):
                raise
        else:
            raise ConnectionResetError(_CLOSED_BY_SERVER)

    def fileno(self) -> int:
        """Return the file descriptor of the socket, to wait until `poll` has something to read.

        :raises OperationalError: it is closed.
        """
        self.check_open()
        return int(self._socket.fileno())

    @property
    def timeout(self) -> float | None:
        """How many seconds the socket waits for the server; None is no limit."""
        seconds: float | None = self._socket.gettimeout()
        return seconds

    @exclusive("lock")
    def poll(self) -> None:
        """Read what the server has sent by itself, such as notifications, without waiting.

        :raises OperationalError: the connection is closed or lost.
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
                # The server says why it closes the connection.
                self._abort()
                raise _connection_lost(errors.from_fields(self._fields(data)))
            self._asynchronous(kind, data)
        if lost is not None:
            self._abort()
            raise errors.OperationalError(f"the connection is lost: {lost}") from lost

    def _read_without_waiting(self) -> OSError | None:
        """Read without waiting; return the error if the connection is lost."""
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
        """Close it; an open transaction is rolled back. Closing it again does nothing.

        In a thread that waits for an answer, the statement raises OperationalError.
        """
        if self.transaction_status == ACTIVE and (sock := self._socket) is not None:
            _shut_down(sock)
        # The timeout is for a lock that a thread has left held, ended by an interrupt.
        taken = self.lock.acquire(timeout=_CLOSE_TIMEOUT)
        try:
            self._abort()
        finally:
            if taken:
                self.lock.release()

    def _abort(self) -> None:
        """Close the socket. Calling this again completes it."""
        self.transaction_status = UNKNOWN
        self._socket, sock = None, self.pg._usock
        if sock is None:
            return
        try:
            sock.settimeout(0)  # else it would wait if the server does not read
            self.pg.close()
        except (errors.Error, OSError, AttributeError) as error:
            if from_outside(error, *SOCKETS):
                raise
        finally:
            if sock.fileno() != -1:  # a traceback may keep frames of pg8000's, which refer to it
                _shut_down(sock)
                sock.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed or lost."""
        return self._socket is None

    def check_open(self) -> None:
        """Raise `OperationalError` if it is closed or lost."""
        if self._socket is None:
            raise errors.OperationalError(CLOSED)


def _look_for_signals(sock: Any) -> None:
    """Let reads of *sock* come back after `_LOOK`, where it has no timeout of its own.

    Unlike `settimeout`, this needs no further system call for each read.
    """
    if os.name != "posix":
        return
    try:
        sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, _timeval(0, int(_LOOK * 1_000_000)))
    except OSError as error:  # where its seconds are longer
        if from_outside(error, *SOCKETS):
            raise


def _take_buffered(pg: CoreConnection) -> bytes:
    """Return the bytes that pg8000 has read from the socket but not parsed."""
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
    """Close a buffered file of a non-blocking socket.

    When collected, it would try again to send what it could not send, and Python would write the
    error to stderr.
    """
    try:
        file.close()
    except (OSError, ValueError) as error:
        if from_outside(error, *SOCKETS):
            raise


def _chunks(copying: Copying | None, encode: Callable[[str], bytes]) -> Iterator[bytes | Exception]:
    """Yield the contents of the file of a ``COPY``, and the error at the end, if there is one."""
    try:
        if copying is None:
            raise errors.ProgrammingError("COPY FROM STDIN needs a file to read: use copy_expert()")
        yield from copying.chunks(encode)
    except Exception as error:  # a file may raise anything
        if from_handler(error):
            raise
        yield error


def _shut_down(sock: Any) -> None:
    """Shut the connection of *sock* down."""
    try:
        sock.shutdown(SHUT_RDWR)
    except OSError as error:  # already shut down
        if from_outside(error, *SOCKETS):
            raise


def _is_fatal(failure: BaseException) -> bool:
    """Return whether *failure* is an error by which the server ended the connection."""
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
    """Raise if no message has this header: garbage could claim a gigabyte."""
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
    """Return the exception for a DataRow with a value that could not be loaded due to *error*.

    :raises InterfaceError: *data* is no row.
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
