"""Credentials: parameters of connections that are asked for anew at each one.

A password that is a token of some minutes, a host that a function knows.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .copying import copy_settings
from .options import OptionError

if TYPE_CHECKING:
    from django.db.backends.postgresql.client import DatabaseClient as ClientBase
else:
    ClientBase = object

#: The option that is a function, or its dotted path.
OPTION = "connection_parameters"
#: Of libpq's parameters, those that have a setting of Django's, and that.
_SETTINGS = {
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}
#: What is not to be asked for: tests would run on another database than Django has made.
_DATABASE = ("dbname", "database")


class Credentials:
    """What the settings of an alias say about parameters that are to be asked for.

    :raises OptionError: ``OPTIONS["connection_parameters"]`` is no function.
    """

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        self._alias = alias
        self._password = settings["PASSWORD"] if callable(settings["PASSWORD"]) else None
        self._function = self._find(settings["OPTIONS"].get(OPTION))
        self._known = {
            name: settings[ours]
            for name, ours in _SETTINGS.items()
            if settings[ours] and name != "password"
        }

    def _find(self, setting: object) -> Callable[[dict[str, Any]], Any] | None:
        found = setting
        if isinstance(setting, str):
            try:
                found = pkgutil.resolve_name(setting)
            except (ImportError, AttributeError, ValueError) as error:
                raise self._wrong(f"{setting!r} cannot be imported: {error}.") from error
        if found is not None and not callable(found):
            raise self._wrong(
                f"it is {setting!r}; it can be a function, or the dotted path of one."
            )
        return found

    def ask(self) -> dict[str, Any]:
        """Return the parameters of the next connection that are not in the settings.

        :raises OptionError: a function returned something else than it should.
        """
        asked: dict[str, Any] = {}
        if self._password is not None:
            password = self._password()
            if not isinstance(password, str):
                raise OptionError(
                    self._alias,
                    "'PASSWORD'",
                    f"{self._password!r} returned a {type(password).__name__}; it must be a str.",
                    "relet.E006",
                )
            asked["password"] = password
        if self._function is not None:
            parameters = self._function({**self._known, **asked})
            if not isinstance(parameters, Mapping):
                raise self._wrong(
                    f"{self._function!r} returned a {type(parameters).__name__}; it must be a dict "
                    "of parameters of connections, such as {'password': ...}."
                )
            for name in _DATABASE:
                if name in parameters:
                    raise self._wrong(
                        f"{self._function!r} returned {name!r}; NAME says which database it is, "
                        "for in tests it is another. Return the other parameters only."
                    )
            asked.update(parameters)
        return asked

    def _wrong(self, problem: str) -> OptionError:
        return OptionError(self._alias, f"'OPTIONS']['{OPTION}'", problem, "relet.E006")


class Parameters:
    """All parameters of the connections of an alias.

    A backend may make a token in its ``get_connection_params()``, which is valid for minutes; so
    that method, too, is called for each connection. It may be called in any thread, and a wrapper
    belongs to one: each call has a wrapper of its own.

    :raises OptionError: ``OPTIONS["connection_parameters"]`` is no function.
    """

    def __init__(
        self, wrapper_class: Callable[..., Any], settings: dict[str, Any], alias: str
    ) -> None:
        self._make_wrapper = partial(wrapper_class, copy_settings(settings), alias)
        self._credentials = Credentials(alias, settings)

    def ask(self) -> dict[str, Any]:
        """Return the parameters of the next connection.

        :raises OptionError: a function of the settings returned something else than it should.
        """
        return {**self._make_wrapper().get_connection_params(), **self._credentials.ask()}


def strip_callables(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return *settings* without what is to be asked for."""
    options = {key: value for key, value in settings["OPTIONS"].items() if key != OPTION}
    password = "" if callable(settings["PASSWORD"]) else settings["PASSWORD"]
    return {**settings, "PASSWORD": password, "OPTIONS": options}


def resolve_credentials(alias: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return *settings* with what there is to be asked for, asked for: for one connection."""
    found = strip_callables(settings)
    for name, value in Credentials(alias, settings).ask().items():
        if name in _SETTINGS:
            found[_SETTINGS[name]] = value
        else:
            found["OPTIONS"][name] = value
    return found


class AskingClient(ClientBase):
    """Mixed into the backend's ``DatabaseClient``, for ``manage.py dbshell``."""

    def runshell(self, parameters: Any) -> None:
        wrapper: Any = self.connection
        # All that Django's looks at.
        shown: Any = SimpleNamespace(
            settings_dict=resolve_credentials(wrapper.alias, wrapper.settings_dict)
        )
        self.connection = shown
        try:
            super().runshell(parameters)
        finally:
            self.connection = wrapper
