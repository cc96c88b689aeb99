"""Statements with placeholders, ``%s`` and ``%(name)s``: where the parameters go.

As in psycopg, a ``%`` is doubled where there are parameters, also inside of quotes; see
https://www.psycopg.org/psycopg3/docs/basic/params.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import ProgrammingError

_PERCENT = re.compile(r"%(?:(%)|\(([^)]*)\)(.?)|(.?))", re.DOTALL)
#: psycopg's placeholders for a format, of which there is one here.
_FORMATS = ("s", "t", "b")
#: What binds tighter than the minus of a negative number.
_TIGHT = re.compile(r"\s*(?:::|\[)")
#: After these, a string is a constant of a type, and parentheses would be a modifier's.
#: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS-GENERIC
_CONSTANT = re.compile(
    r"\b(?:bigint|bit|bool(?:ean)?|char(?:acter)?|dec(?:imal)?|float|int(?:eger)?|interval|nchar"
    r"|numeric|precision|real|smallint|time(?:stamp)?|varchar|varying|zone)\s*(?:\([\d,\s]*\)\s*)?\Z",
    re.IGNORECASE,
)
#: How much of a text an error shows.
_SHOWN = 100
#: Longer ones, such as those of bulk inserts, are seldom met twice.
_LONGEST = 4096


class Template(NamedTuple):
    """A statement, cut where its placeholders were."""

    #: One more than there are placeholders.
    parts: tuple[str, ...]
    #: The names of the placeholders, or None where they go by their positions.
    names: tuple[str, ...] | None

    def values(self, params: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
        """Return what of *params* goes to each placeholder, in order.

        :raises ProgrammingError: they do not fit.
        :raises TypeError: they are neither a sequence nor a mapping.
        """
        if self.names is not None:
            if not isinstance(params, Mapping):
                raise TypeError(
                    "the statement has placeholders with names, %(name)s: its parameters must be "
                    f"a mapping, not {type(params).__name__}"
                )
            if missing := sorted(set(self.names).difference(params)):
                raise ProgrammingError(f"parameters missing: {', '.join(map(repr, missing))}")
            return [params[name] for name in self.names]
        count = len(self.parts) - 1
        if isinstance(params, Mapping) and not count:
            return ()
        if not isinstance(params, Sequence) or isinstance(params, (str, bytes)):
            raise TypeError(
                "the parameters of placeholders by position, %s, must be a sequence, "
                f"not {type(params).__name__}"
            )
        if len(params) != count:
            raise ProgrammingError(
                f"the statement has {count} placeholders, but {len(params)} parameters were passed"
            )
        return params


def template(sql: str) -> Template:
    """Return *sql* as a template.

    :raises ProgrammingError: a ``%`` is neither doubled nor a placeholder's, or there are
        placeholders of both kinds.
    """
    return _cached(sql) if len(sql) <= _LONGEST else _parse(sql)


def _parse(sql: str) -> Template:
    parts: list[str] = []
    names: list[str | None] = []
    part: list[str] = []
    position = 0
    for match in _PERCENT.finditer(sql):
        part.append(sql[position : match.start()])
        position = match.end()
        doubled, name, format_of_name, letter = match.groups()
        if doubled:
            part.append("%")
            continue
        if (letter if name is None else format_of_name) not in _FORMATS:
            raise ProgrammingError(
                f"{match.group()[:_SHOWN]!r} is no placeholder: those are %s and %(name)s; "
                "any other % is to be written as %%"
            )
        names.append(name)
        text = "".join(part)
        if (tight := _TIGHT.match(sql, position)) and not _CONSTANT.search(text):
            # -1::text is -(1::text): PostgreSQL documentation, 4.1.6, Operator Precedence
            parts.append(f"{text}(")
            part = [")", tight.group()]
            position = tight.end()
        else:
            parts.append(text)
            part = []
    part.append(sql[position:])
    parts.append("".join(part))
    named = [name for name in names if name is not None]
    if named and len(named) != len(names):
        raise ProgrammingError("placeholders with names and by position cannot be mixed")
    return Template(tuple(parts), tuple(named) if named else None)


_cached = lru_cache(maxsize=1000)(_parse)
