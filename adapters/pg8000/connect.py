"""Opening a connection by libpq's settings, or through a connector.

The socket, and TLS on it, are opened here, so that no failure leaves a socket open. pg8000 logs in.

https://www.postgresql.org/docs/current/libpq-connect.html
"""

from __future__ import annotations

import getpass
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pg8000.core import CoreConnection

from relet.adapters.opening import configure_or_close
from relet.core import ConfigurationError
from relet.core.background import BackgroundCall
from relet.core.dotted_path import import_dotted_path
from relet.core.outside import from_handler, from_outside

from . import errors, settings, tls
from .connection import Connection
from .errors import SOCKETS
from .handshake import Deadline, Handshake
from .scram import LoginConnection

_PORT = 5432
#: Seconds to wait for a silent server, as in psycopg.
_CONNECT_TIMEOUT = 130.0
_PG8000_NAMES = {"dbname": "database"}
_KEEPALIVES = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
#: For each of ``target_session_attrs``: the SQL condition that the session must meet.
_ATTRIBUTES = {
    "read-write": "NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::bool",
    "read-only": "pg_is_in_recovery() OR current_setting('transaction_read_only')::bool",
    "primary": "NOT pg_is_in_recovery()",
    "standby": "pg_is_in_recovery()",
}
#: SSLRequest: the length of the message, and its code.
#: https://www.postgresql.org/docs/current/protocol-message-formats.html
_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


class Endpoint(NamedTuple):
    """An address at which a server may listen."""

    host: str
    port: int
    #: ``hostaddr``, which replaces the look-up of `host`; "" if it is not set.
    address: str

    @property
    def local(self) -> bool:
        """Whether it is a Unix socket in the directory `host`."""
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.local:
            return f'on socket "{self.host}/.s.PGSQL.{self.port}"'
        return f'at "{self.host}", port {self.port}'


class _UnwantedSession(Exception):
    """The session does not meet ``target_session_attrs``."""


class _RefusedTwice(Exception):
    """The attempts with TLS and without it failed, each for a reason of its own."""

    def __init__(self, *attempts: BaseException) -> None:
        super().__init__()
        self.attempts = attempts


def connect(*, texts: frozenset[str] = frozenset(), **given: Any) -> Connection:
    """Open a connection.

    :param given: settings by libpq's names, and some of pg8000's own. With ``connect``, a callable
        or its dotted path, that callable gets the other settings and returns a connection of
        pg8000's, as Google's connectors do.
    :param texts: names of types that are loaded as text.
    :raises ConfigurationError: a setting is unknown or wrong.
    :raises OperationalError: the server cannot be reached, or refuses the connection.
    """
    settings.check(given)
    if given.get("connect") is not None:
        return Connection(_call_connector(**given), texts=texts)
    parameters = settings.complete(given)
    attributes = parameters.get("target_session_attrs", "any")
    wanted = ["standby", "any"] if attributes == "prefer-standby" else [attributes]
    endpoints = list(_endpoints(parameters))
    failures: list[str] = []
    for attribute in wanted:
        for endpoint in endpoints:
            interruption: BaseException | None = None
            sockets: list[socket.socket] = []
            try:
                return Connection(_open(parameters, endpoint, attribute, sockets), texts=texts)
            except _UnwantedSession as error:
                failures.append(_failure_message(endpoint, error))
            except BaseException as error:
                for sock in sockets:
                    _close_socket(sock)
                if not isinstance(error, Exception):
                    raise
                if (interruption := _error_from_outside(error)) is None:
                    failed = _failure(endpoint, error)
                    # A server that rejects the credentials is the right one; don't try others.
                    if (failed.sqlstate or "").startswith("28") or len(endpoints) == 1:
                        raise failed from failed.__cause__
                    failures.append(str(failed))
            if interruption is not None:
                try:
                    raise interruption
                finally:
                    # Else the error would keep itself alive, and the half-open connection.
                    del interruption
    raise errors.OperationalError("\n".join(failures))


def _failure(endpoint: Endpoint, error: Exception) -> Any:
    """Return what to raise if *error* has ended all attempts at *endpoint*."""
    attempts = error.attempts if isinstance(error, _RefusedTwice) else (error,)
    error.__traceback__ = None
    causes = [_root_cause(attempt) for attempt in attempts]
    messages = dict.fromkeys(_failure_message(endpoint, cause) for cause in causes)
    failed: Any = errors.OperationalError("\n".join(messages))
    failed.sqlstate = next(filter(None, map(_sqlstate, causes)), None)
    failed.__cause__ = causes[-1]
    return failed


def _error_from_outside(error: BaseException) -> BaseException | None:
    """Return the exception from outside that *error* is, or wraps; None if there is none."""
    return next((link for link in _error_chain(error) if from_outside(link, *SOCKETS)), None)


def _error_chain(error: BaseException) -> list[BaseException]:
    """Return *error* and the errors that led to it.

    When pg8000 fails, it closes its connection, which may fail, too.
    """
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


def _root_cause(error: BaseException) -> BaseException:
    """Return the server's error among those that led to *error*; else *error* itself.

    Their tracebacks are dropped, because the password is in the frames.
    """
    links = _error_chain(error)
    for link in links:
        link.__traceback__ = None
    return next((link for link in reversed(links) if _sqlstate(link)), error)


def _call_connector(connect: Callable[..., Any] | str, **options: Any) -> CoreConnection:
    if isinstance(connect, str):
        try:
            connect = import_dotted_path(connect)
        except ConfigurationError as error:
            raise ConfigurationError(f"'connect': {error}") from error
    named = {_PG8000_NAMES.get(name, name): value for name, value in options.items()}
    named.pop("client_encoding", None)
    try:
        opened = connect(**named)  # type: ignore[operator]
    except (errors.Error, OSError) as error:
        if from_handler(error):
            raise
        raise errors.OperationalError(f"'connect' failed: {_reason(error)}") from error
    if not isinstance(opened, CoreConnection):
        _close_connector_result(opened)
        raise ConfigurationError(
            f"'connect' returned {opened!r}; it must return a connection of pg8000's, as "
            "pg8000.dbapi.connect() does."
        )
    if opened._usock is None:
        raise errors.OperationalError("'connect' returned a connection that is closed")
    return opened


def _close_connector_result(opened: Any) -> None:
    """Close what a connector has returned, because nobody else will."""
    try:
        opened.close()
    except Exception as error:
        if from_handler(error):
            raise


def _close_socket(sock: socket.socket) -> None:
    """End the connection, even if pg8000's files, kept by a traceback, still refer to *sock*."""
    if sock.fileno() == -1:
        return
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:  # not connected
        if from_outside(error, *SOCKETS):
            raise
    finally:
        # close() would wait until these files are closed.
        socket.close(sock.detach())


def _endpoints(parameters: Mapping[str, Any]) -> Iterator[Endpoint]:
    """Yield the endpoints to try, in order."""
    addresses = str(parameters.get("hostaddr", "")).split(",")
    hosts = str(parameters["host"]).split(",") if "host" in parameters else [""] * len(addresses)
    ports = str(parameters.get("port", "")).split(",")
    for number, host in enumerate(hosts):
        port = int(ports[number if len(ports) > 1 else 0] or _PORT)
        address = addresses[number].strip() if "hostaddr" in parameters else ""
        yield Endpoint(host.strip() or address or _default_host(port), port, address)


def _default_host(port: int) -> str:
    if hasattr(socket, "AF_UNIX"):
        for directory in settings.SOCKET_DIRECTORIES:
            if Path(directory, f".s.PGSQL.{port}").exists():
                return directory
    return "localhost"


def _open(
    parameters: Mapping[str, Any], endpoint: Endpoint, attribute: str, sockets: list[socket.socket]
) -> CoreConnection:
    """Return a connection to *endpoint* that meets *attribute*.

    :param sockets: receives the sockets that are opened; the caller closes them if this fails.
    """
    if "user" not in parameters:
        parameters = {"user": getpass.getuser(), **parameters}
    # As in libpq, each host, and each of its addresses, has the whole time.
    limit = max(int(parameters.get("connect_timeout", 0)), 0) or _CONNECT_TIMEOUT
    deadline = Deadline(limit, parameters.get("timeout"))
    pg = _log_in(parameters, endpoint, deadline, sockets)
    handshake = pg._usock
    if pg.parameter_statuses.get("client_encoding") != "UTF8":
        pg.execute_simple("SET client_encoding TO 'UTF8'")
        if pg.parameter_statuses.setdefault("client_encoding", "UTF8") != "UTF8":
            raise errors.OperationalError("the server does not accept client_encoding UTF8")
    if attribute in _ATTRIBUTES:
        ((right,),) = pg.execute_simple(f"SELECT {_ATTRIBUTES[attribute]}").rows
        if not right:
            _close_connector_result(pg)
            raise _UnwantedSession(f"the session is not {attribute}")
    if pg._transaction_status not in (None, b"I"):
        raise errors.OperationalError("the new session is already in a transaction")
    pg._usock = handshake.socket
    pg._usock.settimeout(parameters.get("timeout"))
    return pg


def _log_in(
    parameters: Mapping[str, Any],
    endpoint: Endpoint,
    deadline: Deadline,
    sockets: list[socket.socket],
) -> CoreConnection:
    secret = parameters.get("password")
    if secret is None:
        secret = settings.password(parameters, endpoint.host, endpoint.port)
    attempts = _tls_attempts(parameters, endpoint)
    refusal: BaseException | None = None
    while True:
        context, needed = attempts.pop(0)
        sock = _open_socket(parameters, endpoint, deadline)
        sockets.append(sock)
        try:
            if context is not None:
                sock.settimeout(deadline.remaining())
                sock = _start_tls(sock, context, endpoint.host, needed)
                sockets.append(sock)
            return LoginConnection(
                parameters["user"],
                host=endpoint.host,
                sock=Handshake(sock, deadline),
                ssl_context=False,  # TLS is on already
                database=parameters.get("dbname", parameters["user"]),
                password=secret,
                application_name=parameters.get(
                    "application_name", parameters.get("fallback_application_name")
                ),
                startup_params=_startup_parameters(parameters),
            )
        except BaseException as error:
            secured = isinstance(sock, ssl.SSLSocket)
            _close_socket(sock)
            if not isinstance(error, Exception) or _error_from_outside(error) is not None:
                raise
            links = _error_chain(error)
            if secret is None and any(isinstance(link, AttributeError) for link in links):
                # pg8000 assumes that there is a password
                raise errors.OperationalError("no password supplied") from error
            # Try with, or without, TLS: if TLS fails, or if the server refuses only one of both.
            failed = any(isinstance(link, ssl.SSLError) for link in links)
            refused = any(_sqlstate(link).startswith("28") for link in links)
            if attempts and (failed or (refused and secured is not bool(attempts[0][0]))):
                refusal = error
            elif refusal is None:
                raise
            elif secured or context is None:
                # As in libpq, both reasons are told. A server that insists on TLS says that the
                # password is wrong only to the attempt with TLS.
                raise _RefusedTwice(refusal, error) from error
            else:
                raise refusal from None  # the other attempt failed, too


def _open_socket(
    parameters: Mapping[str, Any], endpoint: Endpoint, deadline: Deadline
) -> socket.socket:
    """Return a socket that is connected to *endpoint*."""
    if endpoint.local:

        def reach(sock: socket.socket) -> None:
            sock.settimeout(deadline.remaining())
            sock.connect(f"{endpoint.host}/.s.PGSQL.{endpoint.port}")

        return configure_or_close(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), reach)
    return configure_or_close(
        _connect_tcp(parameters, endpoint, deadline), partial(_set_options, parameters)
    )


def _set_options(parameters: Mapping[str, Any], sock: socket.socket) -> None:
    """Set the TCP options of the settings."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keepalives = parameters.get("keepalives", parameters.get("tcp_keepalive", 1))
    on = str(keepalives) not in ("0", "False")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)
    for name, option in _KEEPALIVES.items():
        if name in parameters and hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), int(parameters[name]))


def _connect_tcp(
    parameters: Mapping[str, Any], endpoint: Endpoint, deadline: Deadline
) -> socket.socket:
    """Return a socket that is connected to the first reachable address of the host.

    `socket.create_connection` would take an OSError of a signal handler for its own.
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in _addresses(parameters, endpoint, deadline):
        if failure is not None:
            deadline.restart()
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.remaining())
            if source := parameters.get("source_address"):
                sock.bind(source)
            sock.connect(address)
            return sock
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or from_outside(error, *SOCKETS):
                raise
            failure = error
    assert failure is not None  # getaddrinfo() returns an address or raises
    raise failure


def _addresses(parameters: Mapping[str, Any], endpoint: Endpoint, deadline: Deadline) -> list[Any]:
    """Return the addresses of a host, as `socket.getaddrinfo` does, within ``connect_timeout``.

    A look-up cannot be cancelled. One that takes too long goes on in its thread.
    """

    def look_up(flags: int = 0) -> list[Any]:
        host = endpoint.address or endpoint.host
        try:
            return socket.getaddrinfo(host, endpoint.port, type=socket.SOCK_STREAM, flags=flags)
        except UnicodeError as error:  # such as a part of more than 63 characters
            raise errors.OperationalError(f"this is not a host name: {error}") from error

    if "connect_timeout" not in parameters:
        return look_up()
    try:
        return look_up(socket.AI_NUMERICHOST)
    except socket.gaierror as error:  # a name, not an address
        if from_outside(error, *SOCKETS):
            raise
    found: list[Any] = []
    call = BackgroundCall(lambda: found.extend(look_up()))
    call.start()
    if not call.wait(deadline.remaining()):
        raise TimeoutError("timed out while looking up the host name")
    if call.error is not None:
        raise call.error
    return found


def _start_tls(
    sock: socket.socket, context: ssl.SSLContext, host: str, needed: bool
) -> socket.socket:
    """Return *sock* with TLS; without, if the server has none and it is not *needed*."""
    sock.sendall(_SSL_REQUEST)
    answer = sock.recv(1)
    if answer == b"S":
        try:
            return context.wrap_socket(sock, server_hostname=host)
        except ConnectionError as error:
            if from_outside(error, *SOCKETS):
                raise
            # A server that rejects the certificate may close the connection without a word.
            raise ssl.SSLError(f"the TLS handshake failed: {error}") from error
    if answer != b"N":
        raise ssl.SSLError("the server sent no valid answer to the request for TLS")
    if needed:
        raise errors.OperationalError("the server does not support SSL, but SSL was required")
    return sock


def _startup_parameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    startup = {"client_encoding": "UTF8", **(parameters.get("startup_params") or {})}
    if "options" in parameters:
        startup["options"] = str(parameters["options"])
    return startup


def _tls_attempts(
    parameters: Mapping[str, Any], endpoint: Endpoint
) -> list[tuple[ssl.SSLContext | None, bool]]:
    """Return the attempts in order: a TLS context, or None, and whether TLS is required.

    https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
    """
    mode = settings.sslmode(parameters)
    given = parameters.get("ssl_context")
    if endpoint.local or mode == "disable" or given is False:
        return [(None, False)]
    if given is not None:
        return [(tls.context(parameters, "require") if given is True else given, True)]
    context = tls.context(parameters, mode)
    if mode == "allow":
        return [(None, False), (context, True)]
    if mode == "prefer":
        return [(context, False), (None, False)]
    return [(context, True)]


def _sqlstate(error: BaseException) -> str:
    fields = error.args[0] if error.args else None
    return str(fields.get("C", "")) if isinstance(fields, dict) else ""


def _failure_message(endpoint: Endpoint, error: BaseException) -> str:
    """Return the message that libpq would give."""
    return f"connection to server {endpoint} failed: {_reason(error)}"


def _reason(error: BaseException) -> str:
    fields = error.args[0] if error.args else None
    if isinstance(fields, dict):
        return f"{fields.get('S', 'FATAL')}:  {fields.get('M')}"
    if isinstance(error, errors.InterfaceError):
        if error.__cause__ is not None:
            return f"{error}: {error.__cause__}"
        if str(error) == "network error":  # pg8000's message
            return "the server closed the connection unexpectedly"
    if not isinstance(error, (errors.Error, OSError, _UnwantedSession)):
        return f"the server sent a message that cannot be read ({type(error).__name__}: {error})"
    return str(error)
