"""``relet budget``: shows who has the connections of a budget, and whether it fits the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import django
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections

from relet.backends.config.dsn import database_of
from relet.backends.pools import pools
from relet.backends.reports.reason import reason, reason_of_settings
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
#: No two servers have begun in the same microsecond.
_DATABASE = """
SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text
  || ' ' || pg_catalog.current_setting('port'), pg_catalog.current_database()::text
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


class Database(NamedTuple):
    """A database, however the settings name its server.

    :ivar server: what tells the server from others.
    """

    server: str
    name: str


@dataclass(frozen=True)
class Found:
    """What there is of a budget: who shares it, and what its server says.

    :param theirs: the pools of each process.
    :param pools: what each pool that is open has, by its number.
    :param holders: a line for each application that holds permits.
    """

    theirs: list[Pool]
    server: Server
    pools: Mapping[int, Share]
    holders: list[str]


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
        text = reason(error) if isinstance(error, ImproperlyConfigured) else str(error).strip()
        print(f"relet budget: {text}", file=sys.stderr)
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
    _set_up(module)
    found: dict[tuple[Database, Budget], Found] = {}
    for alias in connections:
        wrapper: Any = connections[alias]
        if not hasattr(wrapper, "adapter_class"):
            continue
        pool = wrapper._runner.find_pool().pool
        if (each := pool.config.budget) is None:
            continue
        with wrapper.outside_pool(connect_timeout=_CONNECT_TIMEOUT_S) as cursor:
            cursor.execute(_DATABASE)
            key = Database(*cursor.fetchone()), each
            if key not in found:
                found[key] = Found([], *_read(cursor, each))
        stats = pool.stats()
        found[key].theirs.append(Pool(alias, stats.min_size, stats.max_size))
    if not found:
        print("relet budget: no alias in DATABASES has OPTIONS['budget'].", file=sys.stderr)
        return 2
    fits = True
    for (_, each), one in found.items():
        print("\n".join(describe(each, one.theirs, one.pools, one.server, one.holders)))
        fits = fits and _need(each, one.pools) <= one.server.usable
    for line, together in _on_one_server(found):
        print(line)
        fits = fits and together
    return 0 if fits else 1


def _set_up(module: str | None) -> None:
    """Set Django up with the settings of a project.

    :raises ImproperlyConfigured: they cannot be used.
    """
    if module is not None:
        os.environ["DJANGO_SETTINGS_MODULE"] = module
    elif not (django_settings.configured or os.environ.get("DJANGO_SETTINGS_MODULE")):
        raise ImproperlyConfigured(
            "which budget? Give --settings, the module of a project's settings, or --dsn and "
            "--group; or set DJANGO_SETTINGS_MODULE."
        )
    sys.path.insert(0, str(Path.cwd()))  # as manage.py does
    try:
        django.setup()
    except Exception as error:
        raise ImproperlyConfigured(reason_of_settings(error)) from error
    # This process is none of the project's: it is not to be seen among those of its fleet.
    pools.on_open = pools.before_close = None


def _on_one_server(found: Mapping[tuple[Database, Budget], Found]) -> Iterator[tuple[str, bool]]:
    """Yield what to say of each server with several budgets, and whether they fit it."""
    servers: dict[str, list[tuple[Database, Budget]]] = {}
    for key in found:
        servers.setdefault(key[0].server, []).append(key)
    for keys in servers.values():
        if len(keys) == 1:
            continue
        # Of one group in one database, all pools share what the largest number allows.
        needs: dict[tuple[str, str], int] = {}
        for database, budget in keys:
            of_group = (database.name, budget.group)
            need = _need(budget, found[database, budget].pools)
            needs[of_group] = max(need, needs.get(of_group, 0))
        need, usable = sum(needs.values()), found[keys[0]].server.usable
        aliases = ", ".join(
            f"DATABASES[{pool.alias!r}]" for key in keys for pool in found[key].theirs
        )
        yield (
            (
                f"All budgets on the server of {aliases}: {need} connections; "
                f"together they {_fit(need, usable)} the server"
            ),
            need <= usable,
        )


def _need(budget: Budget, pools: Mapping[int, Share]) -> int:
    return budget.connections + len(pools)


def _fit(need: int, usable: int) -> str:
    return "fit" if need <= usable else "DO NOT FIT"


def _read(cursor: Any, budget: Budget) -> tuple[Server, dict[int, Share], list[str]]:
    """Return what the server says of itself and of *budget*."""
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
    need = _need(budget, pools)
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
