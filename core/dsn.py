"""DSN: the URI by which libpq is told where a database is."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit


def parameters_of(uri: str) -> dict[str, str]:
    """Return libpq's parameters of a URI such as ``postgresql://user@host:5432/name``.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS

    :raises ValueError: *uri* is no such URI. The text does not show it: it may have a password.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("not a libpq URI: it does not begin with postgresql://")
    found = {
        "dbname": unquote(parts.path.lstrip("/")),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": unquote(parts.hostname or ""),
        "port": str(parts.port or ""),
        **dict(parse_qsl(parts.query)),
    }
    return {name: value for name, value in found.items() if value}
