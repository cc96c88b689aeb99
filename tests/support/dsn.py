"""How a database is named: by a URI of libpq's, by libpq's parameters, or in Django's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from relet.core.dsn import parameters_of as parameters_of

#: libpq's word for a part of it, and Django's.
_WORDS = {
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}


def uri_of(parameters: Mapping[str, str]) -> str:
    return f"postgresql://?{urlencode(parameters, quote_via=quote, safe='')}"


def database_of(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``DATABASES[alias]`` says to reach it; for `dict.update`."""
    options = {name: value for name, value in parameters.items() if name not in _WORDS}
    named = {theirs: parameters.get(ours, "") for ours, theirs in _WORDS.items()}
    return {**named, "OPTIONS": options}


def parameters_for(database: Mapping[str, Any]) -> dict[str, str]:
    """Return libpq's parameters for a ``DATABASES[alias]``, but for its OPTIONS."""
    named = {ours: str(database.get(theirs) or "") for ours, theirs in _WORDS.items()}
    return {name: value for name, value in named.items() if value}
