"""Credentials: connection parameters that are computed anew for each connection.

Such as a password that is a token valid for minutes, or a host that a function looks up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from relet.core import ConfigurationError
from relet.core.dotted_path import import_dotted_path

from .copying import copy_settings
from .options import OptionError

if TYPE_CHECKING:
    from django.db.backends.postgresql.client import DatabaseClient as ClientBase
else:
    ClientBase = object

#: The key in ``OPTIONS`` whose value is a function or its dotted path.
OPTION = "connection_parameters"
#: libpq's connection parameters -> Django's settings for them.
SETTINGS = {
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}
#: Parameters a function must not return: tests would run on a database that Django did not create.
_DATABASE = ("dbname", "database")


class Credentials:
    """The functions in the settings of an alias that return connection parameters.

    :raises OptionError: ``OPTIONS["connection_parameters"]`` is not a function.
    """

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        self._alias = alias
        self._password = settings["PASSWORD"] if callable(settings["PASSWORD"]) else None
        self._function = self._find(settings["OPTIONS"].get(OPTION))
        self._known = {
            name: settings[setting]
            for name, setting in SETTINGS.items()
            if settings[setting] and name != "password"
        }

    def _find(self, setting: object) -> Callable[[dict[str, Any]], Any] | None:
        found = setting
        if isinstance(setting, str):
            try:
                found = import_dotted_path(setting)
            except ConfigurationError as error:
                raise self._wrong(str(error)) from error
        if found is not None and not callable(found):
            raise self._wrong(f"it is {setting!r}; it must be a function or its dotted path.")
        return found

    def ask(self) -> dict[str, Any]:
        """Call the functions; return the parameters they give for the next connection.

        :raises OptionError: a function returned an unusable value.
        """
        asked: dict[str, Any] = {}
        if self._password is not None:
            password = self._password()
            if not isinstance(password, str):
                raise OptionError(
                    self._alias,
                    "'PASSWORD'",
                    f"{self._password!r} returned a {type(password).__name__}; it must return a "
                    "str.",
                    "relet.E006",
                )
            asked["password"] = password
        if self._function is not None:
            parameters = self._function({**self._known, **asked})
            if not isinstance(parameters, Mapping):
                raise self._wrong(
                    f"{self._function!r} returned a {type(parameters).__name__}; it must return a "
                    "dict of connection parameters, such as {'password': ...}."
                )
            for name in _DATABASE:
                if name in parameters:
                    raise self._wrong(
                        f"{self._function!r} returned {name!r}, but only NAME can set the "
                        "database, because tests use another one. Leave it out."
                    )
            asked.update(parameters)
        return asked

    def _wrong(self, problem: str) -> OptionError:
        return OptionError(self._alias, f"'OPTIONS']['{OPTION}'", problem, "relet.E006")


class Parameters:
    """All connection parameters of an alias.

    A backend's ``get_connection_params()`` may make a token that is valid for minutes, so it is
    called for each connection. Any thread may call it, while a wrapper belongs to one thread, so
    each call uses a wrapper of its own.

    :raises OptionError: ``OPTIONS["connection_parameters"]`` is not a function.
    """

    def __init__(
        self, wrapper_class: Callable[..., Any], settings: dict[str, Any], alias: str
    ) -> None:
        self._make_wrapper = partial(wrapper_class, copy_settings(settings), alias)
        self._credentials = Credentials(alias, settings)

    def ask(self) -> dict[str, Any]:
        """Return the parameters of the next connection.

        :raises OptionError: a function in the settings returned an unusable value.
        """
        return {**self._make_wrapper().get_connection_params(), **self._credentials.ask()}


def strip_callables(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return *settings* without the functions that return connection parameters."""
    options = {key: value for key, value in settings["OPTIONS"].items() if key != OPTION}
    password = "" if callable(settings["PASSWORD"]) else settings["PASSWORD"]
    return {**settings, "PASSWORD": password, "OPTIONS": options}


def resolve_credentials(alias: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return *settings* with callables resolved, for one connection."""
    found = strip_callables(settings)
    for name, value in Credentials(alias, settings).ask().items():
        if name in SETTINGS:
            found[SETTINGS[name]] = value
        else:
            found["OPTIONS"][name] = value
    return found


class CredentialsClient(ClientBase):
    """A mixin for the backend's ``DatabaseClient``, which runs ``manage.py dbshell``."""

    def runshell(self, parameters: Any) -> None:
        wrapper: Any = self.connection
        # Django's runshell() reads only `settings_dict`.
        resolved: Any = SimpleNamespace(
            settings_dict=resolve_credentials(wrapper.alias, wrapper.settings_dict)
        )
        self.connection = resolved
        try:
            super().runshell(parameters)
        finally:
            self.connection = wrapper
