"""ReleasePolicy: when a lease ends, and what becomes of session state."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from .effects import Kind
from .errors import ConfigurationError
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
        outside of transactions, and only read (`relet.core.reads.only_reads`). Nothing that may
        have arrived at the server is ever sent again.
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
        number = isinstance(self.check_idle, (int, float)) and not isinstance(self.check_idle, bool)
        if not number or not self.check_idle >= 0:
            raise ConfigurationError(
                f"'check_idle' is {self.check_idle!r}; it must be a number of seconds, 0 or more."
            )

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
    options: Mapping[str, Any], known: list[str], reserved: Mapping[str, str] | None = None
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
    guesses = [
        f"{key!r} (did you mean {close[0]!r}?)"
        if (close := difflib.get_close_matches(str(key), known, 1))
        else repr(key)
        for key in unknown
    ]
    raise ConfigurationError(
        f"unknown {', '.join(guesses)}; known are {', '.join(map(repr, sorted(known)))}."
    )
