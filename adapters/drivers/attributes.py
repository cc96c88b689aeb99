"""Attributes: what is in a driver's connection, in a form that can be compared later.

No list of names says what to look at: a new version of a driver brings new ones, a project's own
connection class has others, and a borrower can add any. So all attributes are taken, except those
that the adapter names because they change by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_PLAIN = frozenset({bool, bytes, float, int, str})


class Snapshot:
    """Values of one moment, equal to those of another if each is the very same object.

    Objects decide themselves what they are equal to, so nobody asks them. Two typecasters of
    psycopg2 are equal if they are for the same types, whatever they make of a value; comparing two
    arrays of numpy raises. Only numbers and texts are the same if they are equal.

    The objects are kept, so that no later one can have the address of one that is gone.
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
    found: Mapping[str, object] = getattr(raw, "__dict__", {})  # psycopg2's own have none
    values: list[object] = []
    for name, value in found.items():
        if name not in volatile:
            values += name, value
            # Drivers keep handlers and notifications in these. A dict is taken for a cache.
            if value.__class__ is list or value.__class__ is deque:
                values += contents(value)
    return values


def contents(container: Collection[object]) -> Iterable[object]:
    """Return what is in *container*, for a `Snapshot`: of a dict, the keys and the values."""
    if isinstance(container, dict):
        return len(container), *container, *container.values()
    return len(container), *container
