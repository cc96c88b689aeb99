"""Names: of objects, schemas and settings, in the tokens of a statement."""

from __future__ import annotations

from collections.abc import Iterable

from .effects import Change, Kind, Name
from .sql import WORD, Statement, text_at


def name_parts(statement: Statement) -> list[str]:
    """The parts of the name that *statement* begins with: of ``a.b.c``, three."""
    end = 1
    while text_at(statement, end) == ".":
        end += 2
    return [token.text for token in statement[:end:2]]


def object_name(statement: Statement) -> Name | None:
    """The last part of the name that *statement* begins with."""
    if not statement or statement[0].kind is not WORD:
        return None
    name = name_parts(statement)[-1]
    return None if name == "*" else (name,)  # it would be ALL


def is_temporary_schema(name: str) -> bool:
    return name == "pg_temp" or name.startswith("pg_temp_")


def makes_temporary(search_path: Iterable[str]) -> bool:
    """Whether CREATE TABLE makes temporary ones, with that search path."""
    schemas = (schema.strip(' "') for schema in "".join(search_path).split(","))
    first = next((schema for schema in schemas if schema != "$user"), "")
    return is_temporary_schema(first.lower())


#: These end with it. There are others called alike that do not (``transaction_timeout``).
OF_THE_TRANSACTION = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")


def setting_change(name: str, back: bool) -> Change:
    kind = Kind.ROLE if name in ("role", "session_authorization") else Kind.SETTING
    return Change(kind, (name,), back)
