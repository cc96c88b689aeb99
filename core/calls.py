"""Calls: the effects of functions, and of SELECT INTO, anywhere. A part of the classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, takewhile

from .effects import ALL, Change, Kind, Name, Parameter, Step, quote
from .names import (
    OF_THE_TRANSACTION,
    is_temporary_schema,
    makes_temporary,
    name_parts,
    object_name,
    setting_change,
)
from .sql import OTHER, PARAMETER, STRING, WORD, Statement, Token, closing, comma_list, text_at


def anywhere(statement: Statement) -> Iterator[Step]:
    texts = {text for _, text, _ in statement}
    if not texts.isdisjoint(_FUNCTIONS):
        yield from _function_effects(statement)
    if "into" in texts:
        yield from _select_into(statement)
    if "pg_settings" in texts and "update" in texts:
        yield Change(Kind.SETTING, None)  # by a rule of that view


def _select_into(statement: Statement) -> Iterator[Step]:
    for position, token in enumerate(statement[:-1]):
        if token == _INTO:
            before = statement[position - 1].text if position else ""
            named = statement[position + 1 :]
            if not (before in _WRITES and _is_write(before, named)):
                yield from _new_table(named)


_INTO = Token(WORD, "into")
_WRITES = ("insert", "merge")
#: What follows the name in INSERT INTO. TABLE does so, too, but here it means INTO TEMP TABLE.
_AFTER_INSERT = ("(", "as", "default", "overriding", "select", "values", "with")


def _is_write(before: str, named: Statement) -> bool:
    """Whether it is INSERT INTO or MERGE INTO, not ``SELECT 1 AS insert INTO``."""
    if before == "merge":
        return "using" in (token.text for token in named[1:6])
    return text_at(named, 2 * len(name_parts(named)) - 1) in _AFTER_INSERT


def _new_table(named: Statement) -> Iterator[Step]:
    texts = ["" if token.quoted else token.text for token in named[:4]]
    skipped = len(
        [*takewhile(("local", "global", "temp", "temporary", "table").__contains__, texts)]
    )
    rest = named[skipped:]
    if not {"temp", "temporary"}.isdisjoint(texts[:skipped]) or (
        rest and is_temporary_schema(rest[0].text)
    ):
        yield Change(Kind.TEMPORARY, object_name(rest))


#: What takes an advisory lock -> whether it may fail to.
_LOCKS = {
    "pg_advisory_lock": False,
    "pg_advisory_lock_shared": False,
    "pg_try_advisory_lock": True,
    "pg_try_advisory_lock_shared": True,
}
_UNLOCKS = ("pg_advisory_unlock", "pg_advisory_unlock_shared")
_FUNCTIONS = {*_LOCKS, *_UNLOCKS, "pg_advisory_unlock_all", "set_config", "nextval", "setval"}
#: What reads the state of sequences that others have made.
READERS = {"currval", "lastval"}


def calls_of(statement: Statement, functions: set[str]) -> list[tuple[int, str]]:
    """The calls of *functions*: position of the name, and the name."""
    return [
        (position, token.text)
        for position, token in enumerate(statement)
        if token[1] in functions
        and statement[position].kind is WORD
        and statement[position + 1 : position + 2] == [_OPENING]
    ]


_OPENING = Token(OTHER, "(")


def _function_effects(statement: Statement) -> Iterator[Step]:
    calls = calls_of(statement, _FUNCTIONS)
    columns = _columns(statement) if calls else {}
    sequences = False
    for position, function in calls:
        arguments = _arguments(statement, position + 1)
        if function == "set_config":
            yield from _set_config(arguments)
        elif function in ("nextval", "setval"):
            if not (_is_column_default(statement, position) or _is_of_django(arguments)):
                sequences = True
        elif position not in columns:
            # It may be called often, or not at all.
            if function in _LOCKS:
                yield Change(Kind.LOCK, None)
        elif function == "pg_advisory_unlock_all":
            yield Change(Kind.LOCK, ALL, back=True)
        else:
            name = _key(arguments, function)
            back = function in _UNLOCKS
            if name is not None or not back:
                column = columns[position] if _LOCKS.get(function, True) else None
                yield Change(Kind.LOCK, name, back, column)
    if sequences:
        yield Change(Kind.SEQUENCE, None)


def _is_of_django(arguments: list[Statement]) -> bool:
    """Whether it is what Django sets sequences by: after ``loaddata``, and between tests.

    No one reads the value again. An INSERT, which is not looked at either, leaves as much.
    """
    return text_at(arguments[0], 0) == "pg_get_serial_sequence"


def _is_column_default(statement: Statement, call: int) -> bool:
    """Whether it is called later, for rows that are inserted."""
    before = call - 3 if text_at(statement, call - 1) == "." else call - 1
    # ALTER TABLE ... ADD COLUMN ... DEFAULT calls it for each row that there is.
    return text_at(statement, before) == "default" and (
        statement[0].text == "create" or text_at(statement, before - 1) == "set"
    )


def _columns(statement: Statement) -> dict[int, int]:
    """Of ``SELECT f(...), g(...)``: the position of each function's name -> its column.

    Of anything else, nothing: it need not have one row.
    """
    if statement[0] != _SELECT or any(
        following == _OPENING and token.kind is WORD and token.text not in _OF_ONE_ROW
        for token, following in pairwise(statement)
    ):
        return {}
    found: dict[int, int] = {}
    position, column = 1, 0
    while position < len(statement):
        while text_at(statement, position + 1) == ".":  # the schema
            position += 2
        if text_at(statement, position + 1) != "(":
            return {}
        found[position] = column
        position = closing(statement, position + 1) + 1
        if text_at(statement, position) == "as":
            position += 2
        if text_at(statement, position) not in ("", ","):
            return {}
        position, column = position + 1, column + 1
    return found


_SELECT = Token(WORD, "select")
#: What returns one value for one, so that each function in a SELECT is called once.
_OF_ONE_ROW = {
    *_FUNCTIONS,
    *("pg_advisory_xact_lock", "pg_advisory_xact_lock_shared"),
    *("pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared"),
    *("hashtext", "hashtextextended", "abs", "mod", "length", "lower", "upper", "md5"),
}


def _arguments(statement: Statement, opening: int) -> list[Statement]:
    """The arguments of the call whose parenthesis is at *opening*."""
    return comma_list(statement[opening + 1 : closing(statement, opening)])


def _set_config(arguments: list[Statement]) -> Iterator[Step]:
    if len(arguments) != 3:  # EXECUTE 'SELECT set_config(' || ...
        arguments = [[], [], []]
    first, value, local = arguments
    name = first[0].text.lower() if len(first) == 1 and first[0].kind is STRING else None
    if not _is_true(local) and name not in OF_THE_TRANSACTION:
        is_parameter = bool(local) and local[0].kind is PARAMETER and local[1:] in _BOOLEAN
        unless = _parameter(local[0]) if is_parameter else None
        if name is None:
            yield Change(Kind.ROLE, None, unless=unless)
            yield Change(Kind.SETTING, None, unless=unless)
        else:
            yield replace(setting_change(name, back=False), unless=unless)
    if name == "search_path" and makes_temporary(token.text for token in value):
        yield Change(Kind.TEMPORARY, None)


def _is_true(value: Statement) -> bool:
    return value[1:] in _BOOLEAN and (
        value[:1] == [_TRUE]
        or (bool(value) and value[0].kind is STRING and value[0].text.lower() in _TRUTHS)
    )


_CAST = Token(OTHER, "::")
#: What may stand behind a constant.
_BOOLEAN: tuple[Statement, ...] = (
    [],
    [_CAST, Token(WORD, "boolean")],
    [_CAST, Token(WORD, "bool")],
)
_TRUE = Token(WORD, "true")
_TRUTHS = ("true", "t", "yes", "y", "on", "1")


def _key(arguments: list[Statement], function: str) -> Name | None:
    """What a lock is on, if its arguments are constants; None if not."""
    parts: list[str | Parameter] = ["shared " if function.endswith("_shared") else ""]
    for argument in arguments:
        if len(parts) > 1:
            parts.append(",")
        for position, token in enumerate(argument):
            part = _key_part(
                token, text_at(argument, position - 1), text_at(argument, position + 1)
            )
            if part is None:
                return None
            parts.append(part)
    return tuple(parts)


def _key_part(token: Token, before: str, after: str) -> str | Parameter | None:
    if token.kind is PARAMETER:
        return _parameter(token)
    if token.kind is STRING:
        return quote(token.text)
    if token.kind is OTHER or after == "(" or before == "::":  # a function, a type
        return token.text
    return None


def _parameter(token: Token) -> Parameter | None:
    if token.text.startswith("%("):
        return Parameter(token.text[2:-2])
    return Parameter(int(token.text[1:]) - 1) if token.text[1:].isdecimal() else None
