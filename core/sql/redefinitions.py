"""Redefinitions: statements after which other statements may have other effects.

They define functions, triggers, views and so on, or what such things belong to.
"""

from __future__ import annotations

import re

from .functions import KINDS
from .statements import Statement, key_words, readings, split

#: A text without any of these defines nothing.
_MAY = ("create", "alter", "drop", "import")
#: A DO block that defines something, perhaps in a string that it runs.
_DEFINES = re.compile(
    r"(?:create|alter|drop)\s.*?(?:function|procedure|routine|aggregate|trigger|rule|view"
    r"|extension|operator|cast|policy|table|domain|schema|search_path)",
    re.IGNORECASE | re.DOTALL,
)
_MODIFIERS = {"or", "replace", "recursive", "materialized", "constraint", "event", "foreign"}
#: What has effects by its own definition.
_SOURCES = {
    *("function", "procedure", "routine", "aggregate", "trigger", "rule", "view"),
    *("extension", "operator", "cast", "schema"),
}
#: What has effects only if something else has.
_USERS = {"table", "index", "unique", "policy", "domain", "type", "user", "role", "database"}


def redefines(sql: str, lowered: str, *, known: bool) -> bool:
    """Return whether *sql* may change the effects of other statements.

    :param lowered: the same text in lower case.
    :param known: whether anything in the database is known to have effects.
    """
    if not any(word in lowered for word in _MAY):
        return False
    return any(_redefines(statement, known) for way in readings(sql) for statement in split(way))


def _redefines(statement: Statement, known: bool) -> bool:
    words = key_words(statement)
    head = words[0] if words else ""
    if head == "do":
        return any(_DEFINES.search(token.text) for token in statement)
    if head == "import":
        return True
    if head not in ("create", "alter", "drop"):
        return False
    what = next((word for word in words[1:] if word not in _MODIFIERS), "")
    if what in _SOURCES:
        return True
    texts = {token.text for token in statement}
    if what in ("user", "role", "database"):
        return "search_path" in texts
    return what in _USERS and (known or not KINDS.keys().isdisjoint(texts))
