"""Calls: the effects of functions, and of SELECT INTO, anywhere. A part of the classifier."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from .assignments import NULL, Assignment, makes_temporary
from .effects import ALL, AnyStep, Change, Kind, Name, Parameter, quote
from .names import end_of_name, is_temporary_schema, name_parts, object_name
from .statements import OTHER, PARAMETER, STRING, WORD, Statement, Token, closing, text_at

#: Of an argument: where it begins, and where it ends.
Span = tuple[int, int]


def anywhere(statement: Statement) -> Iterator[AnyStep]:
    texts = {text for _, text, _ in statement}
    if not texts.isdisjoint(_FUNCTIONS):
        yield from _function_effects(statement)
    if "into" in texts:
        yield from _select_into(statement)
    if "pg_settings" in texts and "update" in texts:
        yield Change(Kind.SETTING, None)  # by a rule of that view
        if any(map(makes_temporary, texts)):
            yield Change(Kind.TEMPORARY, None)


def _select_into(statement: Statement) -> Iterator[AnyStep]:
    for position, token in enumerate(statement):
        if token == _INTO:
            before = statement[position - 1].text if position else ""
            if not (before in _WRITES and _is_write(before, statement, position + 1)):
                yield from _new_table(statement, position + 1)


_INTO = Token(WORD, "into")
_WRITES = ("insert", "merge")
#: What follows the name in INSERT INTO, and no name after TEMP.
_AFTER_INSERT = ("(", "as", "default", "select", "with")


def _is_write(before: str, statement: Statement, position: int) -> bool:
    """Whether it is INSERT INTO or MERGE INTO, not ``SELECT 1 AS insert INTO``.

    :param position: of what follows INTO.
    """
    if before == "merge" and text_at(statement, position) == "only":
        position += 1
    end = end_of_name(statement, position)
    following = text_at(statement, end)
    if before == "insert":
        # A table could be called TEMP, and one that is INTO TEMP could be called VALUES.
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
    """The effects of a SELECT INTO what is at *position*."""
    temporary = False
    while (text := text_at(statement, position)) in _OF_NEW_TABLES:
        if statement[position].quoted or text_at(statement, position + 1) == ".":
            break
        temporary |= text in ("temp", "temporary")
        position += 1
    if temporary or any(map(is_temporary_schema, name_parts(statement, position))):
        yield Change(Kind.TEMPORARY, object_name(statement, position))


_OF_NEW_TABLES = ("local", "global", "temp", "temporary", "unlogged", "table")


#: What takes an advisory lock -> whether it may fail to.
_LOCKS = {
    "pg_advisory_lock": False,
    "pg_advisory_lock_shared": False,
    "pg_try_advisory_lock": True,
    "pg_try_advisory_lock_shared": True,
}
_UNLOCKS = ("pg_advisory_unlock", "pg_advisory_unlock_shared")
_SEQUENCES = ("nextval", "setval")
_FUNCTIONS = {
    *(*_LOCKS, *_UNLOCKS, "pg_advisory_unlock_all"),
    *(*_SEQUENCES, "set_config", "setseed"),
}
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
        elif function in _SEQUENCES:
            if not (_is_column_default(statement, position) or _is_of_django(statement, position)):
                sequences = True
        elif position not in columns:
            # It may be called often, or not at all.
            if function in _LOCKS:
                yield Change(Kind.LOCK, None)
        elif function == "pg_advisory_unlock_all":
            yield Change(Kind.LOCK, ALL, undoes=True)
        else:
            name = _key(statement, spans, function)
            undoes = function in _UNLOCKS
            if name is not None or not undoes:
                column = columns[position] if _LOCKS.get(function, True) else None
                yield Change(Kind.LOCK, name, undoes, column=column)
    if sequences:
        yield Change(Kind.SEQUENCE, None)


def _is_of_django(statement: Statement, call: int) -> bool:
    """Whether it is what Django sets sequences by: after ``loaddata``, and between tests.

    No one reads the value again. An INSERT, which is not looked at either, leaves as much.
    """
    return (statement[call].text, text_at(statement, call + 2)) == (
        "setval",
        "pg_get_serial_sequence",
    )


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
    """Whether the function at *position* is known to return one value for one."""
    if statement[position].text not in _OF_ONE_ROW:
        return False
    schema = statement[position - 2].text if text_at(statement, position - 1) == "." else ""
    return schema in ("", "pg_catalog")


#: What returns one value for one, so that each function in a SELECT is called once.
_OF_ONE_ROW = {
    *_FUNCTIONS,
    *("pg_advisory_xact_lock", "pg_advisory_xact_lock_shared"),
    *("pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared"),
    *("hashtext", "hashtextextended", "abs", "mod", "length", "lower", "upper", "md5"),
}


def _arguments(statement: Statement, openings: set[int]) -> dict[int, list[Span]]:
    """The arguments in the parentheses that are at *openings*.

    What is not closed goes on to the end.
    """
    if not openings:
        return {}
    #: Where arguments begin, and where one more would.
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
    yield from Assignment(name, value, _truth(statement, spans[2]), once).steps()


#: So long is what is looked at of an argument.
_SHORT = 40


def _constant(statement: Statement, span: Span) -> Name | None:
    """The text of an argument that is one, or several with ``||`` between; None if it is not."""
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
    """What an argument is, if it is a constant truth value, or a parameter alone."""
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
    """What a lock is on, if its arguments are constants; None if not."""
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
    if token.kind is OTHER or after == "(" or before == "::":  # a function, a type
        return token.text
    return parameter(token)


def parameter(token: Token) -> Parameter | None:
    kind, text, _ = token
    if kind is not PARAMETER:
        return None
    if text.startswith("%("):
        return Parameter(text[2:-2])
    # More digits than any driver counts to are no number to Python either.
    number = int(text[1:]) if text[1:].isdecimal() and len(text) < 10 else 0
    return Parameter(number - 1) if number else None
