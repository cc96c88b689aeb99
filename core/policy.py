"""ReleasePolicy: when a lease ends, and what becomes of session state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from relet.core.sql.effects import Kind

from .errors import ConfigurationError, did_you_mean
from .lease import TABLES

ReleaseMode = Literal["statement", "cursor", "request"]
StateMode = Literal["pin", "reset", "error", "ignore"]
RetryMode = Literal["never", "reads"]
STATE_MODES = get_args(StateMode)
RETRY_MODES = get_args(RetryMode)


@dataclass(frozen=True)
class ReleasePolicy:
    """When the leases of a pool end, and what becomes of session state.

    Subclass it for a policy of your own; `state_mode` is made to be overridden.

    :param release: ``"statement"`` ends a lease with its statement, ``"cursor"``
        when the cursor is closed, ``"request"`` with ``close()``, as Django does.
        In all of them an open transaction, server-side cursor, COPY, or stream keeps it.
    :param session_state: what happens when a statement leaves something in its session
        (SET, LISTEN, a temporary table, ...). ``"pin"`` keeps the lease until ``close()``,
        then undoes it; ``"reset"`` undoes it when the lease ends, which it does not keep;
        ``"error"`` refuses to run the statement; ``"ignore"`` leaves it to whoever gets
        the connection next.
    :param check_idle: seconds. A connection that was idle in the pool for longer is looked at
        before it is handed out: whether the server has ended it, and said so. That is no round
        trip. With ``CONN_HEALTH_CHECKS`` it is pinged, which is one.
    :param retry: ``"reads"`` has a statement go on the next connection that works, where the server
        has ended that which it was about to be sent on, however short it was idle. It must be
        outside of transactions, and only read (`relet.core.sql.readonly.only_reads`). Nothing
        that may have arrived at the server is ever sent again.
    :raises ConfigurationError: a value is not one of these.
    """

    release: ReleaseMode = "statement"
    session_state: StateMode = "pin"
    check_idle: float = 0.5
    retry: RetryMode = "never"

    def __post_init__(self) -> None:
        for name, known in (
            ("release", list(TABLES)),
            ("session_state", STATE_MODES),
            ("retry", RETRY_MODES),
        ):
            if (value := getattr(self, name)) not in known:
                allowed = ", ".join(map(repr, known))
                raise ConfigurationError(f"{name!r} is {value!r}; it can be {allowed}.")
        check_number("check_idle", self.check_idle)

    def state_mode(self, kind: Kind) -> StateMode:
        """Return what happens to session state of *kind*: `session_state`, for all kinds.

        Asked when a statement makes such state, and not for any other statement.
        """
        return self.session_state

    def replaced(self, changes: Mapping[str, Any]) -> ReleasePolicy:
        """Return this policy with *changes*.

        :raises ConfigurationError: it has no such key, or does not take a value.
        """
        if not changes:
            return self
        check_keys(changes, [field.name for field in fields(self)])
        try:
            return replace(self, **changes)
        except TypeError as error:  # it has an __init__ of its own
            raise ConfigurationError(
                f"{type(self).__name__} cannot be changed: {error}."
            ) from error

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], **defaults: Any) -> ReleasePolicy:
        """Return the policy that *options*, as written in settings, describe."""
        if not isinstance(options, Mapping):
            raise ConfigurationError(f"a policy is a dict, not {options!r}.")
        check_keys(options, [field.name for field in fields(cls)])
        return cls(**{**defaults, **options})


def check_keys(
    options: Mapping[str, Any], known: Sequence[str], reserved: Mapping[str, str] | None = None
) -> None:
    """Raise `ConfigurationError` naming each key of *options* that is not in *known*.

    :param reserved: keys that are not to be set, and why.
    """
    for key, why in (reserved or {}).items():
        if key in options:
            raise ConfigurationError(f"{key!r} cannot be set: {why}.")
    unknown = [key for key in options if key not in known]
    if not unknown:
        return
    guesses = [f"{key!r}{did_you_mean(key, known)}" for key in unknown]
    raise ConfigurationError(
        f"unknown {', '.join(guesses)}; known are {', '.join(map(repr, sorted(known)))}."
    )


def check_number(
    key: str, value: object, *, whole: bool = False, least: int = 0, unless: str = ""
) -> None:
    """Raise `ConfigurationError` unless *value* is a number: of seconds, or a whole one.

    :param key: the option, as it is written in the settings.
    :param unless: what else it can be, such as ``", or None"``.
    """
    kinds = int if whole else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool) and value >= least:
        return
    number, convert = ("a whole number", "int()") if whole else ("a number of seconds", "float()")
    raise ConfigurationError(
        f"{key!r} is {value!r}; it must be {number}, {least} or more{unless}."
        f"{_from_environment(value, convert)}"
    )


def check_boolean(key: str, value: object) -> None:
    """Raise `ConfigurationError` if *value* is text, which is true whatever it says."""
    if isinstance(value, (str, bytes)):
        raise ConfigurationError(
            f"{key!r} is {value!r}; it must be True or False."
            + _from_environment(value, '== "True"')
        )


def check_function(key: str, value: object) -> None:
    """Raise `ConfigurationError` unless *value* is a function, or None."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{key!r} is {value!r}; it must be a function.")


def _from_environment(value: object, convert: str) -> str:
    if not isinstance(value, (str, bytes)):
        return ""
    return f" If it comes from the environment, it is text: convert it with {convert}."
