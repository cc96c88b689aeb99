"""The settings of a connection, by libpq's names.

A setting that is not given is looked up in the service file, then in the environment; a password
also in the password file.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from ssl import SSLContext
from types import NoneType
from typing import Any

from relet.core import ConfigurationError
from relet.core.policy import check_keys

#: libpq's settings, and the environment variable of each.
LIBPQ: dict[str, str | None] = {
    "application_name": "PGAPPNAME",
    "client_encoding": None,
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "dbname": "PGDATABASE",
    "fallback_application_name": None,
    "gssencmode": "PGGSSENCMODE",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "keepalives": None,
    "keepalives_count": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "password": "PGPASSWORD",
    "port": "PGPORT",
    "service": "PGSERVICE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslpassword": None,
    "sslrootcert": "PGSSLROOTCERT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "tcp_user_timeout": None,
    "user": "PGUSER",
}
#: Environment variables of libpq that make demands which this driver cannot meet, and libpq's
#: defaults. To ignore such a variable would drop an operator's demand without a word.
DEMANDS = {
    "PGCHANNELBINDING": "prefer",
    "PGREQUIREAUTH": "",
    "PGREQUIREPEER": "",
    "PGSSLCERTMODE": "allow",
    "PGSSLCRL": "",
    "PGSSLCRLDIR": "",
    "PGSSLMAXPROTOCOLVERSION": "",
    "PGSSLMINPROTOCOLVERSION": "TLSv1.2",
    "PGSSLNEGOTIATION": "postgres",
    "PGSSLSNI": "1",
}
#: pg8000's own settings.
#: https://codeberg.org/tlocke/pg8000#pg8000dbapiconnect
PG8000 = ("source_address", "ssl_context", "startup_params", "tcp_keepalive", "timeout")

#: The default directories of servers' Unix sockets.
SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")

RESERVED = {
    "server_side_binding": "simple queries contain their parameters",
    "prepare_threshold": "simple queries cannot be prepared",
    "cursor_factory": "all cursors of this driver send simple queries",
}
_CHOICES = {
    "gssencmode": ("prefer", "disable"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        *("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    ),
}
_WHOLE_NUMBERS = (
    *("connect_timeout", "keepalives", "keepalives_count", "keepalives_idle"),
    *("keepalives_interval", "tcp_user_timeout"),
)


def check(given: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for settings that are unknown or wrong.

    With ``connect``, the others are that callable's arguments, and are not checked. A setting that
    is None or empty counts as not given.
    """
    if (connect := given.get("connect")) is not None:
        if not callable(connect) and not isinstance(connect, str):
            raise ConfigurationError(
                f"'connect' is {connect!r}; it must be a callable that returns a connection of "
                "pg8000's, or its dotted path."
            )
        return
    unset = [name for name in RESERVED if given.get(name) is None or given[name] is False]
    check_keys(
        {name: value for name, value in given.items() if name not in unset},
        [*LIBPQ, *PG8000, "connect"],
        RESERVED,
    )
    _check_values({name: value for name, value in given.items() if value not in (None, "")})


def _check_values(given: Mapping[str, Any]) -> None:
    for name, choices in _CHOICES.items():
        if given.get(name, choices[0]) not in choices:
            known = ", ".join(map(repr, choices))
            raise ConfigurationError(f"{name!r} is {given[name]!r}; it must be one of {known}.")
    for name in _WHOLE_NUMBERS:
        if not re.fullmatch(r"[-+]?\d+", str(given.get(name, 0)), re.ASCII):
            raise ConfigurationError(f"{name!r} is {given[name]!r}; it must be a whole number.")
    timeout = given.get("timeout", 1)
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not timeout > 0:
        raise ConfigurationError(
            f"'timeout' is {timeout!r}; it must be a positive number of seconds."
        )
    encoding = str(given.get("client_encoding", "utf8"))
    if re.sub(r"[\W_]", "", encoding).lower() not in ("utf8", "unicode", "auto"):
        raise ConfigurationError(
            f"'client_encoding' is {encoding!r}; this driver supports only 'UTF8'."
        )
    _check_tls(given)
    _check_endpoints(given)


def _check_tls(given: Mapping[str, Any]) -> None:
    if not isinstance(context := given.get("ssl_context"), (SSLContext, bool, NoneType)):
        raise ConfigurationError(
            f"'ssl_context' is {context!r}; it must be an ssl.SSLContext, True or False."
        )
    if "ssl_context" in given and "sslmode" in given:
        raise ConfigurationError(
            "'ssl_context' and 'sslmode' exclude each other; give one of them."
        )
    if given.get("sslrootcert") == "system" and sslmode(given) != "verify-full":
        raise ConfigurationError(
            f"'sslmode' is {given['sslmode']!r}, but 'sslrootcert' is 'system', which trusts "
            "certificates of any host: set 'sslmode' to 'verify-full'."
        )


def _check_endpoints(given: Mapping[str, Any]) -> None:
    count = None
    for name in "hostaddr", "host":
        if name in given:
            hosts, count = count, len(str(given[name]).split(","))
            if hosts not in (None, count):
                raise ConfigurationError(
                    f"'host' names {count} hosts but 'hostaddr' {hosts}; give as many of each."
                )
    ports = str(given.get("port", "")).split(",")
    if len(ports) not in (1, count or 1):
        raise ConfigurationError(
            f"'port' names {len(ports)} ports for the {count or 1} hosts of 'host'; give one port, "
            "or one for each host."
        )
    for port in ports:
        if port and not (re.fullmatch(r"\s*\d+\s*", port, re.ASCII) and 0 < int(port) < 65536):
            raise ConfigurationError(f"'port' is {given['port']!r}; it must be a port number.")


def sslmode(known: Mapping[str, Any]) -> str:
    """Return the ``sslmode``: the given one, or libpq's default."""
    default = "verify-full" if known.get("sslrootcert") == "system" else "prefer"
    return str(known.get("sslmode", default))


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return *given* with the settings of the service file and the environment added.

    :raises ConfigurationError: the service was not found, or one of these settings is wrong.
    """
    settings = {
        # As with libpq, a number will do for a password or a name.
        name: str(value) if name in LIBPQ and isinstance(value, int) else value
        for name, value in given.items()
        if value not in (None, "")
    }
    found = {
        name: os.environ[variable]
        for name, variable in LIBPQ.items()
        if variable is not None and os.environ.get(variable)
    }
    if os.environ.get("PGREQUIRESSL", "").startswith("1"):  # the older name
        found.setdefault("sslmode", "require")
    service = settings.pop("service", None) or found.get("service")
    found.pop("service", None)
    if service is not None:
        found.update(_service(str(service)))
    if "ssl_context" in settings:
        found.pop("sslmode", None)
    _check_demands(own_tls=settings.get("ssl_context", True) is not True)
    complete = {**found, **settings}
    try:
        check(complete)
    except ConfigurationError as error:
        names = ", ".join(sorted(found))
        raise ConfigurationError(
            f"{error} (Set by the environment or the service file: {names}.)"
        ) from None
    return complete


def _check_demands(*, own_tls: bool) -> None:
    """Raise `ConfigurationError` if the environment demands what this driver cannot do.

    :param own_tls: whether the settings, not the environment, decide about TLS.
    """
    for variable, default in DEMANDS.items():
        value = os.environ.get(variable) or default
        if value.lower() != default.lower() and not (own_tls and variable.startswith("PGSSL")):
            raise ConfigurationError(
                f"the environment variable {variable} is {value!r}, which this driver does not "
                "support. Unset it for this process, or use an engine that connects with libpq."
            )


def in_home(*names: str) -> Path:
    """Return the path of a file in the home directory."""
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor the password database has one
        home = Path(os.devnull)  # there is no file in it
    return home.joinpath(*names)


def _service(name: str) -> dict[str, str]:
    """Return the settings of the service *name*.

    https://www.postgresql.org/docs/current/libpq-pgservice.html
    """
    own = Path(os.environ.get("PGSERVICEFILE") or in_home(".pg_service.conf"))
    system = Path(os.environ.get("PGSYSCONFDIR", "/etc/postgresql-common"), "pg_service.conf")
    for path in own, system:
        if (found := _section(path, name)) is not None:
            if unknown := sorted(found.keys() - LIBPQ.keys() | found.keys() & {"service"}):
                raise ConfigurationError(
                    f"the service file {str(path)!r}, [{name}]: "
                    f"unknown {', '.join(map(repr, unknown))}."
                )
            return {key: value for key, value in found.items() if value}
    raise ConfigurationError(f"'service' is {name!r}, which was not found in any service file.")


def _section(path: Path, name: str) -> dict[str, str] | None:
    """Return the settings in the section *name* of a service file; None if it is not there.

    As in libpq, the first section and the first setting of a name count, the other sections are
    not looked at, and lines may be indented. No error shows a line: it may have a password.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the service file {str(path)!r} is not UTF-8.") from None
    except OSError:
        return None
    found: dict[str, str] | None = None
    for number, untrimmed in enumerate(text.split("\n"), 1):
        line = untrimmed.strip(" \t\r\v\f")
        if line.startswith("["):
            if found is not None:
                break
            if line.startswith(f"[{name}]"):
                found = {}
        elif line and not line.startswith("#") and found is not None:
            key, equals, value = line.partition("=")
            if not equals:
                raise ConfigurationError(
                    f"the service file {str(path)!r}, line {number}: it has no equals sign."
                )
            if key != (trimmed := key.rstrip()):
                key, value = trimmed, value.lstrip()  # else a space begins the value
            found.setdefault(key, value)
    return found


#: Host, port, database, role and password; a backslash escapes a character.
_LINE = re.compile(":".join([r"([^\\:]*(?:\\(?:.|$)[^\\:]*)*)"] * 5))


def password(settings: Mapping[str, Any], host: str, port: int) -> str | None:
    """Return the password file's password for a server; None if it has none.

    https://www.postgresql.org/docs/current/libpq-pgpass.html
    """
    path = Path(settings.get("passfile") or in_home(".pgpass"))
    try:
        # libpq ignores a file that others may read.
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    user = str(settings["user"])
    wanted = (
        "localhost" if host in SOCKET_DIRECTORIES else host,
        *(str(port), str(settings.get("dbname", user)), user),
    )
    for line in text.split("\n"):
        if line.startswith("#") or (match := _LINE.match(line.rstrip("\r"))) is None:
            continue
        *fields, found = match.groups()
        matching = zip(fields, wanted, strict=True)
        if all(field == "*" or _unescaped(field) == value for field, value in matching):
            return _unescaped(found)
    return None


def _unescaped(field: str) -> str:
    return re.sub(r"\\(.)", r"\1", field)
