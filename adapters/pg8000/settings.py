"""The settings of a connection, by libpq's names: what may be said, and where else it is found.

What is not said is looked for in the service file, in the environment, and, if it is the
password, in the password file.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

import configparser
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relet.core import ConfigurationError
from relet.core.policy import check_keys

#: libpq's settings, and the variables of the environment that they are looked for in.
LIBPQ: dict[str, str | None] = {
    "application_name": "PGAPPNAME",
    "client_encoding": None,
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "dbname": "PGDATABASE",
    "fallback_application_name": None,
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
#: Settings of pg8000's own.
#: https://codeberg.org/tlocke/pg8000#pg8000dbapiconnect
PG8000 = ("source_address", "ssl_context", "startup_params", "tcp_keepalive", "timeout")

_RESERVED = {
    "cursor_factory": "there is one kind of cursors here, which sends simple queries",
    "prepare_threshold": "simple queries cannot be prepared",
    "server_side_binding": "simple queries have their parameters in them",
}
_CHOICES = {
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
    """Raise `ConfigurationError` for settings that are not known, or wrong.

    With ``connect``, whatever is beside it is for that to judge.
    """
    if (connect := given.get("connect")) is not None:
        if not callable(connect) and not isinstance(connect, str):
            raise ConfigurationError(
                f"'connect' is {connect!r}; it can be a callable that returns a connection of "
                "pg8000's, or the dotted path of one."
            )
        return
    reserved = {name: why for name, why in _RESERVED.items() if given.get(name)}
    check_keys(
        {name: value for name, value in given.items() if name not in _RESERVED or value},
        [*LIBPQ, *PG8000, "connect"],
        reserved,
    )
    for name, choices in _CHOICES.items():
        if given.get(name, choices[0]) not in choices:
            known = ", ".join(map(repr, choices))
            raise ConfigurationError(f"{name!r} is {given[name]!r}; it can be {known}.")
    for name in _WHOLE_NUMBERS:
        if not re.fullmatch(r"\d+", str(given.get(name, 0))):
            raise ConfigurationError(f"{name!r} is {given[name]!r}; it must be a whole number.")
    encoding = str(given.get("client_encoding", "utf8"))
    if re.sub(r"[\W_]", "", encoding).lower() not in ("utf8", "unicode", "auto"):
        raise ConfigurationError(f"'client_encoding' is {encoding!r}; this driver speaks 'UTF8'.")
    if "ssl_context" in given and "sslmode" in given:
        raise ConfigurationError("'ssl_context' and 'sslmode' say the same; give one of them.")
    hosts, ports = str(given.get("host", "")).split(","), str(given.get("port", "")).split(",")
    if len(ports) not in (1, len(hosts)):
        raise ConfigurationError(
            f"'port' names {len(ports)} ports for the {len(hosts)} hosts of 'host'; give one, or "
            "as many as there are hosts."
        )
    for port in ports:
        if port and not (port.strip().isdigit() and 0 < int(port) < 65536):
            raise ConfigurationError(f"'port' is {given['port']!r}; it must be a port number.")


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return *given* with what the service file and the environment say beside it.

    :raises ConfigurationError: there is no such service.
    """
    settings = {name: value for name, value in given.items() if value not in (None, "")}
    environment = {
        name: os.environ[variable]
        for name, variable in LIBPQ.items()
        if variable is not None and os.environ.get(variable)
    }
    service = settings.pop("service", environment.pop("service", None))
    if service is not None:
        settings = {**_service(str(service)), **settings}
    return {**environment, **settings}


def _service(name: str) -> dict[str, str]:
    """Return what the service file says of *name*.

    https://www.postgresql.org/docs/current/libpq-pgservice.html
    """
    own = os.environ.get("PGSERVICEFILE") or Path.home() / ".pg_service.conf"
    system = Path(os.environ.get("PGSYSCONFDIR", "/etc/postgresql-common"), "pg_service.conf")
    for path in own, system:
        parser = configparser.ConfigParser(
            delimiters=("=",), comment_prefixes=("#",), interpolation=None, strict=False
        )
        try:
            parser.read(path)
        except configparser.Error as error:
            raise ConfigurationError(f"the service file {str(path)!r}: {error}") from error
        if parser.has_section(name):
            found = dict(parser[name])
            check(found)
            return found
    raise ConfigurationError(f"'service' is {name!r}, of which no service file knows.")


_FIELD = re.compile(r"((?:[^\\:]|\\.)*)(?::|$)")


def password(settings: Mapping[str, Any], host: str, port: int) -> str | None:
    """Return what the password file has for a server; None if it has nothing.

    https://www.postgresql.org/docs/current/libpq-pgpass.html
    """
    path = Path(settings.get("passfile") or Path.home() / ".pgpass")
    try:
        # libpq takes no notice of it where others may read it.
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None
        lines = path.read_text().splitlines()
    except OSError:
        return None
    wanted = ("localhost" if host.startswith("/") else host, str(port))
    wanted += (str(settings.get("dbname", settings["user"])), str(settings["user"]))
    for line in lines:
        fields = [re.sub(r"\\(.)", r"\1", field) for field in _FIELD.findall(line)]
        matching = zip(fields, wanted, strict=False)
        if (
            not line.startswith("#")
            and len(fields) > 4
            and all(field in ("*", value) for field, value in matching)
        ):
            return fields[4]
    return None
