"""ReleasePolicy: when a lease ends, and what happens to session state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from relet.core.sql.effects import Kind

from .errors import ConfigurationError, did_you_mean
from .lease import TABLES

ReleaseMode = Literal["statement", "cursor", "request"]
StateMode = Literal["pin", "reset", "error", "ignore"]
AuditMode = Literal["first", "all", False] | None
RetryMode = Literal["never", "reads"]
DynamicMode = Literal["pin", "ignore"]
STATE_MODES = get_args(StateMode)
RETRY_MODES = get_args(RetryMode)
DYNAMIC_MODES = get_args(DynamicMode)
#: The values of `ReleasePolicy.session_state_audit`, beside None and False.
AUDIT_MODES = ("first", "all")


@dataclass(frozen=True)
class ReleasePolicy:
    """When the leases of a pool end, and what happens to session state.

    Subclass it for a policy of your own; `state_mode` is designed to be overridden.

    :param release: ``"statement"`` ends a lease when its statement has run, ``"cursor"`` when the
        cursor is closed, ``"request"`` when Django calls ``close()``. In all three modes an open
        transaction, server-side cursor, COPY or stream keeps the lease.
    :param session_state: what happens when a statement creates session state (SET, LISTEN, a
        temporary table, ...). ``"pin"`` keeps the lease until ``close()``, then undoes the state;
        ``"reset"`` does not keep the lease, and undoes the state when it ends; ``"error"`` refuses
        to run the statement; ``"ignore"`` leaves the state to the connection's next user.
    :param check_idle: seconds. A connection that was idle in the pool for longer is checked before
        it is handed out. The check looks for a message that the server has ended the session, which
        takes no round trip. With ``CONN_HEALTH_CHECKS`` it pings the server: one round trip.
    :param retry: with ``"reads"``, if the server ended the connection before a statement was sent
        on it, the statement runs on the next connection that works, however short the idle time.
        The statement must be outside a transaction and must only read
        (`relet.core.sql.readonly.only_reads`). A statement that may have reached the server is
        never sent again.
    :param fairness: seconds. A thread that has waited this long for a connection is served before
        all threads that come later. Until then a running thread may take a connection that comes
        free, which keeps the pool busy under load. 0 serves strictly in order. It belongs to the
        pool, so ``override()`` does not change it.
    :param leak_after: seconds, or None. When a lease that outlasts its statement becomes older than
        this, a warning is logged once, with what it does and where it was taken, and an info
        message when it ends after all. A thread looks at these leases; statements pay nothing.
    :param catalogue_ttl: seconds. What the database's functions, triggers, rules and views leave in
        a session is read from its catalogue once a pool, and again when that has changed. Each new
        connection checks whether it has, and after this time an idle one does. None means
        that it is never read, so such state is not seen. It belongs to the pool, so ``override()``
        does not change it.
    :param dynamic_sql: what to make of a function or DO block that puts its SQL together, if its
        source does not show the command. ``"pin"`` takes it to leave session state: the lease is
        kept until ``close()`` (or, if `session_state` is ``"reset"``, the session restored when the
        lease ends). Such a call is never refused. ``"ignore"`` takes it to leave none.
    :param session_state_audit: after which statements the server is asked what they have left in
        the session, to find what their texts do not show: ``"first"``, the first execution of each
        text; ``"all"``, each execution; None or False, none. It costs round trips; it is for tests.
    :raises ConfigurationError: a value is not allowed.
    """

    release: ReleaseMode = "statement"
    session_state: StateMode = "pin"
    check_idle: float = 0.5
    retry: RetryMode = "never"
    fairness: float = 0.005
    leak_after: float | None = None
    catalogue_ttl: float | None = 60.0
    dynamic_sql: DynamicMode = "pin"
    session_state_audit: AuditMode = None

    def __post_init__(self) -> None:
        self._check_class()
        for name, known in (
            ("release", list(TABLES)),
            ("session_state", STATE_MODES),
            ("retry", RETRY_MODES),
            ("dynamic_sql", DYNAMIC_MODES),
            ("session_state_audit", (*AUDIT_MODES, None, False)),
        ):
            if (value := getattr(self, name)) not in known:
                allowed = ", ".join(map(repr, known))
                raise ConfigurationError(f"{name!r} is {value!r}; it can be {allowed}.")
        check_number("check_idle", self.check_idle)
        check_number("fairness", self.fairness)
        if self.leak_after is not None:
            check_number("leak_after", self.leak_after, unless=", or None")
        if self.catalogue_ttl is not None:
            check_number("catalogue_ttl", self.catalogue_ttl, unless=", or None")

    def _check_class(self) -> None:
        """Raise `ConfigurationError` if an attribute of a subclass looks like a field, but is none.

        Without ``@dataclass``, ``__init__()`` has the default of the class above.
        """
        cls = type(self)
        for field in fields(self):
            value = getattr(cls, field.name, field.default)
            if value is not field.default and value != getattr(self, field.name):
                name, kind = cls.__qualname__, type(value).__name__
                raise ConfigurationError(
                    f"{name}.{field.name} is {value!r}, but as a class attribute it has no effect. "
                    f"Write {name}({field.name}={value!r}), or make {name} a "
                    f"@dataclass(frozen=True) and write '{field.name}: {kind} = {value!r}' in it."
                )

    def state_mode(self, kind: Kind) -> StateMode:
        """Return what happens to session state of *kind*. By default it is `session_state`.

        It is called only when a statement creates such state.
        """
        return self.session_state

    def replaced(self, changes: Mapping[str, Any]) -> ReleasePolicy:
        """Return a copy of this policy with *changes*.

        :raises ConfigurationError: a key is unknown, or a value is not allowed.
        """
        if not changes:
            return self
        check_keys(changes, [field.name for field in fields(self)])
        try:
            return replace(self, **changes)
        except TypeError as error:  # the subclass has its own __init__
            raise ConfigurationError(
                f"{type(self).__name__} cannot be changed: {error}."
            ) from error

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], **defaults: Any) -> ReleasePolicy:
        """Return the policy described by *options*, as written in the settings."""
        if not isinstance(options, Mapping):
            raise ConfigurationError(f"a policy must be a dict, not {options!r}.")
        check_keys(options, [field.name for field in fields(cls)])
        return cls(**{**defaults, **options})


def check_audit_mode(called: str, mode: object) -> None:
    """Raise `ConfigurationError` unless *mode* is one of `ReleasePolicy.session_state_audit`.

    :param called: the function that takes it, for the message.
    """
    if mode not in (known := (*AUDIT_MODES, None, False)):
        allowed = ", ".join(map(repr, known))
        raise ConfigurationError(f"{called}({mode!r}): the mode can be {allowed}.")


def check_keys(
    options: Mapping[str, Any], known: Sequence[str], reserved: Mapping[str, str] | None = None
) -> None:
    """Raise `ConfigurationError` if *options* has a key that is not in *known*.

    :param reserved: key that must not be set -> the reason.
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
    """Raise `ConfigurationError` unless *value* is a number of at least *least*.

    :param key: the option's name, as written in the settings.
    :param whole: whether it must be a whole number. If not, it is a number of seconds.
    :param unless: what else is allowed, for the message, such as ``", or None"``.
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
    """Raise `ConfigurationError` if *value* is text. Even ``"False"`` would count as true."""
    if isinstance(value, (str, bytes)):
        raise ConfigurationError(
            f"{key!r} is {value!r}; it must be True or False."
            + _from_environment(value, '== "True"')
        )


def check_function(key: str, value: object) -> None:
    """Raise `ConfigurationError` unless *value* is callable or None."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{key!r} is {value!r}; it must be a function.")


def _from_environment(value: object, convert: str) -> str:
    if not isinstance(value, (str, bytes)):
        return ""
    return f" If it comes from the environment, it is text: convert it with {convert}."
