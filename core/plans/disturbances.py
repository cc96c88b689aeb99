"""Disturbances: statements after which a target may mean something else, or is no longer prepared.

The server analyzes a prepared statement once. Later it only notices that an object in it has
changed, or the search path: not that a new object has the same name, nor that a constant in the
text would now be read in another way. And types of parameters that it has inferred stay.
https://www.postgresql.org/docs/current/sql-prepare.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Flag, auto

from relet.core.sql.effects import ALL, Change, Kind
from relet.core.sql.statements import STRING, WORD, Statement, readings, split


class Disturbance(Flag):
    """What a statement does to the plans of sessions."""

    #: The session has nothing prepared any more.
    FORGETS = auto()
    #: Objects are defined, changed or dropped, for all sessions.
    DEFINES = auto()
    #: The same for objects of this session.
    DEFINES_HERE = auto()
    #: A setting is made with which a text may mean something else.
    SETS = auto()
    #: The same until the transaction ends.
    SETS_LOCALLY = auto()


NOTHING = Disturbance(0)
#: What else its code sets is known when it has run, see `of_changes`.
_DOES_ANYTHING = Disturbance.SETS_LOCALLY | Disturbance.DEFINES

#: A text without any of these disturbs nothing.
_MAY = re.compile(
    r"\b(?:create|alter|drop|import|into|set|set_config|reset|discard|deallocate|do)\b",
    re.IGNORECASE,
)
#: In the code of a DO block, perhaps in a string that it runs.
_IN_CODE = re.compile(r"\b(?:create|alter|drop|set|set_config|reset|execute)\b", re.IGNORECASE)
#: Settings with which names are found, and constants are read.
_SETTINGS = frozenset(
    {
        *("search_path", "schema", "timezone", "zone", "datestyle", "intervalstyle"),
        *("transform_null_equals", "array_nulls", "lc_monetary", "xmloption", "xmlbinary"),
        *("backslash_quote", "default_text_search_config"),
        # With these, "$user" in the search path is another schema.
        *("role", "session_authorization", "authorization"),
    }
)
#: Objects that no statement's meaning depends on, or whose changes the server notices itself.
_HARMLESS = frozenset(
    {
        *("index", "role", "user", "group", "database", "tablespace", "statistics", "system"),
        *("publication", "subscription", "server", "trigger", "policy", "sequence"),
    }
)
#: Kinds of session state that may be a setting.
_SURE = frozenset({Kind.DYNAMIC, Kind.UNKNOWN, Kind.ROLE})
_MODIFIERS = frozenset(
    {
        *("or", "replace", "unique", "unlogged", "recursive", "materialized", "constraint"),
        *("foreign", "event", "default", "trusted", "procedural", "large"),
    }
)
_TEMPORARY = frozenset({"temp", "temporary", "local", "global", "pg_temp"})


def of_changes(changes: Iterable[object]) -> Disturbance:
    """Return what *changes* of session state do to plans, such as those that a function makes."""
    found = NOTHING
    for change in changes:
        if not isinstance(change, Change) or change.undoes:
            continue
        if change.kind is Kind.TEMPORARY:
            found |= Disturbance.DEFINES_HERE
        elif change.kind in _SURE or (change.kind is Kind.SETTING and _matters(change)):
            found |= Disturbance.SETS
    return found


def _matters(setting: Change) -> bool:
    """Return whether a text may mean something else with *setting*."""
    if setting.name is None or setting.name == ALL:
        return True
    return any(str(part).lower() in _SETTINGS for part in setting.name)


def disturbance(sql: str) -> Disturbance:
    """Return what *sql* does to plans; it is false if it does nothing."""
    if _MAY.search(sql) is None:
        return NOTHING
    found = NOTHING
    for way in readings(sql):
        for statement in split(way):
            found |= _of(statement)
    return found


def _of(statement: Statement) -> Disturbance:
    words = [token.text for token in statement if token.kind is WORD and not token.quoted]
    head = words[0] if words else ""
    if head == "deallocate":
        return Disturbance.FORGETS if "all" in words[1:3] else NOTHING
    if head == "discard":
        if "all" in words:
            return Disturbance.FORGETS | Disturbance.SETS | Disturbance.DEFINES_HERE
        return Disturbance.DEFINES_HERE if "plans" not in words else NOTHING
    if head in ("set", "reset"):
        return _of_setting(head, words, statement)
    if head == "do":
        code = (token.text for token in statement if token.kind is STRING)
        return _DOES_ANYTHING if any(map(_IN_CODE.search, code)) else NOTHING
    if head in ("create", "alter", "drop", "import"):
        return _of_definition(words)
    found = _of_calls(statement)
    if head in ("select", "with", "explain") and "into" in words and "insert" not in words:
        following = words[words.index("into") + 1 :][:1]
        found |= (
            Disturbance.DEFINES_HERE if _TEMPORARY.intersection(following) else Disturbance.DEFINES
        )
    return found


def _of_setting(head: str, words: list[str], statement: Statement) -> Disturbance:
    named = {token.text.lower() for token in statement[1:4]}
    if _SETTINGS.isdisjoint(named) and not (head == "reset" and "all" in words):
        return NOTHING
    return Disturbance.SETS_LOCALLY if "local" in words[1:2] else Disturbance.SETS


def _of_definition(words: list[str]) -> Disturbance:
    if _TEMPORARY.intersection(words[1:6]):
        return Disturbance.DEFINES_HERE
    what = next((word for word in words[1:] if word not in _MODIFIERS), "")
    return NOTHING if what in _HARMLESS else Disturbance.DEFINES


def _of_calls(statement: Statement) -> Disturbance:
    """Return what calls of set_config() in *statement* do."""
    found = NOTHING
    for at, token in enumerate(statement):
        if token.kind is WORD and token.text == "set_config":
            name = statement[at + 2] if at + 2 < len(statement) else None
            if name is None or name.kind is not STRING or name.text.lower() in _SETTINGS:
                locally = [one.text for one in statement[at + 5 : at + 7]] == [",", "true"]
                found |= Disturbance.SETS_LOCALLY if locally else Disturbance.SETS
    return found
