"""Report: rows to read in code, in a terminal, or as JSON."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from unicodedata import category, east_asian_width

from relet.core.sql.fingerprint import one_line

Row = TypeVar("Row")

#: The columns of a terminal whose width is unknown, and the least that a wide column is cut to.
_WIDTH, _NARROWEST = 100, 16
_ELLIPSIS = "…"
#: Types of which nearly all values are. To ask them for their type is what costs least.
_SCALARS = frozenset((str, int, float, bool, type(None)))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    :param name: its heading.
    :param text: returns the text for a row.
    :param wide: whether it is cut if the table is too wide for the terminal.
    :param right: whether it is aligned to the right.
    :param cut_left: whether it is cut at its beginning.
    :param optional: whether it is left out if every row has nothing, or 0, in it.
    """

    name: str
    text: Callable[[Any], str]
    wide: bool = False
    right: bool = False
    cut_left: bool = False
    optional: bool = False


class Report(Generic[Row]):
    """Rows of one kind, as they were when it was asked for.

    :ivar rows: frozen dataclasses. All times are in seconds.
    :ivar notes: what the reader should know, such as that something could not be read.
    """

    columns: Sequence[Column] = ()

    def __init__(self, rows: Iterable[Row], notes: Iterable[str] = ()) -> None:
        self.rows: tuple[Row, ...] = tuple(rows)
        self.notes: tuple[str, ...] = tuple(notes)

    def as_table(self, *, width: int | None = None) -> str:
        """Return the rows as an aligned table.

        :param width: the columns of a line. By default, those of the terminal.
        """
        if width is None:
            width = shutil.get_terminal_size((_WIDTH, 24)).columns
        return "\n".join([*table(self.columns, self.rows, width), *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return everything as ``json.dumps`` takes it."""
        return {"rows": [plain(vars(row)) for row in self.rows], "notes": list(self.notes)}

    def __str__(self) -> str:
        return self.as_table()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {' '.join([f'{len(self.rows)} rows.', *self.notes])}>"


def plain(value: Any) -> Any:
    """Return *value* with lists for tuples, as JSON has them."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def table(columns: Sequence[Column], rows: Sequence[Any], width: int) -> list[str]:
    """Return the lines of a table, each of which takes at most *width* columns of the terminal."""
    width = max(1, width)
    columns = [
        column
        for column in columns
        if not column.optional or any(column.text(row) not in ("", "0") for row in rows)
    ]
    cells = [[one_line(column.text(row)) for column in columns] for row in rows]
    widths = [
        max([len(column.name), *(width_of(line[number]) for line in cells)])
        for number, column in enumerate(columns)
    ]
    _narrow(columns, widths, width)
    heading = [column.name for column in columns]
    lines = [
        "  ".join(
            _fitted(cell, size, column)
            for cell, size, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in [heading, *cells]
    ]
    return [_cut(line, width) for line in lines]


def width_of(text: str) -> int:
    """Return how many columns of a terminal *text* takes.

    Letters such as those of Chinese take two, and accents of their own none.
    """
    return len(text) if text.isascii() else sum(map(_letter_width, text))


def _letter_width(letter: str) -> int:
    if category(letter) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(letter) in ("W", "F") else 1


def _cut(text: str, width: int, *, left: bool = False) -> str:
    """Return as much of *text* as *width* columns have room for.

    :param left: whether its beginning is cut, and not its end.
    """
    if width_of(text) <= width:
        return text
    room, kept = width - 1, 0
    for letter in reversed(text) if left else text:
        room -= _letter_width(letter)
        if room < 0:
            break
        kept += 1
    return _ELLIPSIS + text[len(text) - kept :] if left else text[:kept] + _ELLIPSIS


def _narrow(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Make the widest of the wide columns narrower until the table fits."""
    wide = [number for number, column in enumerate(columns) if column.wide]
    while wide and (over := sum(widths) + 2 * (len(widths) - 1) - width) > 0:
        widest = max(wide, key=widths.__getitem__)
        least = max(_NARROWEST, len(columns[widest].name))
        if widths[widest] <= least:
            return
        rest = max([least, *(widths[number] for number in wide if number != widest)])
        aim = rest if widths[widest] > rest else widths[widest] - 1
        widths[widest] = max(least, aim, widths[widest] - over)


def _fitted(text: str, width: int, column: Column) -> str:
    text = _cut(text, width, left=column.cut_left)
    space = " " * (width - width_of(text))
    return space + text if column.right else text + space


def number(count: int | None) -> str:
    """Return *count* for a table."""
    return "" if count is None else str(count)


def seconds(duration: float | None) -> str:
    """Return *duration* for a table, with three digits that count and a unit."""
    if duration is None:
        return ""
    if duration <= 0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if duration >= size:
            value = duration / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{duration * 1e6:.0f} us"
