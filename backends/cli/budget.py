"""``relet budget``: shows who has the connections of a budget, and whether it fits the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections

from relet.backends.config.dsn import database_of
from relet.core import ConfigurationError
from relet.core.budget import MOST_CONNECTIONS, Budget, Share, describe_holders, shares

#: Seconds to wait for the server.
_CONNECT_TIMEOUT_S = 5
_SERVER = """
SELECT pg_catalog.current_setting('max_connections')::int,
  pg_catalog.current_setting('superuser_reserved_connections')::int
    + coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0),
  (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')::int
"""


@dataclass(frozen=True)
class Server:
    """A server's limits.

    :param max_connections: its setting.
    :param reserved: connections for superusers and the like.
    :param sessions: how many clients are connected, this command among them.
    """

    max_connections: int
    reserved: int
    sessions: int

    @property
    def usable(self) -> int:
        return self.max_connections - self.reserved


@dataclass(frozen=True)
class Pool:
    """What the settings say of the pool that each process has."""

    alias: str
    min_size: int
    max_size: int | None


def budget(*, settings: str | None = None, dsn: str | None = None, group: str | None = None) -> int:
    """Print each budget; return the exit code.

    :param settings: a settings module, or None for ``DJANGO_SETTINGS_MODULE``.
    :param dsn: a libpq URI, with which no settings are read.
    :param group: the group to look for, with *dsn*.
    """
    try:
        if dsn is not None and group is not None:
            return _from_dsn(dsn, group)
        return _from_settings(settings)
    except (ConfigurationError, Error, ImproperlyConfigured, ImportError, ValueError) as error:
        print(f"relet budget: {str(error).strip()}", file=sys.stderr)
        return 2


def _from_dsn(dsn: str, group: str) -> int:
    django_settings.configure(DATABASES={"default": database_of(dsn)})
    django.setup()
    with connections["default"].cursor() as cursor:
        server, pools, holders = _read(cursor, Budget(MOST_CONNECTIONS, group))
    print(f"Budget of the group {group!r}")
    print("\n".join(_held(pools)))
    print("\n".join(_server(server)))
    print("\n".join(f"  {line}" for line in holders))
    return 0


def _from_settings(module: str | None) -> int:
    if module is not None:
        os.environ["DJANGO_SETTINGS_MODULE"] = module
    sys.path.insert(0, str(Path.cwd()))  # as manage.py does
    django.setup()
    groups: dict[Budget, list[Pool]] = {}
    wrappers: dict[Budget, Any] = {}
    for alias in connections:
        wrapper: Any = connections[alias]
        if not hasattr(wrapper, "adapter_class"):
            continue
        pool = wrapper._runner.find_pool().pool
        if (found := pool.config.budget) is not None:
            stats = pool.stats()
            groups.setdefault(found, []).append(Pool(alias, stats.min_size, stats.max_size))
            wrappers[found] = wrapper
    if not groups:
        print("relet budget: no alias in DATABASES has OPTIONS['budget'].", file=sys.stderr)
        return 2
    fits = True
    for each, theirs in groups.items():
        with wrappers[each].outside_pool(connect_timeout=_CONNECT_TIMEOUT_S) as cursor:
            server, pools, holders = _read(cursor, each)
        for line in describe(each, theirs, pools, server, holders):
            print(line)
        fits = fits and each.connections + len(pools) <= server.usable
    return 0 if fits else 1


def _read(cursor: Any, budget: Budget) -> tuple[Server, dict[int, Share], list[str]]:
    cursor.execute(_SERVER)
    server = Server(*cursor.fetchone())
    cursor.execute(budget.look())
    pools = shares(cursor.fetchall())
    cursor.execute(budget.holders())
    return server, pools, describe_holders(cursor.fetchall())


def describe(
    budget: Budget,
    theirs: Iterable[Pool],
    pools: Mapping[int, Share],
    server: Server,
    holders: Iterable[str],
) -> list[str]:
    """Return the lines that the command prints for one budget.

    :param theirs: the pools of each process that share it.
    :param pools: what each pool that is open has, by its number.
    """
    theirs = list(theirs)
    processes = -(-len(pools) // len(theirs))
    aliases = ", ".join(f"DATABASES[{pool.alias!r}]" for pool in theirs)
    lines = [f"Budget of the group {budget.group!r}: {budget.connections} connections ({aliases})"]
    lines += _held(pools)
    for when, count in (("now", processes), ("in a deploy", 2 * processes)):
        kept = count * sum(pool.min_size for pool in theirs)
        lines.append(
            f"  guaranteed {when}: {kept}, {count} processes x min_size"
            f"{_above(kept, budget.connections, 'some may wait for others')}"
        )
        if all(pool.max_size is not None for pool in theirs):
            most = count * sum(pool.max_size or 0 for pool in theirs)
            lines.append(
                f"  at most {when}: {most}, {count} processes x max_size"
                f"{_above(most, budget.connections, 'under full load threads wait')}"
            )
    lines += _server(server)
    need = budget.connections + len(pools)
    fits = "fits" if need <= server.usable else "DOES NOT FIT"
    lines.append(
        f"  the budget, and one connection for each pool that asks: {need}; it {fits} the server"
    )
    return [*lines, *(f"  {line}" for line in holders)]


def _held(pools: Mapping[int, Share]) -> list[str]:
    held, asking = sum(pool.held for pool in pools.values()), sum(p.asks for p in pools.values())
    return [f"  held: {held}, by {len(pools)} pools, of which {asking} ask for more"]


def _above(number: int, limit: int, effect: str) -> str:
    return f": more than the budget, so {effect}" if number > limit else ""


def _server(server: Server) -> list[str]:
    line = (
        f"  server: max_connections {server.max_connections}, less {server.reserved} reserved: "
        f"{server.usable}; {server.sessions} sessions"
    )
    return [line]
