"""ReleasePolicy: when a lease ends."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from .errors import ConfigurationError
from .lease import TABLES

ReleaseMode = Literal["statement", "cursor", "request"]


@dataclass(frozen=True)
class ReleasePolicy:
    """When the leases of a pool end.

    :param release: ``"statement"`` ends a lease with its statement, ``"cursor"``
        when the cursor is closed, ``"request"`` with ``close()``, as Django does.
        In all of them an open transaction, server-side cursor, COPY, or stream keeps it.
    :param check_idle: seconds. With ``CONN_HEALTH_CHECKS``, a connection that was
        idle in the pool for longer is pinged before it is handed out.
    :raises ConfigurationError: a value is not one of these.
    """

    release: ReleaseMode = "statement"
    check_idle: float = 0.5

    def __post_init__(self) -> None:
        if self.release not in list(TABLES):  # a list, for it may not be hashable
            known = ", ".join(map(repr, TABLES))
            raise ConfigurationError(f"'release' is {self.release!r}; it can be {known}.")
        number = isinstance(self.check_idle, (int, float)) and not isinstance(self.check_idle, bool)
        if not number or not self.check_idle >= 0:
            raise ConfigurationError(
                f"'check_idle' is {self.check_idle!r}; it must be a number of seconds, 0 or more."
            )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], **defaults: Any) -> ReleasePolicy:
        """Return the policy that *options*, as written in settings, describe."""
        if not isinstance(options, Mapping):
            raise ConfigurationError(f"a policy is a dict, not {options!r}.")
        check_keys(options, [field.name for field in fields(cls)])
        return cls(**{**defaults, **options})


def check_keys(options: Mapping[str, Any], known: list[str]) -> None:
    """Raise `ConfigurationError` naming each key of *options* that is not in *known*."""
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
