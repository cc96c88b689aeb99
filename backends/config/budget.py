"""Budget: reads ``OPTIONS["budget"]`` of an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relet.core import ConfigurationError, PoolAdapter
from relet.core.budget import MOST_CONNECTIONS, Budget
from relet.core.policy import check_keys, check_number

from .options import OptionError, pool_options

_KEYS = ("connections", "group")


def pool_budget(
    alias: str, settings: dict[str, Any], adapter: type[PoolAdapter[Any]]
) -> Budget | None:
    """Return the budget of the pool of *alias*, or None if it has none.

    :raises OptionError: ``OPTIONS["budget"]`` is invalid, or the pool cannot have one.
    """
    setting = settings["OPTIONS"].get("budget")
    if setting is None:
        return None
    options = pool_options(alias, settings, adapter)
    try:
        budget = _budget(setting)
        if not adapter.can_share_budget(options):
            raise ConfigurationError(
                "it needs a pool whose threads wait in relet's queue, so 'pool' cannot be False "
                "or have another 'class'. Remove the budget, or use the engine's own pool."
            )
        if (least := adapter.min_size_of(options)) > budget.connections:
            raise ConfigurationError(
                f"'connections' is {budget.connections}, but the pool of each process keeps "
                f"{least} open. Raise 'connections', or lower the pool's 'min_size'; all processes "
                "together should keep no more than the budget."
            )
    except ConfigurationError as error:
        raise OptionError(alias, "'OPTIONS']['budget'", error, "relet.E012") from error
    return budget


def _budget(setting: object) -> Budget:
    if not isinstance(setting, Mapping):
        raise ConfigurationError(
            f"it is {setting!r}; it must be a dict such as "
            "{'connections': 80, 'group': 'shop'}, or None."
        )
    check_keys(setting, _KEYS)
    for key in _KEYS:
        if key not in setting:
            raise ConfigurationError(f"{key!r} is missing.")
    connections, group = setting["connections"], setting["group"]
    check_number("connections", connections, whole=True, least=1)
    if connections > MOST_CONNECTIONS:
        raise ConfigurationError(
            f"'connections' is {connections}; no server has more than {MOST_CONNECTIONS}."
        )
    if not isinstance(group, str) or not group:
        raise ConfigurationError(f"'group' is {group!r}; it must be a name, such as 'shop'.")
    return Budget(connections, group)
