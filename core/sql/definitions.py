"""Definitions: which part of a statement runs at once if the statement defines something.

A function that is only named does not run, nor does an expression that is kept for later.
"""

from __future__ import annotations

from .names import end_of_name, is_temporary_schema
from .statements import STRING, WORD, Statement, closing, comma_list, key_words, text_at

#: First words of statements that only name things.
_NAMING = ("drop", "comment", "grant", "revoke")
#: What may come before the kind of object that CREATE makes.
MODIFIERS = {
    *("or", "replace", "local", "global", "temp", "temporary", "recursive"),
    *("constraint", "event"),
}
_BEFORE_TEMPORARY = ("or", "replace", "local", "global")
#: CREATE defines something whose statements or expressions run later.
_CREATED = {
    *("view", "function", "procedure", "rule", "policy", "trigger", "aggregate"),
    *("cast", "operator"),
}
#: The same of ALTER.
_ALTERED = {"function", "procedure", "routine", "aggregate", "policy"}
#: First words of actions of ALTER that run nothing, and what may follow ALTER COLUMN and a name.
_ACTIONS = {"rename", "owner", "enable", "disable", "force", "no", "drop"}
_OF_COLUMNS = ("default", "statistics", "storage")
#: What follows ADD in an action that may end with NOT VALID. These words are no names of columns.
_ADDED = ("constraint", "check", "foreign")


def part_that_runs(statement: Statement) -> Statement:
    """Return the part of *statement* that runs at once. It may be empty."""
    words = key_words(statement)
    head = words[0] if words else ""
    if head in _NAMING:
        return []
    if head == "create":
        if _is_temporary(statement, words):
            return statement  # the catalogue does not have it, so what it uses counts now
        what = _created(words)
        if what in _CREATED:
            return []
        if what == "domain" or ("table" in words[1:4] and not _fills(statement)):
            return _constants_of_types(statement)
    if head == "alter":
        return [] if words[1:2] and words[1] in _ALTERED else _of_actions(statement)
    return statement


def is_temporary_view(statement: Statement) -> bool:
    """Return whether *statement* makes a temporary view, whose query runs later."""
    words = key_words(statement)
    return words[:1] == ["create"] and _created(words) == "view" and _is_temporary(statement, words)


def _created(words: list[str]) -> str:
    """Return the kind of object that CREATE makes, or the word before it, as ``unlogged``."""
    return next((word for word in words[1:] if word not in MODIFIERS), "")


def _is_temporary(statement: Statement, words: list[str]) -> bool:
    """Return whether CREATE makes something temporary. It may also only name such a thing."""
    first = next((word for word in words[1:] if word not in _BEFORE_TEMPORARY), "")
    return first in ("temp", "temporary") or any(
        token.kind is WORD and is_temporary_schema(token.text) for token in statement
    )


def _fills(statement: Statement) -> bool:
    """Return whether CREATE TABLE runs a query, or checks the rows of other partitions."""
    position = 0
    while position < len(statement):
        if text_at(statement, position) == "(":
            position = closing(statement, position)
        elif text_at(statement, position) in ("as", "partition") and (
            text_at(statement, position + 1) != "by"
        ):
            return True
        position += 1
    return False


def _constants_of_types(statement: Statement) -> Statement:
    """Return the names of types in *statement* if it has constants.

    These are read now, and with them the server checks domains in ranges, arrays and rows.
    """
    if not any(token.kind is STRING for token in statement):
        return []
    return [token for token in statement[1:] if token.kind is WORD]


def _of_actions(statement: Statement) -> Statement:
    """Return ALTER *statement* without the actions that run nothing."""
    position = 1
    while text_at(statement, position) in ("foreign", "materialized"):
        position += 1
    position += 1
    while text_at(statement, position) in ("if", "exists", "only"):
        position += 1
    position = end_of_name(statement, position)
    if text_at(statement, position) == "*":
        position += 1
    actions = comma_list(statement[position:])
    kept = [action for action in actions if not _runs_nothing(action)]
    if len(kept) == len(actions) or any(text_at(action, 0) == "validate" for action in kept):
        return statement  # VALIDATE may run a constraint that another action adds
    part = [token for action in kept for token in action]
    if any(token.kind is STRING for token in statement):
        # A constant, as in a default, is of the type of a column, or of one that is named.
        dropped = (action for action in actions if _runs_nothing(action))
        part += [token for action in dropped for token in action if token.kind is WORD]
    return [*statement[:position], *part] if part else []


def _runs_nothing(action: Statement) -> bool:
    first, second = text_at(action, 0), text_at(action, 1)
    if first == "alter":
        at = 3 if second == "column" else 2
        what = text_at(action, at)
        return what == "drop" or (what == "set" and text_at(action, at + 1) in _OF_COLUMNS)
    if first == "add":
        last = [token.text for token in action[-2:]]
        return second in _ADDED and last == ["not", "valid"]
    return first in _ACTIONS or (first == "set" and second in ("schema", "default"))
