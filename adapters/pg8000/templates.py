"""Templates: statements with placeholders, ``%s`` and ``%(name)s``.

As in psycopg, a statement with parameters has ``%`` doubled, also inside of quotes; see
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
#: psycopg's placeholders for formats. They mean the same here.
_FORMATS = ("s", "t", "b")
#: An operator that binds tighter than the minus of a negative number, perhaps after comments.
_TIGHT = re.compile(r"(?:\s|--[^\r\n]*[\r\n]|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*(::|\[)", re.ASCII)
#: How many characters of a text an error shows.
_SHOWN = 100
#: The maximal length of a cached statement. Longer ones, such as bulk inserts, seldom recur.
_LONGEST = 4096


class Template(NamedTuple):
    """A statement, split at its placeholders."""

    #: The text around the placeholders: one part more than there are placeholders.
    parts: tuple[str, ...]
    #: The names of the placeholders; None if they are positional.
    names: tuple[str, ...] | None
    #: By the position of a placeholder: the operator after it that binds tighter than a minus,
    #: ``::`` or ``[``.
    tight: Mapping[int, str]

    def values(self, params: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
        """Return the value for each placeholder, in order.

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
        """Return the statement with *values*, if there are operators in `tight`.

        A value gets parentheses only if it would mean something else without them. Elsewhere they
        would do harm: ``x%s::int`` is a bit string and ``date %s::text`` a constant, but with
        parentheses both would be function calls.
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

    :raises ProgrammingError: a ``%`` is neither doubled nor part of a placeholder, or there are
        both named and positional placeholders.
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
    """Return the positions of the placeholders outside of quotes and comments."""
    return _in_code_cached(parts) if sum(map(len, parts)) <= _LONGEST else _in_code(parts)


def _in_code(parts: tuple[str, ...], *, escapes: bool = False) -> frozenset[int]:
    marks = {f"${_FIRST + at}": at for at in range(len(parts) - 1)}
    marked = _interleave(parts, [f" {mark} " for mark in marks])
    return frozenset(
        marks[token.text] for token in tokens(marked, escapes=escapes) if token.text in marks
    )


def is_closed(sql: str) -> bool:
    """Return whether *sql* ends outside of quotes and comments, as do all its placeholders.

    Then another statement may follow it, whatever the parameters are.
    """
    with suppress(ProgrammingError):
        (*parts, last) = template(sql).parts
        marked = (*parts, f"{last}\n;", "")
        # Whether a backslash escapes a quote depends on the session.
        return all(
            len(_in_code(marked, escapes=escapes)) == len(parts) + 1 for escapes in (False, True)
        )
    return False


def _interleave(parts: tuple[str, ...], between: list[str]) -> str:
    pieces = [""] * (len(parts) + len(between))
    pieces[::2], pieces[1::2] = parts, between
    return "".join(pieces)


#: A parameter number that no statement has.
_FIRST = 10**9
_parse_cached = lru_cache(maxsize=1000)(_parse)
_in_code_cached = lru_cache(maxsize=100)(_in_code)
