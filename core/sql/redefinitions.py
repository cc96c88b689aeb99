"""Redefinitions: statements after which other statements may have other effects.

They define functions, triggers, views and so on, or what such things belong to, or they change
where names are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .commands import analyzed_statement
from .effects import ALL, Change, Kind
from .functions import KINDS, new_tables
from .lines import Clues, Lines, has_clue
from .names import UNKNOWN_NAME, fits
from .procedural import Code, parts
from .statements import STRING, WORD, Statement, key_words, readings, split, text_at

#: The change of a statement that calls code which defines something. It leaves nothing.
REDEFINES = Change(Kind.UNKNOWN, ALL, undoes=True, sure=False, renames=True)

_HEADS = ("create", "alter", "drop")
_MAY_DEFINE: Clues = tuple((head,) for head in _HEADS)
#: A text without any of these defines nothing.
_MAY = (*_HEADS, "import", "prepared")
#: A block that has one of the first, and later one of the second, may define something, perhaps in
#: a string that it runs.
_BEGINS = re.compile(r"\b(?:create|alter|drop)\s", re.IGNORECASE)
_DEFINED = re.compile(
    r"function|procedure|routine|aggregate|trigger|rule|view|extension|operator|cast|policy|table"
    r"|domain|schema|search_path|index|type|statistics|sequence",
    re.IGNORECASE,
)
_MODIFIERS = {
    *("or", "replace", "recursive", "materialized", "constraint", "event", "foreign"),
    *("unlogged", "local", "global", "temp", "temporary"),
}
_TEMPORARY = {"temp", "temporary"}
#: What has effects by its own definition.
_SOURCES = {
    *("function", "procedure", "routine", "aggregate", "trigger", "rule", "view"),
    *("extension", "operator", "cast", "schema"),
}
#: What has effects only if something else has.
_USERS = {
    *("table", "index", "unique", "policy", "domain", "type", "statistics"),
    *("user", "role", "database", "system"),
}
#: These are made where their table is.
_ATTACHED = {"index", "unique", "trigger", "rule", "policy", "extension", "schema", "database"}
#: The words at the beginning of a definition that say what it defines.
_WORDS = 8


def redefines(sql: str, lowered: str, *, known: bool) -> bool:
    """Return whether *sql* may change the effects of other statements.

    :param lowered: the same text in lower case.
    :param known: whether anything in the database is known to have effects.
    """
    if not any(word in lowered for word in _MAY) and not (known and "into" in lowered):
        return False
    return any(_redefines(statement, known) for way in readings(sql) for statement in split(way))


def _redefines(statement: Statement, known: bool) -> bool:
    words = key_words(statement)
    head = words[0] if words else ""
    if head == "do":
        return any(_may_define(token.text) for token in statement)
    if head == "import" or words[:2] == ["commit", "prepared"]:
        return True
    if head == "explain":
        analyzed = analyzed_statement(statement)
        return analyzed is not None and _redefines(analyzed, known)
    if head in ("select", "with"):  # SELECT INTO takes columns of domains over
        return known and any(
            text_at(statement, at) not in _TEMPORARY for at in new_tables(statement)
        )
    texts = {token.text for token in statement}
    # A policy, rule or trigger that was not enabled is not known.
    return head in _HEADS and _is_redefinition(words, texts, known or "enable" in texts)


def _is_redefinition(words: list[str], texts: set[str], known: bool) -> bool:
    what = next((word for word in words[1:] if word not in _MODIFIERS), "")
    calls = not KINDS.keys().isdisjoint(texts)
    if not _TEMPORARY.isdisjoint(words[1:4]):
        # Common. What such a table has from elsewhere counts when it is made.
        return calls
    if what in _SOURCES:
        return True
    if what in ("user", "role", "database", "system"):
        return "search_path" in texts
    return what in _USERS and (known or calls)


def _may_define(text: str) -> bool:
    found = _BEGINS.search(text)
    return found is not None and _DEFINED.search(text, found.end()) is not None


def bodies_that_may_define(lines: Lines) -> set[int]:
    """Return the positions of bodies of functions that may define something."""
    return {at for at in lines.having_clue(_MAY_DEFINE) if _may_define(lines.texts[at])}


def body_defines(statements: Iterable[Statement]) -> bool:
    """Return whether one of *statements*, in the body of a function, defines what has effects.

    Tables count only if their definition has a call that does, because code that makes partitions
    is common.
    """
    return any(
        _is_redefinition(words, texts, known=False)
        for statement in statements
        for words, texts in _definitions_in(statement)
    )


def body_creates(statements: Iterable[Statement]) -> bool:
    """Return whether one of *statements*, in the body of a function, makes a new object."""
    return any(
        words[0] == "create" and _is_new(words)
        for statement in statements
        for words, _ in _definitions_in(statement)
    )


def _definitions_in(statement: Statement) -> Iterable[tuple[list[str], set[str]]]:
    """Yield the words with which definitions in code begin, and all words of the code."""
    texts = {token.text for token in statement}
    if texts.isdisjoint(_HEADS):
        return
    for position, token in enumerate(statement):
        if token.text in _HEADS and token.kind is WORD and not token.quoted:
            yield key_words(statement[position : position + _WORDS]), texts


def creates(sql: str) -> bool:
    """Return whether *sql* may make a new object in the first schema of the search path."""
    for way in readings(sql):
        for statement in split(way):
            words = key_words(statement)
            head = words[0] if words else ""
            if head == "create" and _is_new(words):
                return True
            if head == "do" and any(_BEGINS.search(token.text) for token in statement):
                return True
            if head in ("select", "with") and any(token.text == "into" for token in statement):
                return True
    return False


def _is_new(words: list[str]) -> bool:
    what = next((word for word in words[1:] if word not in _MODIFIERS), "")
    return _TEMPORARY.isdisjoint(words[1:4]) and what not in _ATTACHED


# The search path.

#: Settings by which it changes: "$user" in it is the name of the role.
_OF_PATH = ("search_path", "role", "session_authorization")
_SETS_PATH = ("schema", *_OF_PATH)
#: What comes before a statement in code.
_BEFORE = ("begin", "then", "else", "loop", ";", ">")
#: The maximum depth of strings in strings that are looked at.
_DEEPEST = 3
#: A text without any of these does not change it.
_MAY_CHANGE_PATH: Clues = (
    *(("set", part) for part in ("set_config", "schema", "role", "authorization", "reset")),
    *(("discard",), ("search_path",), ("set", UNKNOWN_NAME)),
)


def changes_path(sql: str, lowered: str) -> bool:
    """Return whether *sql* may change where names are looked up.

    :param lowered: the same text in lower case.
    """
    if has_clue(lowered, _MAY_CHANGE_PATH) and _changes_path(sql, lowered):
        return True
    return "execute" in lowered and any_text_changes_path(_texts_of_blocks(sql))


def _texts_of_blocks(sql: str) -> Iterator[str]:
    """Yield the texts that the statements DO in *sql* put together."""
    for way in readings(sql):
        for statement in split(way):
            if key_words(statement)[:1] == ["do"]:
                yield from Code.of_block(statement).texts


def any_text_changes_path(texts: Iterable[str]) -> bool:
    """Return whether one of *texts*, which code runs as SQL, may do so."""
    for text in texts:
        lowered = text.lower()
        if has_clue(lowered, _MAY_CHANGE_PATH) and _changes_path(text, lowered):
            return True
    return False


def any_changes_path(lines: Lines) -> bool:
    """Return whether one of several sources may do so."""
    return any(
        _changes_path(lines.texts[at], lines.lowered[at])
        for at in lines.having_clue(_MAY_CHANGE_PATH)
    )


def _changes_path(sql: str, lowered: str) -> bool:
    if "search_path" in lowered:
        return True
    pending, seen = [(sql, 0)], {sql}
    while pending:
        text, depth = pending.pop()
        for way in readings(text):
            for position, token in enumerate(way):
                if token.kind is STRING:
                    if token.text not in seen and has_clue(token.text.lower(), _MAY_CHANGE_PATH):
                        if depth >= _DEEPEST:
                            return True
                        seen.add(token.text)
                        pending.append((token.text, depth + 1))
                elif token.kind is WORD and _is_change_of_path(way, position):
                    return True
    return False


def _is_change_of_path(tokens: Statement, position: int) -> bool:
    """Return whether the word at *position* begins something that may change the search path."""
    token = tokens[position]
    if token.text == "set_config":
        return _may_set_path(tokens, position + 1)
    following = text_at(tokens, position + 1)
    if token.text in ("reset", "discard"):
        return following in ("all", "role", "session")
    return token.text == "set" and not token.quoted and _sets_path(tokens, position)


def _may_set_path(tokens: Statement, opening: int) -> bool:
    """Return whether the arguments of set_config() at *opening* may begin with such a setting."""
    name, after = tokens[opening + 1 : opening + 2], text_at(tokens, opening + 2)
    if not name or name[0].kind is not STRING or after != ",":
        return True
    return _may_be(name[0].text.lower(), _OF_PATH)


def _sets_path(tokens: Statement, position: int) -> bool:
    """Return whether SET at *position* is such a statement, and not a part of UPDATE."""
    if position and text_at(tokens, position - 1) not in _BEFORE:
        return False
    while text_at(tokens, position + 1) in ("session", "local"):
        position += 1
    return _may_be(text_at(tokens, position + 1), (*_SETS_PATH, "authorization"))


def _may_be(name: str, names: Iterable[str]) -> bool:
    """Return whether *name*, in which some may be unknown, may be one of *names*."""
    return any(fits(each, name) for each in names)


def uses_its_definitions(sql: str) -> bool:
    """Return whether *sql* defines something with effects, and may use it at once."""
    return any(_uses_its_definitions(split(way)) for way in readings(sql))


def _uses_its_definitions(found: list[Statement]) -> bool:
    defined = False
    for statement in found:
        run = [statement]
        if statement[0].text == "do":
            run = [part for each in Code.of_block(statement).statements for part in parts(each)]
        # In a block, what is used may be defined further down, as in a loop.
        defines = any(_redefines(each, known=False) for each in run)
        if (defined or (defines and len(run) > 1)) and any(
            not _USES.isdisjoint(key_words(each)[:1]) for each in run
        ):
            return True
        defined |= defines
    return False


#: First words of statements that call functions, or write or read tables.
_USES = {
    *("select", "insert", "update", "delete", "merge", "with", "values", "table", "copy", "call"),
    *("truncate", "execute", "explain", "perform"),
}
