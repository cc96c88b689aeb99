"""Types for values that Python has no type for: JSON, sized integers, ranges.

They have the names and interfaces of psycopg's types, which Django's fields expect. If psycopg or
psycopg2 is installed, django.contrib.postgres expects its ranges, so these are loaded: see
`range_class`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from functools import total_ordering
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Int2(int):
    """An integer of the type ``smallint``, which matters in arrays."""


class Int4(int):
    """An integer of the type ``integer``, which matters in arrays."""


class Int8(int):
    """An integer of the type ``bigint``, which matters in arrays."""


class Json:
    """A value to pass as ``json``.

    :param dumps: converts it to text; by default `json.dumps`.
    """

    __slots__ = ("dumps", "obj")

    def __init__(self, obj: Any, dumps: Callable[[Any], str | bytes] | None = None) -> None:
        self.obj = obj
        self.dumps = dumps

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.obj!r})"


class Jsonb(Json):
    """A value to pass as ``jsonb``."""

    __slots__ = ()


@total_ordering
class Range(Generic[T]):
    """A range of values, like psycopg's ``Range``.

    :param lower: the lower bound, or None if there is none.
    :param upper: the upper bound, or None if there is none.
    :param bounds: one of ``()``, ``[)``, ``(]`` and ``[]``.
    :param empty: whether it is the empty range; then the bounds are ignored.
    :raises ValueError: *bounds* is something else.
    """

    __slots__ = ("_bounds", "_lower", "_upper")

    def __init__(
        self,
        lower: T | None = None,
        upper: T | None = None,
        bounds: str = "[)",
        empty: bool = False,
    ) -> None:
        if bounds not in ("()", "[)", "(]", "[]"):
            raise ValueError(f"bounds is {bounds!r}; it must be '()', '[)', '(]' or '[]'")
        self._lower, self._upper = (None, None) if empty else (lower, upper)
        self._bounds = "" if empty else _open_bounds(lower, upper, bounds)

    @property
    def lower(self) -> T | None:
        """The lower bound; None if there is none, or the range is empty."""
        return self._lower

    @property
    def upper(self) -> T | None:
        """The upper bound; None if there is none, or the range is empty."""
        return self._upper

    @property
    def bounds(self) -> str:
        """Which bounds are part of the range, such as ``[)``; "" if it is empty."""
        return self._bounds

    @property
    def isempty(self) -> bool:
        """Whether the range is empty."""
        return not self._bounds

    @property
    def lower_inf(self) -> bool:
        """Whether there is no lower bound."""
        return bool(self._bounds) and self._lower is None

    @property
    def upper_inf(self) -> bool:
        """Whether there is no upper bound."""
        return bool(self._bounds) and self._upper is None

    @property
    def lower_inc(self) -> bool:
        """Whether the lower bound is part of the range."""
        return self._bounds.startswith("[")

    @property
    def upper_inc(self) -> bool:
        """Whether the upper bound is part of the range."""
        return self._bounds.endswith("]")

    def __contains__(self, value: Any) -> bool:
        if not self._bounds or value is None:
            return False
        if self._lower is not None and not (
            value >= self._lower if self.lower_inc else value > self._lower
        ):
            return False
        return self._upper is None or bool(
            value <= self._upper if self.upper_inc else value < self._upper
        )

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Range):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __lt__(self, other: object) -> bool:
        # Some order is enough, as in psycopg.
        if not isinstance(other, Range):
            return NotImplemented
        return self._order() < other._order()

    def _key(self) -> tuple[Any, ...]:
        return self._lower, self._upper, self._bounds

    def _order(self) -> tuple[Any, ...]:
        lower, upper, bounds = self._key()
        return (lower is not None, lower or 0, upper is not None, upper or 0, bounds)

    def __repr__(self) -> str:
        if not self._bounds:
            return f"{type(self).__name__}(empty=True)"
        return f"{type(self).__name__}({self._lower!r}, {self._upper!r}, {self._bounds!r})"

    def __str__(self) -> str:
        if not self._bounds:
            return "empty"
        lower = "" if self._lower is None else self._lower
        upper = "" if self._upper is None else self._upper
        return f"{self._bounds[0]}{lower}, {upper}{self._bounds[1]}"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._bounds:
            return type(self), self._key()
        return type(self), (None, None, "[)", True)


def _open_bounds(lower: object, upper: object, bounds: str) -> str:
    """Return *bounds* with missing bounds excluded, as PostgreSQL does."""
    return ("(" if lower is None else bounds[0]) + (")" if upper is None else bounds[1])


#: The classes of this driver and of others: of ranges, multiranges, JSON and sized integers.
RANGES: list[type] = [Range]
MULTIRANGES: list[type] = []
JSON: list[tuple[type, str]] = [(Json, "json"), (Jsonb, "jsonb")]
INTEGERS: list[tuple[type, str]] = [(Int2, "int2"), (Int4, "int4"), (Int8, "int8")]


def _find_range_class() -> Callable[[str], type[Any]]:
    try:
        from psycopg.types import json as psycopg_json
        from psycopg.types import numeric
        from psycopg.types.multirange import Multirange
        from psycopg.types.range import Range as PsycopgRange
    except ImportError:
        pass
    else:
        RANGES.append(PsycopgRange)
        MULTIRANGES.append(Multirange)
        INTEGERS.extend([(numeric.Int2, "int2"), (numeric.Int4, "int4"), (numeric.Int8, "int8")])
        INTEGERS.append((numeric.IntNumeric, "numeric"))
        JSON.extend([(psycopg_json.Json, "json"), (psycopg_json.Jsonb, "jsonb")])
        return lambda name: PsycopgRange
    try:
        from psycopg2 import extras
    except ImportError:
        return lambda name: Range
    classes = {
        "daterange": extras.DateRange,
        "tsrange": extras.DateTimeRange,
        "tstzrange": extras.DateTimeTZRange,
    }
    RANGES.append(extras.Range)
    return lambda name: classes.get(name, extras.NumericRange)


#: Returns the class for values of a range type, given its name.
range_class = _find_range_class()
#: The class for multiranges.
multirange_class: Callable[[list[Any]], Any] = MULTIRANGES[0] if MULTIRANGES else list


def is_date(bound: object) -> bool:
    """Whether *bound* is a date and not a datetime."""
    return isinstance(bound, date) and not isinstance(bound, datetime)
