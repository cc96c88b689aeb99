"""Parameters: which keyword arguments a driver's ``connect()`` accepts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import fields

from relet.core import ConfigurationError, ReleasePolicy
from relet.core.errors import did_you_mean

#: Other keys of ``OPTIONS``, which Django or relet reads.
_OPTIONS = (
    *("assume_role", "budget", "connection_parameters", "isolation_level", "observe", "policy"),
    *("pool", "prepare", "server_side_binding", "tag"),
)
_POLICY = tuple(field.name for field in fields(ReleasePolicy))


def refuse_unknown(
    unknown: Iterable[str], known: Collection[str], pool_keys: Collection[str]
) -> None:
    """Raise `ConfigurationError` if there are *unknown* parameters, with a suggestion for each.

    :param known: the parameters that the driver is known to accept.
    :param pool_keys: the pool's options.
    """
    meant = [f"{key!r}{_meant(key, known, pool_keys)}" for key in unknown]
    if meant:
        listed = ", ".join(map(repr, sorted({*known, *_OPTIONS})))
        raise ConfigurationError(f"unknown {', '.join(meant)}; known are {listed}.")


def _meant(key: str, known: Collection[str], pool_keys: Collection[str]) -> str:
    if key in _POLICY:
        return " (it belongs in OPTIONS['policy'])"
    if key in pool_keys:
        return " (it belongs in OPTIONS['pool'])"
    return did_you_mean(key, [*known, *_OPTIONS])
