"""Reasons: why something failed, in one line."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from relet.backends.leases import locator
from relet.backends.observe import collection
from relet.backends.observe.kept import KeptLeases
from relet.backends.pools import pools
from relet.core import ConfigurationError

#: Django says that an engine could not be imported, and that the exception above says why.
_SEE_ABOVE = " Check the above exception."


def reason(error: BaseException) -> str:
    """Return the first line of what *error* says. What a server says has no values in it."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    said, see_above, _ = line.partition(_SEE_ABOVE)
    return f"{said} {reason(error.__cause__)}" if see_above and error.__cause__ else line


def reason_of_settings(error: Exception) -> str:
    """Return why the settings cannot be used: they may raise anything when they are imported."""
    # A KeyError only says which key.
    kind = "" if isinstance(error, ImproperlyConfigured) else f"{type(error).__name__}: "
    return f"the settings cannot be used: {kind}{reason(error)}"


def reasons_of_alias(alias: object) -> list[str]:
    """Return why there is nothing to report of *alias*: it is unknown, or has no relet engine.

    It is a note and no error, because a report is for processes that are in trouble already.
    """
    try:
        locator.check(alias)
    except ConfigurationError as error:
        return [str(error)]
    return []


def reasons_of_unobserved(what: str, kind: collection.Kind | None = None) -> list[str]:
    """Return a note for each open pool of which *what* is not counted, because of its settings.

    :param kind: what has a key of ``OPTIONS["observe"]``.
    """
    notes = []
    for handle in pools:
        setting = "OPTIONS['observe']"
        if isinstance(handle.pool.long_leases, KeptLeases):
            if kind is None or collection.is_counted(handle.alias, kind):
                continue
            setting += f"[{kind!r}]"
        notes.append(
            f"DATABASES[{handle.alias!r}]: {what} not counted, because {setting} is False."
        )
    return notes
