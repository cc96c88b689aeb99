"""Prepare: reads ``OPTIONS["prepare"]`` of an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from relet.core import ConfigurationError, PoolAdapter
from relet.core.errors import did_you_mean
from relet.core.policy import check_keys

from .options import OptionError

#: What is prepared: declared targets only, or what is run often, too.
MODES = ("targets", "auto")


class Prepare(NamedTuple):
    """What is prepared for an alias.

    :param mode: "targets" for what is declared, "auto" for what is run often, too.
    :param after: with "auto", prepare a statement when it was run more often than this.
    :param max: how many statements each connection keeps prepared.
    """

    mode: str = "targets"
    after: int = 20
    max: int = 100


_KEYS = Prepare._fields


def prepare_options(
    alias: str, settings: Mapping[str, Any], adapter: type[PoolAdapter[Any]]
) -> Prepare | None:
    """Return what to prepare for *alias*; None if the settings do not say.

    :raises OptionError: ``OPTIONS["prepare"]`` is invalid, or the driver cannot prepare.
    """
    options = settings.get("OPTIONS", {})
    if "prepare" not in options:
        return None
    try:
        found = _prepare(options["prepare"])
        if reason := adapter.cannot_prepare():
            raise ConfigurationError(
                f"this engine cannot prepare: {reason}. Or remove this option."
            )
    except ConfigurationError as error:
        raise OptionError(alias, "'OPTIONS']['prepare'", error, "relet.E013") from error
    return found


def _prepare(setting: object) -> Prepare:
    given = {"mode": setting} if isinstance(setting, str) else setting
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"it is {setting!r}; it must be {' or '.join(map(repr, MODES))}, or a dict with any of "
            f"the keys {', '.join(map(repr, _KEYS))}."
        )
    check_keys(given, _KEYS)
    if (mode := given.get("mode", "targets")) not in MODES:
        where = "it" if isinstance(setting, str) else "'mode'"
        raise ConfigurationError(
            f"{where} is {mode!r}; it must be {' or '.join(map(repr, MODES))}"
            f"{did_you_mean(mode, MODES)}."
        )
    for key, least in (("after", 0), ("max", 1)):
        value = given.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(
                f"{key!r} is {value!r}; it must be a whole number of at least {least}."
            )
    return Prepare(**given)
