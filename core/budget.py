"""Budget: how many server connections the pools of many processes may have together.

Each connection of a pool with a budget holds a permit: an advisory lock of its own session, which
the server releases when the session ends, however it ends. So there is no table, no clock, and
nothing to clean up. This module writes the SQL and decides who gives up a connection. It does no
I/O.

The locks have two keys. The first is the budget's group, see `Budget.lock_class`. The second is

- 1 to `Budget.connections`, exclusive: a permit;
- negative, shared: which pool the session belongs to, and whether it has a permit or asks for one.

https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

#: What `Budget.connections` can be at most: PostgreSQL's own limit on max_connections.
MOST_CONNECTIONS = 262_143
#: Pools are numbered from 0 up to this, at random. The other bit says that a session asks.
POOL_NUMBERS = 2**30
#: The second key of a lock is an oid in pg_locks; those from here on are negative in functions.
_POOLS_FROM = 2**31
_INT4 = 2**32


class Share(NamedTuple):
    """What a pool has of a budget.

    :param held: permits.
    :param asks: whether it asks for one more.
    """

    held: int
    asks: bool


class Budget(NamedTuple):
    """At most *connections* of all pools whose budget has this *group*, in one database."""

    connections: int
    group: str

    @property
    def lock_class(self) -> int:
        """The first key of the group's locks, a signed number of 32 bits."""
        # A name from the environment may be no UTF-8.
        name = f"relet budget {self.group}".encode("utf-8", "surrogatepass")
        digest = sha256(name).digest()
        return int.from_bytes(digest[:4], "big", signed=True)

    def take_any(self, pool: int) -> str:
        """Return the SQL that takes a free permit for *pool*, whoever asks for one.

        It is for times in which nobody does. `take` reads pg_locks, which costs a new session some
        milliseconds, because its caches are empty.

        :return: SQL with one row: the session's process id, and the new permit or NULL.
        """
        joins = _shared("pg_try_advisory_lock_shared", self.lock_class, _key(pool))
        return f"""
WITH permit AS MATERIALIZED ({self._first_free("")})
SELECT pg_catalog.pg_backend_pid(), (SELECT number FROM permit WHERE {joins})"""

    def _first_free(self, condition: str) -> str:
        # OFFSET 0 and LIMIT make the server try one permit after another, up to the first success.
        return f"""
  SELECT number FROM (
    SELECT number FROM pg_catalog.generate_series(1, {self.connections}) AS number
    {condition} OFFSET 0) AS numbers
  WHERE pg_catalog.pg_try_advisory_lock('{self.lock_class}'::int4, number) LIMIT 1"""

    def take(self, pool: int, *, asks: bool = False) -> str:
        """Return the SQL that takes a free permit for *pool*, in one round trip.

        It takes none while another pool asks that holds fewer.

        :param asks: whether the session has run `ask`.
        :return: SQL with one row: the session's process id, the permits that *pool* holds, and the
            new permit or NULL.
        """
        member, asking = _key(pool), _key(pool, asks=True)
        joins = f"{_shared('pg_try_advisory_lock_shared', self.lock_class, member)}"
        if asks:
            joins += f" AND {_shared('pg_advisory_unlock_shared', self.lock_class, asking)}"
        poorer = f"""WHERE NOT EXISTS (
      SELECT FROM pools, mine WHERE asks AND pool <> {pool} AND pools.held < mine.held)"""
        return f"""
WITH pools AS MATERIALIZED ({_pools(self.lock_class)}),
mine AS MATERIALIZED (
  SELECT coalesce(max(held), 0) AS held FROM pools WHERE pool = {pool}),
permit AS MATERIALIZED ({self._first_free(poorer)}),
joined AS MATERIALIZED (SELECT number FROM permit WHERE {joins})
SELECT pg_catalog.pg_backend_pid(), mine.held::int4, (SELECT number FROM joined) FROM mine"""

    def ask(self, pool: int) -> str:
        """Return the SQL by which a session shows that *pool* asks for a permit."""
        asking = _key(pool, asks=True)
        return f"SELECT {_shared('pg_try_advisory_lock_shared', self.lock_class, asking)}"

    def look(self) -> str:
        """Return the SQL whose rows `shares` takes."""
        return f"SELECT pool, held::int4, asks FROM ({_pools(self.lock_class)}) AS pools"

    def holders(self) -> str:
        """Return the SQL that lists the sessions which hold permits, for `describe_holders`.

        Every role may read these columns, but sees the state of its own sessions only.
        """
        return f"""
SELECT coalesce(a.application_name, ''), a.pid, coalesce(a.state, 'unknown')
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE {of_class(self.lock_class, "l")} AND l.granted AND l.objid::int8 < {_POOLS_FROM}
ORDER BY 1, 2"""


def _key(pool: int, *, asks: bool = False) -> int:
    return _POOLS_FROM + 2 * pool + asks - _INT4


def _shared(function: str, lock_class: int, key: int) -> str:
    return f"pg_catalog.{function}('{lock_class}'::int4, '{key}'::int4)"


def of_class(lock_class: int, table: str = "") -> str:
    """Return the SQL condition that a row of pg_locks is a lock of a budget.

    :param lock_class: `Budget.lock_class`.
    :param table: the alias of pg_locks in the query, if it has one.
    """
    prefix = f"{table}." if table else ""
    return (
        f"{prefix}locktype = 'advisory' AND {prefix}objsubid = 2 "
        f"AND {prefix}classid = '{lock_class % _INT4}'::oid AND {prefix}database = "
        "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
    )


def _pools(lock_class: int) -> str:
    return f"""
  SELECT (objid::int8 - {_POOLS_FROM}) / 2 AS pool,
    count(*) FILTER (WHERE objid::int8 % 2 = 0) AS held, bool_or(objid::int8 % 2 = 1) AS asks
  FROM pg_catalog.pg_locks
  WHERE {of_class(lock_class)} AND granted AND objid::int8 >= {_POOLS_FROM}
  GROUP BY 1"""


def shares(rows: Iterable[Sequence[Any]]) -> dict[int, Share]:
    """Return what each pool has, by its number, from the rows of `Budget.look`."""
    return {int(pool): Share(int(held), bool(asks)) for pool, held, asks in rows}


def surplus(
    pools: Mapping[int, Share], mine: int, *, guaranteed: int, idle: int, chance: float
) -> int:
    """Return how many connections the pool *mine* should give up now, for others that ask.

    A pool gives up connections that nobody uses. A busy one gives up one connection if it holds
    more than another that asks. If the difference is just one, which never ends where the budget
    cannot be divided evenly, it does so now and then, so that all have as much in the long run.

    :param guaranteed: connections that it keeps in any case.
    :param idle: how many of its connections are idle; 0 if any of its threads waits for one.
    :param chance: a random number from 0 to 1.
    """
    held = pools[mine].held if mine in pools else 0
    spare = held - guaranteed
    asking = [share.held for pool, share in pools.items() if share.asks and pool != mine]
    if spare <= 0 or not asking:
        return 0
    if idle:
        return min(idle, spare, len(asking))
    poorer = sum(other < held for other in asking)
    if not poorer:
        return 0
    # Those that hold as much or more look at the same, and one is enough for each that asks.
    rich = sum(share.held >= held for share in pools.values())
    often = 1.0 if held - min(asking) > 1 else _ROTATION
    return int(chance < often * min(1.0, poorer / rich))


#: How often a pool that holds one connection more than another gives it up, for each look.
_ROTATION = 0.25
#: How many lines a message has, and pids a line.
_SHOWN = 10


def describe_holders(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return a line for each application name in the rows of `Budget.holders`."""
    names: dict[str, list[str]] = {}
    for name, pid, state in rows:
        names.setdefault(_text(name) or "(no name)", []).append(f"{pid} {_text(state)}")
    largest = sorted(names.items(), key=lambda item: -len(item[1]))
    return _some(
        f"{name} has {len(found)}: pid {', '.join(_some(found))}" for name, found in largest
    )


def _some(texts: Iterable[str]) -> list[str]:
    """Return the first of *texts*, and how many more there are."""
    found = list(texts)
    return [*found[:_SHOWN], f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else found


def _text(value: object) -> str:
    # It is bytes if client_encoding is SQL_ASCII.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
