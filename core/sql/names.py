"""Names of objects and schemas in the tokens of a statement."""

from __future__ import annotations

from .effects import Name
from .statements import WORD, Statement, text_at


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
