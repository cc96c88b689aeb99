"""How a connection is opened: by pg8000, from libpq's settings; or by whoever one asks to.

https://www.postgresql.org/docs/current/libpq-connect.html
"""

from __future__ import annotations

import getpass
import pkgutil
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pg8000.core import CoreConnection

from relet.core import ConfigurationError

from . import errors, settings
from .connection import Connection

_PORT = 5432
#: Where servers have their sockets, if nothing else is said.
_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")
_NAMES = {"dbname": "database"}
_KEEPALIVES = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
#: For each of ``target_session_attrs``: what a session is to be, as its server tells it.
_ATTRIBUTES = {
    "read-write": "NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::bool",
    "read-only": "pg_is_in_recovery() OR current_setting('transaction_read_only')::bool",
    "primary": "NOT pg_is_in_recovery()",
    "standby": "pg_is_in_recovery()",
}


def connect(*, texts: frozenset[str] = frozenset(), **given: Any) -> Connection:
    """Open a connection.

    :param given: settings by libpq's names, and some of pg8000's own; or ``connect``, a callable
        or its dotted path, that is called with all the others and returns a connection of
        pg8000's: Google's connectors have such.
    :param texts: names of types that are loaded as text.
    :raises ConfigurationError: a setting is not known, or wrong.
    :raises OperationalError: the server cannot be reached, or refuses.
    """
    settings.check(given)
    if given.get("connect") is not None:
        return Connection(_asked(**given), texts=texts)
    known = settings.complete(given)
    attributes = known.get("target_session_attrs", "any")
    wanted = ["standby", "any"] if attributes == "prefer-standby" else [attributes]
    failures: list[str] = []
    for attribute in wanted:
        for host, port in _places(known):
            try:
                return Connection(_open(known, host, port, attribute), texts=texts)
            except _Elsewhere as error:
                failures.append(_failure(host, port, error))
            except Exception as error:
                error = _cause(error)
                failed = errors.OperationalError(_failure(host, port, error))
                failed.sqlstate = code = _sqlstate(error)  # type: ignore[attr-defined]
                # Who is there, and says no, is whom one has asked for.
                if code.startswith("28") or len(list(_places(known))) == 1:
                    raise failed from error
                failures.append(str(failed))
    raise errors.OperationalError("\n".join(failures))


def _cause(error: BaseException) -> BaseException:
    """Return the server's error, if there is one among those that led to *error*.

    pg8000 closes its connection then; that may fail in turn. None of them keeps its frames, for
    they have the socket, which would so stay open.
    """
    cause: BaseException | None = None
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        if _sqlstate(link):
            cause = link
        link = link.__cause__ or link.__context__
    return cause or error


class _Elsewhere(Exception):
    """The session is not what ``target_session_attrs`` asks for."""


def _asked(connect: Callable[..., Any] | str, **others: Any) -> CoreConnection:
    if isinstance(connect, str):
        try:
            connect = pkgutil.resolve_name(connect)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(
                f"'connect': {connect!r} cannot be imported: {error}."
            ) from error
    named = {_NAMES.get(name, name): value for name, value in others.items()}
    named.pop("client_encoding", None)
    opened = connect(**named)  # type: ignore[operator]
    if not isinstance(opened, CoreConnection):
        raise ConfigurationError(
            f"'connect' returned {opened!r}; it is to return a connection of pg8000's."
        )
    return opened


def _places(known: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield hosts and ports, in the order that they are to be tried in."""
    hosts = str(known.get("host", "")).split(",")
    ports = str(known.get("port", "")).split(",")
    for number, host in enumerate(hosts):
        port = int(ports[number if len(ports) > 1 else 0] or _PORT)
        yield host.strip() or _default_host(known, port), port


def _default_host(known: Mapping[str, Any], port: int) -> str:
    if not known.get("hostaddr") and hasattr(socket, "AF_UNIX"):
        for directory in _SOCKET_DIRECTORIES:
            if Path(directory, f".s.PGSQL.{port}").exists():
                return directory
    return "localhost"


def _open(known: Mapping[str, Any], host: str, port: int, attribute: str) -> CoreConnection:
    settled = {"user": getpass.getuser(), **known} if "user" not in known else known
    secret = settled.get("password")
    if secret is None:
        secret = settings.password(settled, host, port)
    local = host.startswith("/")
    limit = int(settled.get("connect_timeout", 0)) or settled.get("timeout")
    sock = None
    if settled.get("hostaddr"):
        sock = socket.create_connection((settled["hostaddr"], port), limit)
    failure: Exception | None = None
    pg: CoreConnection | None = None
    for context in _contexts(settled, local):
        try:
            pg = CoreConnection(
                settled["user"],
                host=host,
                port=port,
                sock=sock,
                unix_sock=f"{host}/.s.PGSQL.{port}" if local else None,
                database=settled.get("dbname", settled["user"]),
                password=secret,
                ssl_context=context,
                timeout=limit,
                source_address=settled.get("source_address"),
                tcp_keepalive=str(settled.get("keepalives", settled.get("tcp_keepalive", 1)))
                not in ("0", "False"),
                application_name=settled.get(
                    "application_name", settled.get("fallback_application_name")
                ),
                startup_params=_startup(settled),
            )
            break
        except AttributeError as error:
            if secret is None:  # pg8000 takes for granted that there is one
                raise errors.OperationalError("no password supplied") from error
            raise
        except Exception as error:
            failure = error
    if pg is None:
        assert failure is not None
        raise failure
    try:
        _settle(pg, settled, local)
        if attribute in _ATTRIBUTES:
            ((right,),) = pg.execute_simple(f"SELECT {_ATTRIBUTES[attribute]}").rows
            if not right:
                raise _Elsewhere(f"the session is not {attribute}")
    except BaseException:
        with suppress(Exception):
            pg.close()
        raise
    return pg


def _startup(known: Mapping[str, Any]) -> dict[str, str]:
    parameters = {"client_encoding": "UTF8", **(known.get("startup_params") or {})}
    if "options" in known:
        parameters["options"] = str(known["options"])
    return parameters


def _settle(pg: CoreConnection, known: Mapping[str, Any], local: bool) -> None:
    """Make of the socket of a connection what is wanted once it is open."""
    pg._usock.settimeout(known.get("timeout"))
    if not local:
        with suppress(OSError):
            pg._usock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, option in _KEEPALIVES.items():
            if name in known and hasattr(socket, option):
                pg._usock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), int(known[name]))


def _contexts(known: Mapping[str, Any], local: bool) -> list[ssl.SSLContext | bool | None]:
    """Return how TLS is to be tried, in order, in pg8000's words.

    False is without, None is with it if the server has it, True is with it, unverified.

    https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
    """
    if "ssl_context" in known:
        return [known["ssl_context"]]
    mode = known.get("sslmode", "prefer")
    root, certificate = known.get("sslrootcert"), known.get("sslcert")
    if local or mode == "disable":
        return [False]
    if mode == "allow":
        return [False, True]
    if mode == "prefer":
        return [None, False]
    if mode == "require" and not root and not certificate:
        return [True]
    context = ssl.create_default_context()
    context.check_hostname = mode == "verify-full"
    if mode == "require" and not root:
        context.verify_mode = ssl.CERT_NONE
    elif root != "system":
        default = Path.home() / ".postgresql" / "root.crt"
        context.load_verify_locations(root or default)
    if certificate:
        context.load_cert_chain(certificate, known.get("sslkey"), known.get("sslpassword"))
    return [context]


def _sqlstate(error: BaseException) -> str:
    fields = error.args[0] if error.args else None
    return str(fields.get("C", "")) if isinstance(fields, dict) else ""


def _failure(host: str, port: int, error: BaseException) -> str:
    """Say what went wrong, as libpq does."""
    fields = error.args[0] if error.args else None
    why = f"{fields.get('S', 'FATAL')}:  {fields.get('M')}" if isinstance(fields, dict) else error
    if isinstance(error, errors.InterfaceError) and error.__cause__ is not None:
        why = f"{error}: {error.__cause__}"
    place = f'"{host}", port {port}'
    if host.startswith("/"):
        place = f'on socket "{host}/.s.PGSQL.{port}"'
    else:
        place = f"at {place}"
    return f"connection to server {place} failed: {why}"
