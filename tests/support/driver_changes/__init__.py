"""What somebody who has a driver's connection can change of it: a module for each driver.

A module has ``CHANGES``; ``EXCEPTIONS``, which are the other names that the connection has, each
with the reason why nothing of it is there for the next one; ``PARTS``, the objects of the
connection whose names are looked at, by the prefix they have in both; ``INSTANCES``, the prefixes
of those whose attributes are looked at one by one; ``VOLATILE``, which are attributes that change
by themselves, with the reason; and ``ORDINARY``, functions that are given the connection, in
autocommit, and use it as anybody would.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple


class Kept(Enum):
    """What keeps a change from whoever has the connection next."""

    SETTINGS = "settings() is another, so the connection is discarded"
    SET_BACK = "it is set back"
    SESSION = "it is undone with the session"
    BLOCKED = "is_blocked() tells, so the connection is discarded"
    REFUSED = "SQL cannot run, so the connection is discarded"


class Change(NamedTuple):
    """A change of the connection.

    :param name: of the attribute or method, with the prefix of its owner, and in parentheses what
        tells it from others.
    :param make: makes it.
    :param look: returns what others see of it, the same for each connection of one pool.
    :param before: what is done to a new connection, so that it can be made.
    """

    name: str
    make: Callable[[Any], object]
    look: Callable[[Any], object]
    kept: Kept = Kept.SETTINGS
    before: Callable[[Any], object] | None = None

    @property
    def attribute(self) -> str:
        return self.name.partition("(")[0].rstrip()


def setting(name: str, value: object, prefix: str = "") -> Change:
    """Return the change that sets an attribute of the connection, or of a part of it."""

    def owner(raw: Any) -> Any:
        return attrgetter(prefix[:-1])(raw) if prefix else raw

    return Change(
        f"{prefix}{name}",
        lambda raw: setattr(owner(raw), name, value),
        lambda raw: getattr(owner(raw), name),
    )


#: What must not be collected: a generator that is left half-way, a block that is not left.
kept_open: list[Any] = []


def enter(block: Any) -> None:
    """Enter a block, and do not leave it."""
    kept_open.append(block)
    block.__enter__()


def of(dbapi: Any) -> Any:
    """Return the module for a driver."""
    name = dbapi.__name__.removeprefix("relet.adapters.").removesuffix(".dbapi")
    return import_module(f"{__name__}.{name}")


def names(raw: Any, parts: dict[str, Callable[[Any], Any]]) -> set[str]:
    """Return the public names that *raw* has, and parts of it, with their prefix."""
    return {
        f"{prefix}{name}"
        for prefix, part in parts.items()
        for name in dir(part(raw))
        if not name.startswith("_") and not _is_exception(part(raw), name)
    }


def _is_exception(owner: Any, name: str) -> bool:
    """Whether it is a class of PEP 249, which connections have, too."""
    value = getattr(type(owner), name, None)
    value = getattr(owner, name) if type(value).__name__ == "getset_descriptor" else value
    return isinstance(value, type) and issubclass(value, Exception)
