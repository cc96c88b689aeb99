"""Attributes: the state of a driver's connection, in a form that can be compared later.

A list of names would never be complete: new versions of a driver add attributes, a project's
connection class has its own, and a borrower can add any. So all attributes are compared, except
those that change by themselves, which the adapter names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_PLAIN = frozenset({bool, bytes, float, int, str})


class Snapshot:
    """The values of one moment. Two snapshots are equal if their values are the same objects.

    Objects are compared by identity, because their own ``==`` may mislead. Two typecasters of
    psycopg2 are equal if they are for the same types, even if they convert values differently, and
    comparing two numpy arrays raises. Only numbers and strings are compared by ``==``.

    A snapshot keeps the objects alive, so that no new object can have the address of an old one.
    """

    __slots__ = ("_values",)

    def __init__(self, *values: object) -> None:
        self._values = values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot) or len(self._values) != len(other._values):
            return False
        for mine, theirs in zip(self._values, other._values, strict=True):
            if mine is not theirs and not (
                mine.__class__ in _PLAIN and mine.__class__ is theirs.__class__ and mine == theirs
            ):
                return False
        return True

    def __repr__(self) -> str:
        return f"Snapshot{self._values!r}"


def attributes(raw: Any, volatile: Collection[str]) -> list[object]:
    """Return the attributes of *raw*, a driver's connection, for a `Snapshot`.

    :param volatile: names of attributes to leave out.
    """
    # psycopg2's own connections have no attributes of this kind.
    found: Mapping[str, object] = getattr(raw, "__dict__", {})
    values: list[object] = []
    for name, value in found.items():
        if name not in volatile:
            values += name, value
            # Drivers keep handlers and notifications in lists and deques. A dict counts as a cache.
            if value.__class__ is list or value.__class__ is deque:
                values += contents(value)
    return values


def contents(container: Collection[object]) -> Iterable[object]:
    """Return the items of *container*, for a `Snapshot`; of a dict, the keys and the values."""
    if isinstance(container, dict):
        return len(container), *container, *container.values()
    return len(container), *container
