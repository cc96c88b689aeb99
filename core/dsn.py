"""DSN: the URI by which libpq is told where a database is."""

from __future__ import annotations

import re
from urllib.parse import unquote

_SCHEMES = ("postgresql", "postgres")
_USER = re.compile(r"([^:/@]*)(?::([^/@]*))?@")
_REST = re.compile(r"([^/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL)
#: An IPv6 address in brackets, or another host; and a port.
_HOST = re.compile(r"(?:\[([^]]+)\]|(?!\[)([^:]*))(?::([0-9]*))?")
_PARAMETER = re.compile(r"([^=]*)=([^=]*)")
_NOT_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_PORTS = re.compile(r"[0-9]*(?:,[0-9]*)*")


def parameters_of(uri: str) -> dict[str, str]:
    """Return libpq's parameters of a URI such as ``postgresql://user@host:5432/name``.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS

    :raises ValueError: *uri* is no such URI. The text shows none of it: it may have a password.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise _no_uri("it does not begin with postgresql://")
    user = password = ""
    if (before := _USER.match(rest)) is not None:
        user, password = before[1], before[2] or ""
        rest = rest[before.end() :]
    parts = _REST.fullmatch(rest)
    assert parts is not None  # it matches every text
    host, port = _hosts(parts[1])
    found = {
        "dbname": _decoded(parts[2] or ""),
        "user": _decoded(user),
        "password": _decoded(password),
        "host": _decoded(host),
        "port": port,
        **_query(parts[3] or ""),
    }
    if not _PORTS.fullmatch(found["port"]):
        raise _no_uri("its port is not a number")
    return {name: value for name, value in found.items() if value}


def _no_uri(reason: str) -> ValueError:
    return ValueError(f"not a libpq URI: {reason}")


def _hosts(text: str) -> tuple[str, str]:
    """Return the hosts, and their ports, with a comma in between if there are several."""
    found = [_HOST.fullmatch(one) for one in text.split(",")]
    each = [one for one in found if one is not None]
    if len(each) < len(found):
        raise _no_uri("a host cannot be read, or its port is not a number")
    hosts = ",".join(one[1] or one[2] or "" for one in each)
    return hosts, ",".join(one[3] or "" for one in each)


def _query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in text.removesuffix("&").split("&") if text else ():
        if (pair := _PARAMETER.fullmatch(one)) is None:
            raise _no_uri("after the question mark, something is not NAME=VALUE")
        name, value = _decoded(pair[1]), _decoded(pair[2])
        # JDBC's word for it.
        found.update({"sslmode": "require"} if (name, value) == ("ssl", "true") else {name: value})
    return found


def _decoded(text: str) -> str:
    """Return *text* without percent signs. A plus sign is one, which in a form is a space."""
    if _NOT_ENCODED.search(text):
        raise _no_uri("a percent sign has no code after it; write a percent sign itself as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _no_uri("it is not UTF-8") from None
