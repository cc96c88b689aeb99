"""``relet.prepare`` and ``relet.prepared``: say which statements are to be prepared."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.query import RawQuerySet

from relet.backends.leases.context_decorator import AsyncContextDecorator
from relet.core import ConfigurationError, PoolAdapter
from relet.core.errors import did_you_mean
from relet.core.plans import PLANS
from relet.core.plans.book import BLOCK
from relet.core.plans.eligible import is_preparable, refusal
from relet.core.plans.targets import default_name

from .plans import matches
from .plans.declared import open_to_blocks, targets_changed, targets_of

#: What ``QuerySet.get()`` limits its query to, to find out whether there is more than one row.
_GET_LIMIT = 21


def prepare(
    target: Any,
    *,
    using: str | None = None,
    name: str | None = None,
    plan: str = "auto",
) -> None:
    """Have each connection prepare a statement when it first runs it, instead of planning it anew.

    It takes no connection, so it may be called in ``AppConfig.ready()``. Values do not matter, nor
    the lengths of ``IN`` lists: all statements that differ in nothing else are the target.

    :param target: a queryset, for what is run when it is evaluated, and by its ``get()`` and
        ``first()``; what ``raw()`` returns; or SQL with placeholders, as it is passed to
        ``execute()``.
    :param using: the alias; by default that of the queryset, or ``"default"``.
    :param name: what ``relet.plans()`` calls it; by default a hash of its text.
    :param plan: "auto" lets the server choose, unless its generic plan is found to be slower;
        "generic" is planned once for all values; "custom" is planned for each execution's values.
    :raises ConfigurationError: one of these is wrong, or the engine of the alias cannot prepare.
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigurationError(f"relet.prepare(name={name!r}): it must be a str, or None.")
    texts, alias = _texts(target, using)
    _check_alias(alias)
    if plan not in PLANS:
        raise ConfigurationError(
            f"relet.prepare(plan={plan!r}): it must be {', '.join(map(repr, PLANS))}"
            f"{did_you_mean(plan, PLANS)}."
        )
    targets = []
    for number, text in enumerate(texts):
        reason = "only queries and changes of rows can be" if not is_preparable(text) else ""
        if reason := reason or refusal(text):
            raise ConfigurationError(
                f"DATABASES[{alias!r}]: relet.prepare() cannot prepare this statement: {reason}."
            )
        called = name if name is None or not number else f"{name} ({_WAYS[number]})"
        known = targets_of(alias).find(text)
        given = known is not None and known.name != default_name(known.sql)
        if known is not None and given and not number and name not in (None, known.name):
            logger.warning(
                "DATABASES[%r]: relet.prepare() calls a statement %r which was called %r before; "
                "they differ in their values or the length of a list only: %s",
                *(alias, name, known.name, known.sql),
            )
        targets.append(targets_of(alias).add(text, called, plan))
    matches.declared(targets)
    targets_changed(alias)


#: Another name for the same.
add_prepare_target = prepare

logger = logging.getLogger("relet")

#: How a queryset is run.
_WAYS = ("all", "get", "first")


def _texts(target: Any, using: str | None) -> tuple[list[str], str]:
    """Return the texts of *target*, each with its placeholders, and its alias."""
    alias = getattr(target, "db", DEFAULT_DB_ALIAS) if using is None else using
    if isinstance(target, RawQuerySet):
        target = target.raw_query
    if isinstance(target, str):
        return [target], alias
    query = getattr(target, "query", None)
    if query is None or not hasattr(query, "get_compiler"):
        raise ConfigurationError(
            f"relet.prepare() takes a queryset or SQL, not {type(target).__name__}."
        )
    _check_alias(alias)
    queries = [query.chain()]
    if not query.is_sliced and not query.combinator:
        one = query.chain()
        one.clear_ordering(force=False)
        one.set_limits(high=_GET_LIMIT)
        first = target if target.ordered else target.order_by("pk")
        limited = first.query.chain()
        limited.set_limits(high=1)
        queries += [one, limited]

    connection = _InTransaction(connections[alias])
    try:
        return [each.get_compiler(connection=connection).as_sql()[0] for each in queries], alias
    except EmptyResultSet:
        raise ConfigurationError(
            "relet.prepare() cannot prepare this queryset: it has no rows, whatever is in the "
            "database, so it is never run."
        ) from None


class _InTransaction:
    """A wrapper as in a transaction, where alone queries that lock rows can be compiled."""

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper

    def get_autocommit(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapper, name)


def _check_alias(alias: str) -> None:
    if alias not in connections:
        known = list(connections)
        raise ConfigurationError(
            f"relet.prepare(using={alias!r}): DATABASES has {', '.join(map(repr, known))}"
            f"{did_you_mean(alias, known)}."
        )
    adapter = getattr(connections[alias], "adapter_class", None)
    if adapter is None:
        raise ConfigurationError(
            f"relet.prepare(using={alias!r}): DATABASES[{alias!r}]['ENGINE'] is not one of "
            "relet's, such as 'relet.backends.psycopg'."
        )
    assert issubclass(adapter, PoolAdapter)
    if reason := adapter.cannot_prepare():
        raise ConfigurationError(
            f"relet.prepare(using={alias!r}): DATABASES[{alias!r}]['ENGINE'] cannot prepare: "
            f"{reason}."
        )


class prepared(AsyncContextDecorator):  # noqa: N801 - used like a function
    """Make targets of all statements that this thread or task runs in the block.

    They stay targets when the block has ended. It is a ``with`` and ``async with`` block, and a
    decorator of functions.
    """

    def __init__(self, function: None = None, /) -> None:
        if function is not None:
            raise TypeError(
                f"prepared() takes no argument, not {function!r}: it is for all aliases. Write "
                "'with prepared():', or decorate with @prepared()."
            )

    def __enter__(self) -> None:
        open_to_blocks()
        BLOCK.set(BLOCK.get() + 1)

    def __exit__(self, *exc_info: object) -> None:
        # Another context may leave a block than has entered it, as with a generator.
        BLOCK.set(max(0, BLOCK.get() - 1))

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__()
