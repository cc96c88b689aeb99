"""The application name of connections that the user has given none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from relet.core.application_name import names_application, process_name
from relet.core.outside import from_handler

_FALLBACK = "fallback_application_name"
_NAMES = ("application_name", _FALLBACK)


def with_application_name(
    parameters: Mapping[str, Any],
    *,
    dsn: str = "",
    parse: Callable[[str], Mapping[str, Any]] = lambda dsn: {},
) -> Mapping[str, Any]:
    """Return *parameters* with a name for ``pg_stat_activity``, unless the user has set one.

    The name is libpq's ``fallback_application_name``, so that ``PGAPPNAME`` and the service file
    go before it. libpq sends it as a parameter of the login, which goes before all others, so
    options that set the name count as well. An empty name is a name.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-FALLBACK-APPLICATION-NAME

    :param parameters: keyword arguments of the driver's ``connect()``.
    :param dsn: the name of the argument that is a connection string.
    :param parse: returns the parameters in a connection string.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    if given.get(dsn):
        try:
            given = {**parse(given[dsn]), **given}
        except Exception as error:
            if from_handler(error):
                raise
            return parameters  # the driver will say what is wrong with it
    if any(name in given for name in _NAMES):
        return parameters
    if names_application(given.get("options", os.environ.get("PGOPTIONS"))):
        return parameters
    return {**parameters, _FALLBACK: process_name()}
