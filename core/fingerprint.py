"""What a statement is like, to be shown to people: its text without the values in it."""

from __future__ import annotations

import re

_ELLIPSIS = "..."
#: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS
_VALUE = re.compile(
    r"""
      (?P<gap> (?: \s | --[^\r\n]* | /\*.*?\*/ )+ )
    | (?P<value>
        [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | (?:[bBxXnN]|[uU]&)?'[^']*(?:''[^']*)*(?:'|\Z)
        | \$(?P<tag>\w*)\$ .*? (?:\$(?P=tag)\$|\Z)
        | \d[\w.]* (?: (?<=[eE])[-+]\d+ )? )
    | (?P<name> "[^"]*" | [^\W\d][\w$]* )
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST = re.compile(r"(\(\s*(?:\?|%s)\s*)(?:,\s*(?:\?|%s)\s*)+\)")


def fingerprint(sql: str, length: int = 100) -> str:
    """Return *sql* in one line, with ``?`` for strings and numbers, and cut after *length*.

    Two statements that differ in their values alone have the same. What is a secret, or a
    person's, is not in it.
    """

    def shown(match: re.Match[str]) -> str:
        if match["value"] is not None:
            return "?"
        return " " if match["gap"] is not None else match.group()

    # What is cut off need not be read: values are long, but not so many.
    text = _VALUE.sub(shown, sql[: 100 * length]).strip()
    text = _LIST.sub(rf"\1, {_ELLIPSIS})", text)
    return text if len(text) <= length else text[: length - len(_ELLIPSIS)] + _ELLIPSIS
