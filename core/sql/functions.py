"""Calls: the effects of function calls and of SELECT INTO. A part of the classifier."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import pairwise

from .assignments import NULL, Assignment, makes_temporary
from .effects import ALL, AnyStep, Change, Kind, Name, Parameter, quote
from .names import (
    UNKNOWN_NAME,
    end_of_name,
    fits,
    is_temporary_schema,
    name_parts,
    object_name,
)
from .statements import OTHER, PARAMETER, STRING, WORD, Statement, Token, closing, text_at

#: The positions where an argument begins and ends.
Span = tuple[int, int]


def steps_anywhere(statement: Statement) -> Iterator[AnyStep]:
    """Yield the effects that do not depend on the first word of *statement*."""
    texts = {text for _, text, _ in statement}
    if not texts.isdisjoint(_FUNCTIONS):
        yield from _function_effects(statement)
    if "into" in texts:
        yield from _select_into(statement)
    if "pg_settings" in texts and "update" in texts:
        yield Change(Kind.SETTING, None)  # updating this view sets settings
        if any(map(makes_temporary, texts)):
            yield Change(Kind.TEMPORARY, None)


def _select_into(statement: Statement) -> Iterator[AnyStep]:
    for position in new_tables(statement):
        yield from _new_table(statement, position)


def new_tables(statement: Statement) -> Iterator[int]:
    """Yield where the name of each table begins that SELECT INTO makes."""
    for position, token in enumerate(statement):
        if token == _INTO:
            before = statement[position - 1].text if position else ""
            if not (before in _WRITES and _is_write(before, statement, position + 1)):
                yield position + 1


_INTO = Token(WORD, "into")
_WRITES = ("insert", "merge")
#: What follows the table in INSERT INTO, but does not name a table after INTO TEMP.
_AFTER_INSERT = ("(", "as", "default", "select", "with")


def _is_write(before: str, statement: Statement, position: int) -> bool:
    """Return whether this is INSERT INTO or MERGE INTO, not ``SELECT 1 AS insert INTO``.

    :param before: the word before INTO.
    :param position: the position after INTO.
    """
    if before == "merge" and text_at(statement, position) == "only":
        position += 1
    end = end_of_name(statement, position)
    following = text_at(statement, end)
    if before == "insert":
        # INSERT can go INTO a table called TEMP, and SELECT INTO TEMP a table called VALUES.
        return (
            following in _AFTER_INSERT
            or (following, text_at(statement, end + 1)) in _AFTER_INSERT_IN_PAIRS
        )
    if following == "*":
        end += 1
    if text_at(statement, end) == "as":
        end += 1
    return "using" in (text_at(statement, end), text_at(statement, end + 1))


_AFTER_INSERT_IN_PAIRS = (("values", "("), ("overriding", "user"), ("overriding", "system"))


def _new_table(statement: Statement, position: int) -> Iterator[AnyStep]:
    """Yield the effects of SELECT INTO the table at *position*."""
    temporary = False
    while (text := text_at(statement, position)) in _OF_NEW_TABLES:
        if statement[position].quoted or text_at(statement, position + 1) == ".":
            break
        temporary |= text in ("temp", "temporary")
        position += 1
    if temporary or any(map(is_temporary_schema, name_parts(statement, position))):
        yield Change(Kind.TEMPORARY, object_name(statement, position))


_OF_NEW_TABLES = ("local", "global", "temp", "temporary", "unlogged", "table")


#: Function that takes an advisory lock -> whether it can fail to take it.
_LOCKS = {
    "pg_advisory_lock": False,
    "pg_advisory_lock_shared": False,
    "pg_try_advisory_lock": True,
    "pg_try_advisory_lock_shared": True,
}
_UNLOCKS = ("pg_advisory_unlock", "pg_advisory_unlock_shared")
_SEQUENCES = ("nextval", "setval")
#: Functions whose state only the end of the session undoes: a backup, the origin of replicated
#: changes, and replication slots, which may be temporary.
#: https://www.postgresql.org/docs/current/functions-admin.html
_FOR_GOOD = {
    *("pg_backup_start", "pg_start_backup", "pg_replication_origin_session_setup"),
    *("pg_create_physical_replication_slot", "pg_create_logical_replication_slot"),
    *("pg_copy_physical_replication_slot", "pg_copy_logical_replication_slot"),
}
_FUNCTIONS = {
    *(*_LOCKS, *_UNLOCKS, "pg_advisory_unlock_all"),
    *(*_SEQUENCES, *_FOR_GOOD, "set_config", "setseed"),
}
#: Function that runs texts as SQL -> the positions of these among its arguments.
RUNNERS: dict[str, tuple[int, ...]] = {
    "query_to_xml": (0,),
    "query_to_xmlschema": (0,),
    "query_to_xml_and_xmlschema": (0,),
    "ts_stat": (0,),
    "ts_rewrite": (1,),
}
#: Function that reads a relation whose name is an argument -> the position of the name, and those
#: of other parts of the query.
#: https://www.postgresql.org/docs/current/functions-xml.html#FUNCTIONS-XML-MAPPING
#: https://www.postgresql.org/docs/current/tablefunc.html, https://www.postgresql.org/docs/current/xml2.html
RELATION_READERS: dict[str, tuple[int, tuple[int, ...]]] = {
    "table_to_xml": (0, ()),
    "table_to_xmlschema": (0, ()),
    "table_to_xml_and_xmlschema": (0, ()),
    "connectby": (0, (1, 2, 3)),
    "xpath_table": (2, (0, 1, 4)),
}
#: Function of PostgreSQL's -> the kind of session state that it leaves, whatever its arguments.
KINDS = {
    **dict.fromkeys((*_LOCKS, *_UNLOCKS, "pg_advisory_unlock_all"), Kind.LOCK),
    **dict.fromkeys(_SEQUENCES, Kind.SEQUENCE),
    **dict.fromkeys(_FOR_GOOD, Kind.EXTENSION),
    **dict.fromkeys(RUNNERS, Kind.DYNAMIC),
    "set_config": Kind.SETTING,
    "setseed": Kind.SEED,
}
#: Functions that read what an earlier nextval() left in the session.
READERS = {"currval", "lastval"}


def calls_of(statement: Statement, functions: Container[str]) -> list[tuple[int, str]]:
    """Return the calls of *functions*: the position of each name, and the name.

    A function of PostgreSQL's that is called by another schema is another function.
    """
    return [
        (position, token.text)
        for position, token in enumerate(statement)
        if token[1] in functions
        and statement[position].kind is WORD
        and statement[position + 1 : position + 2] == [_OPENING]
        and (token.text not in KINDS or _may_be_builtin(statement, position))
    ]


def _may_be_builtin(statement: Statement, position: int) -> bool:
    """Return whether the schema of the function at *position* may be ``pg_catalog``."""
    if position < 2 or text_at(statement, position - 1) != ".":
        return True
    return fits("pg_catalog", statement[position - 2].text)


_OPENING = Token(OTHER, "(")


def texts_run(
    statement: Statement, runners: Mapping[str, tuple[int, ...]] = RUNNERS
) -> Iterator[str | None]:
    """Yield each text that a call of one of *runners* runs as SQL; None for an unknown text."""
    if runners.keys().isdisjoint(text for _, text, _ in statement):
        return
    calls = calls_of(statement, runners)
    arguments = _arguments(statement, {position + 1 for position, _ in calls})
    for position, function in calls:
        spans = arguments[position + 1]
        if function == "ts_rewrite" and len(spans) != 2:
            continue  # with three arguments, none is a text
        for place in runners[function]:
            if place < len(spans):
                begin, end = spans[place]
                argument = _without_casts(statement[begin:end], _TEXT_TYPES)
                known = len(argument) == 1 and argument[0].kind is STRING
                yield argument[0].text if known else None


def queries_run(statement: Statement) -> Iterator[str | None]:
    """Yield the query of each call that reads a relation by its name; None for an unknown one."""
    if RELATION_READERS.keys().isdisjoint(text for _, text, _ in statement):
        return
    calls = calls_of(statement, RELATION_READERS)
    arguments = _arguments(statement, {position + 1 for position, _ in calls})
    for position, function in calls:
        constants = [
            argument[0].text if len(argument) == 1 and argument[0].kind is STRING else None
            for begin, end in arguments[position + 1]
            for argument in [_without_casts(statement[begin:end], (*_TEXT_TYPES, "regclass"))]
        ]
        place, parts = RELATION_READERS[function]
        relation = constants[place] if place < len(constants) else None
        if relation is None:
            yield None
        else:
            others = [constants[part] or "" for part in parts if part < len(constants)]
            yield f"SELECT {', '.join(others)} FROM {relation}"


def _function_effects(statement: Statement) -> Iterator[AnyStep]:
    calls = calls_of(statement, _FUNCTIONS)
    if not calls:
        return
    columns = _columns(statement)
    looked_at = (at for at, function in calls if function == "set_config" or at in columns)
    arguments = _arguments(statement, {at + 1 for at in looked_at})
    sequences = False
    for position, function in calls:
        spans = arguments.get(position + 1, [])
        if function == "set_config":
            yield from _set_config(statement, spans, once=position in columns)
        elif function == "setseed":
            yield Change(Kind.SEED, None)
        elif function in _FOR_GOOD:
            yield Change(Kind.EXTENSION, None)
        elif function in _SEQUENCES:
            if not (_is_column_default(statement, position) or _is_of_django(statement, position)):
                sequences = True
        elif function == "pg_advisory_unlock_all":
            # The baseline's locks may be gone even if it is not certain that it is called.
            yield Change(Kind.LOCK, ALL, undoes=True, sure=position in columns)
        elif position not in columns:
            # It may be called any number of times.
            if function in _LOCKS:
                yield Change(Kind.LOCK, None)
        else:
            name = _key(statement, spans, function)
            undoes = function in _UNLOCKS
            if name is not None or not undoes:
                column = columns[position] if _LOCKS.get(function, True) else None
                yield Change(Kind.LOCK, name, undoes, column=column)
    if sequences:
        yield Change(Kind.SEQUENCE, None)


def _is_of_django(statement: Statement, call: int) -> bool:
    """Return whether the call is how Django sets sequences, after ``loaddata`` and between tests.

    Nothing reads the value afterwards. An INSERT leaves the same state and is not counted either.
    """
    return (statement[call].text, text_at(statement, call + 2)) == (
        "setval",
        "pg_get_serial_sequence",
    )


def _is_column_default(statement: Statement, call: int) -> bool:
    """Return whether the call is a column default, which runs when rows are inserted.

    ALTER TABLE ... ADD COLUMN runs it for the rows that exist, as INSERT does.
    """
    before = call - 3 if text_at(statement, call - 1) == "." else call - 1
    while text_at(statement, before) == "(":  # Django writes an expression in parentheses
        before -= 1
    return text_at(statement, before) == "default" and statement[0].text in ("create", "alter")


def _columns(statement: Statement) -> dict[int, int]:
    """Map the position of each function's name to its column, for ``SELECT f(...), g(...)``.

    The result is empty for any other statement, because it may not return exactly one row.
    """
    if statement[0] != _SELECT:
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
        if position < len(statement) and text_at(statement, position) != ",":
            return {}
        position, column = position + 1, column + 1
    if any(
        following == _OPENING and token.kind is WORD and not _is_of_one_row(statement, position)
        for position, (token, following) in enumerate(pairwise(statement))
    ):
        return {}
    return found


_SELECT = Token(WORD, "select")


def _is_of_one_row(statement: Statement, position: int) -> bool:
    """Return whether the function at *position* is known to return exactly one row."""
    if statement[position].text not in _OF_ONE_ROW:
        return False
    schema = statement[position - 2].text if text_at(statement, position - 1) == "." else ""
    return schema in ("", "pg_catalog")


#: Functions that return exactly one row, so that each function in the SELECT is called once.
_OF_ONE_ROW = {
    *_FUNCTIONS,
    *("pg_advisory_xact_lock", "pg_advisory_xact_lock_shared"),
    *("pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared"),
    *("hashtext", "hashtextextended", "abs", "mod", "length", "lower", "upper", "md5"),
}


def _arguments(statement: Statement, openings: set[int]) -> dict[int, list[Span]]:
    """Map each of *openings*, the positions of opening parentheses, to its arguments.

    A parenthesis that is not closed extends to the end.
    """
    if not openings:
        return {}
    #: Opening parenthesis -> where its arguments begin, and finally where the next one would.
    begins: dict[int, list[int]] = {}
    stack: list[int] = []
    for position, (kind, text, _) in enumerate(statement):
        if kind is not OTHER:
            continue
        if text in ("(", "["):
            stack.append(position)
            if position in openings:
                begins[position] = [position + 1]
        elif text == ",":
            if stack and stack[-1] in begins:
                begins[stack[-1]].append(position + 1)
        elif text in (")", "]") and stack:
            opening = stack.pop()
            if opening in begins:
                begins[opening].append(position + 1)
    for opening in begins.keys() & stack:
        begins[opening].append(len(statement) + 1)
    return {
        opening: [(begin, following - 1) for begin, following in pairwise(found)]
        for opening, found in begins.items()
    }


def _set_config(statement: Statement, spans: list[Span], *, once: bool) -> Iterator[AnyStep]:
    if len(spans) != 3:  # EXECUTE 'SELECT set_config(' || ...
        yield from Assignment(None, None, None).steps()
        return
    name, value = (_constant(statement, span) for span in spans[:2])
    # A name that is put in may contain a comma, and another schema after it.
    if value and any(isinstance(piece, str) and UNKNOWN_NAME in piece for piece in value):
        value = None
    yield from Assignment(name, value, _truth(statement, spans[2]), once).steps()


#: The maximum length of an argument that is examined, in tokens.
_SHORT = 40


def _constant(statement: Statement, span: Span) -> Name | None:
    """Return the text of an argument made of constants joined with ``||``; None for any other."""
    begin, end = span
    if end - begin > _SHORT:
        return None
    argument = _without_casts(statement[begin:end], _TEXT_TYPES)
    if argument == [_NULL]:
        return NULL
    pieces: list[str | Parameter] = []
    while argument:
        token = argument[0]
        piece = token.text if token.kind is STRING else parameter(token)
        if piece is None:
            return None
        pieces.append(piece)
        if len(argument) > 1 and (argument[1:3] != [_BAR, _BAR] or len(argument) < 4):
            return None
        argument = argument[3:]
    return tuple(pieces) or None


def _truth(statement: Statement, span: Span) -> bool | Parameter | None:
    """Return the value of an argument that is a boolean constant or one parameter, else None."""
    begin, end = span
    argument = _without_casts(statement[begin : min(end, begin + _SHORT)], _TRUTH_TYPES)
    if end - begin > _SHORT or len(argument) != 1:
        return None
    kind, text, quoted = token = argument[0]
    if kind is PARAMETER:
        return parameter(token)
    if kind is STRING or (kind is WORD and not quoted and text in ("true", "false", "null")):
        text = text.lower()
        return True if text in _TRUTHS else False if text in _FALSEHOODS else None
    return None


def _without_casts(argument: Statement, types: tuple[str, ...]) -> Statement:
    found: Statement = []
    position = 0
    while position < len(argument):
        if argument[position] == _CAST and text_at(argument, position + 1) in types:
            position += 2
        else:
            found.append(argument[position])
            position += 1
    return found


_NULL, _CAST, _BAR = Token(WORD, "null"), Token(OTHER, "::"), Token(OTHER, "|")
_TEXT_TYPES, _TRUTH_TYPES = ("text", "varchar", "name"), ("boolean", "bool")
_TRUTHS = ("true", "t", "yes", "y", "on", "1")
_FALSEHOODS = ("false", "f", "no", "n", "off", "0", "null")


def _key(statement: Statement, spans: list[Span], function: str) -> Name | None:
    """Return the name of a lock if its arguments are constants, else None."""
    parts: list[str | Parameter] = ["shared " if function.endswith("_shared") else ""]
    for begin, end in spans:
        if len(parts) > 1:
            parts.append(",")
        for position in range(begin, end):
            before = "" if position == begin else text_at(statement, position - 1)
            after = "" if position + 1 == end else text_at(statement, position + 1)
            part = _key_part(statement[position], before, after)
            if part is None:
                return None
            parts.append(part)
    return tuple(parts)


def _key_part(token: Token, before: str, after: str) -> str | Parameter | None:
    if token.kind is STRING:
        return quote(token.text)
    if token.kind is OTHER or after == "(" or before == "::":  # a function or a type
        return token.text
    return parameter(token)


def parameter(token: Token) -> Parameter | None:
    kind, text, _ = token
    if kind is not PARAMETER:
        return None
    if text.startswith("%("):
        return Parameter(text[2:-2])
    # No driver counts this far, and Python limits how many digits int() converts.
    number = int(text[1:]) if text[1:].isdecimal() and len(text) < 10 else 0
    return Parameter(number - 1) if number else None
