"""What a statement is like, to be shown to people: its text without the values in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lexer import end_of_comment

_ELLIPSIS = "..."
#: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS
#: What is not closed goes on to the end, so nothing is read twice.
_VALUE = re.compile(
    r"""
      (?P<gap> \s+ | --[^\r\n]* )
    | (?P<comment> /\* )
    | (?P<value>
        [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\\?\Z)
        | (?:[bBxXnN]|[uU]&)?'(?P<text>[^']*(?:''[^']*)*)(?:'|\Z)
        | \$(?P<tag>\w*)\$ .*? (?:\$(?P=tag)\$|\Z)
        | \d[\w.]* (?: (?<=[eE])[-+]\d+ )? )
    | (?P<name> "[^"]*" | [^\W\d][\w$]* )
    """,
    re.VERBOSE | re.DOTALL,
)
#: A string may end before it, or go on: standard_conforming_strings says which.
_UNCLEAR = re.compile(r"\\(?:'|\Z)")
_LIST = re.compile(r"(\(\s*(?:\?|%s)\s*)(?:,\s*(?:\?|%s)\s*)+\)")


def fingerprint(sql: str, length: int = 100) -> str:
    """Return *sql* in one line, with ``?`` for strings and numbers, and cut after *length*.

    Two statements that differ in their values alone have the same. What is a secret, or a
    person's, is not in it.
    """
    # What is cut off need not be read: values are long, but not so many.
    text = "".join(_pieces(sql[: 100 * length])).strip()
    text = _LIST.sub(rf"\1, {_ELLIPSIS})", text)
    return text if len(text) <= length else text[: length - len(_ELLIPSIS)] + _ELLIPSIS


def _pieces(sql: str) -> Iterator[str]:
    end, spaced = 0, False
    while (match := _VALUE.search(sql, end)) is not None:
        if before := sql[end : match.start()]:
            yield before
            spaced = False
        end = match.end()
        if match["gap"] is None and match["comment"] is None:
            yield "?" if match["value"] is not None else match.group()
            spaced = False
            if _UNCLEAR.search(match["text"] or ""):
                yield _ELLIPSIS
                return
            continue
        if match["comment"] is not None:
            end = end_of_comment(sql, end)
        if not spaced:
            yield " "
            spaced = True
    yield sql[end:]
