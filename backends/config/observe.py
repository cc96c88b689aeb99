"""Observe: reads ``OPTIONS["observe"]`` of an alias."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

from relet.core import ConfigurationError
from relet.core.errors import did_you_mean
from relet.core.policy import check_keys

from .options import OptionError


class Observe(NamedTuple):
    """What is noted of an alias.

    :param stacks: where leases that outlast a statement began, took their last cursor, and ran
        their last statement.
    :param queries: counts of statements, by text.
    :param routes: counts of leases, by route.
    :param signal: the name of a signal on which all reports are written to stderr.
    """

    stacks: bool = True
    queries: bool = True
    routes: bool = True
    signal: str | None = None


_KEYS = Observe._fields


def observe_options(alias: str, settings: Mapping[str, Any]) -> Observe | None:
    """Return what to note of *alias*, or None for nothing.

    :raises OptionError: ``OPTIONS["observe"]`` is invalid.
    """
    try:
        return _observe(settings.get("OPTIONS", {}).get("observe", True))
    except ConfigurationError as error:
        raise OptionError(alias, "'OPTIONS']['observe'", error, "relet.E011") from error


def observe_or_default(alias: str, settings: Mapping[str, Any]) -> Observe | None:
    """Return `observe_options`, or the default if they are invalid, for wrappers.

    The error is raised when the pool is made, and by the system check, which needs a wrapper.
    """
    try:
        return observe_options(alias, settings)
    except OptionError:
        return Observe()


def _observe(setting: object) -> Observe | None:
    if setting is True or setting is False:
        return Observe() if setting else None
    if not isinstance(setting, Mapping):
        raise ConfigurationError(
            f"it is {setting!r}; it must be True, False, or a dict with any of the keys "
            f"{', '.join(map(repr, _KEYS))}."
        )
    check_keys(setting, _KEYS)
    for key in "stacks", "queries", "routes":
        if (value := setting.get(key, True)) is not True and value is not False:
            raise ConfigurationError(f"{key!r} is {value!r}; it must be True or False.")
    if (name := setting.get("signal")) is not None:
        _check_signal(name)
    return Observe(**setting)


def _check_signal(name: object) -> None:
    known = [each.name for each in signal.Signals if each.name not in _FATAL]
    if not isinstance(name, str) or name not in known:
        raise ConfigurationError(
            f"'signal' is {name!r}; it must be the name of a signal that a program can handle, "
            f"such as 'SIGUSR2'{did_you_mean(name, known)}, or None."
        )


#: Signals that cannot be handled, or report a crash of the process.
_FATAL = ("SIGKILL", "SIGSTOP", "SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL")
