"""Statements with placeholders, ``%s`` and ``%(name)s``: where the parameters go.

As in psycopg, a ``%`` is doubled where there are parameters, also inside of quotes; see
https://www.psycopg.org/psycopg3/docs/basic/params.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from relet.core.sql.lexer import tokens

from .errors import ProgrammingError
from .literals import literal

_PERCENT = re.compile(r"%(?:(%)|\(([^)]*)\)(.?)|(.?))", re.DOTALL)
#: psycopg's placeholders for a format, of which there is one here.
_FORMATS = ("s", "t", "b")
#: What binds tighter than the minus of a negative number; comments may stand before it.
_TIGHT = re.compile(r"(?:\s|--[^\r\n]*[\r\n]|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*(::|\[)", re.ASCII)
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
    #: Which placeholders have something after them that binds tighter than a minus: ``::`` or
    #: ``[``, by their positions.
    tight: Mapping[int, str]

    def values(self, params: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
        """Return what of *params* goes to each placeholder, in order.

        :raises ProgrammingError: they do not fit.
        :raises TypeError: they are neither a sequence nor a mapping.
        """
        if self.names is not None:
            if not isinstance(params, Mapping):
                raise TypeError(
                    "the statement has named placeholders, %(name)s: its parameters must be "
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
                "the statement has positional placeholders, %s: its parameters must be a sequence, "
                f"not {type(params).__name__}"
            )
        if len(params) != count:
            raise ProgrammingError(
                f"the statement has {count} placeholders, but {len(params)} parameters were passed"
            )
        return params

    def compose(self, values: Iterable[object]) -> str:
        """Return the statement with *values*, where something binds `tight`.

        Parentheses are only put around what would mean something else without them. Around any
        other value they would do harm: ``x%s::int`` is a bit string, ``date %s::text`` a constant,
        and with parentheses they would be calls of functions.
        https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-PRECEDENCE
        """
        literals = list(map(literal, values))
        in_code: frozenset[int] | None = None
        for at, operator in self.tight.items():
            # -1::text is -(1::text), and '{1}'::int2[][1] is of the type int2[][1].
            if operator == "[" or literals[at].startswith(" -"):
                if in_code is None:
                    in_code = places_in_code(self.parts)
                if at in in_code:
                    literals[at] = f"({literals[at]})"
        return _interleave(self.parts, literals)


def template(sql: str) -> Template:
    """Return *sql* as a template.

    :raises ProgrammingError: a ``%`` is neither doubled nor a placeholder's, or there are
        placeholders of both kinds.
    """
    return _parse_cached(sql) if len(sql) <= _LONGEST else _parse(sql)


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
                f"{match.group()[:_SHOWN]!r} is not a placeholder: use %s or %(name)s, "
                "and write any other % as %%"
            )
        names.append(name)
        parts.append("".join(part))
        part = []
    part.append(sql[position:])
    parts.append("".join(part))
    named = [name for name in names if name is not None]
    if named and len(named) != len(names):
        raise ProgrammingError("named and positional placeholders cannot be mixed")
    tight = {at: found[1] for at, after in enumerate(parts[1:]) if (found := _TIGHT.match(after))}
    return Template(tuple(parts), tuple(named) if named else None, tight)


def places_in_code(parts: tuple[str, ...]) -> frozenset[int]:
    """Return which placeholders stand in no quotes, and in no comment, by their positions."""
    return _in_code_cached(parts) if sum(map(len, parts)) <= _LONGEST else _in_code(parts)


def _in_code(parts: tuple[str, ...], *, escapes: bool = False) -> frozenset[int]:
    marks = {f"${_FIRST + at}": at for at in range(len(parts) - 1)}
    marked = _interleave(parts, [f" {mark} " for mark in marks])
    return frozenset(
        marks[token.text] for token in tokens(marked, escapes=escapes) if token.text in marks
    )


def is_closed(sql: str) -> bool:
    """Return whether *sql* has all of its placeholders in code, and ends there.

    Then another statement may follow it, whatever the parameters are.
    """
    with suppress(ProgrammingError):
        (*parts, last) = template(sql).parts
        marked = (*parts, f"{last}\n;", "")
        # Whether a backslash escapes depends on the session.
        return all(
            len(_in_code(marked, escapes=escapes)) == len(parts) + 1 for escapes in (False, True)
        )
    return False


def _interleave(parts: tuple[str, ...], between: list[str]) -> str:
    pieces = [""] * (len(parts) + len(between))
    pieces[::2], pieces[1::2] = parts, between
    return "".join(pieces)


#: A number of a parameter that no statement has.
_FIRST = 10**9
_parse_cached = lru_cache(maxsize=1000)(_parse)
_in_code_cached = lru_cache(maxsize=100)(_in_code)
