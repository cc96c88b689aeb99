"""Names of objects and schemas in the tokens of a statement."""

from __future__ import annotations

from .effects import Name
from .statements import WORD, Statement, text_at

#: Stands for what is not known of a name until a text is put together. It is a letter to
#: PostgreSQL, so it can be a part of a name, too.
UNKNOWN_NAME = "\ufffd"
#: The maximum length of a name, in bytes.
#: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
LONGEST_NAME = 63


def name_parts(statement: Statement, position: int = 0) -> list[str]:
    """Return the parts of the name at *position*. The name ``a.b.c`` has three."""
    return [token.text for token in statement[position : end_of_name(statement, position) : 2]]


def end_of_name(statement: Statement, position: int) -> int:
    """Return the position after the name at *position*."""
    end = position + 1
    while text_at(statement, end) == ".":
        end += 2
    return min(end, len(statement))


def object_name(statement: Statement, position: int = 0) -> Name | None:
    """Return the last part of the name at *position*, or None if there is no name."""
    if position >= len(statement) or statement[position].kind is not WORD:
        return None
    name = name_parts(statement, position)[-1]
    return None if name == "*" else (name,)  # a name "*" would equal ALL


def is_temporary_schema(name: str) -> bool:
    return name == "pg_temp" or name.startswith("pg_temp_")


def fits(name: str, pattern: str) -> bool:
    """Return whether *name* may be *pattern*, in which some of it may be `UNKNOWN_NAME`."""
    if UNKNOWN_NAME not in pattern:
        return name == pattern
    first, *inner, last = pattern.split(UNKNOWN_NAME)
    if not inner and not (first or last):
        return True
    end = len(name) - len(last)
    if not (name.startswith(first) and name.endswith(last)):
        return False
    position = len(first)
    for part in inner:
        position = name.find(part, position)
        if position == -1:
            return False
        position += len(part)
    return position <= end


def truncated(name: str) -> str:
    """Return *name* as the server shortens it: to 63 bytes, but not within a letter."""
    if len(name) <= LONGEST_NAME and name.isascii():
        return name
    encoded = name.encode(errors="replace")
    return name if len(encoded) <= LONGEST_NAME else encoded[:LONGEST_NAME].decode(errors="ignore")
