"""Commands: the effects of a statement by its first word. A part of the classifier.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, dropwhile

from .calls import anywhere
from .effects import ALL, Change, Control, Kind, Move, Step
from .names import (
    OF_THE_TRANSACTION,
    is_temporary_schema,
    makes_temporary,
    name_parts,
    object_name,
    setting_change,
)
from .sql import (
    OTHER,
    STRING,
    WORD,
    Statement,
    Token,
    closing,
    comma_list,
    key_words,
    statements,
    text_at,
)


def steps_of(statement: Statement) -> Iterator[Step]:
    words = key_words(statement)
    head = words[0] if words else ""
    if head in _HEADS:
        yield from _HEADS[head](statement, words)
    if head not in _WITH_QUERIES_OF_THEIR_OWN and not (head == "create" and _is_definition(words)):
        yield from anywhere(statement)


#: Whose rules deal with the query inside.
_WITH_QUERIES_OF_THEIR_OWN = ("explain", "prepare", "declare")


def _is_definition(words: list[str]) -> bool:
    """Whether CREATE makes something that is run later, in statements of its own."""
    what = next((word for word in words[1:] if word not in _MODIFIERS), "")
    return what in ("view", "function", "procedure", "rule", "policy", "trigger", "aggregate")


_MODIFIERS = {
    *("or", "replace", "local", "global", "temp", "temporary", "recursive"),
    *("constraint", "event"),
}


def _explain(statement: Statement, words: list[str]) -> Iterator[Step]:
    """EXPLAIN ANALYZE runs it, and returns the plan."""
    position = 1
    if text_at(statement, position) == "(":
        position = closing(statement, position) + 1
    while text_at(statement, position) in ("analyze", "analyse", "verbose"):
        position += 1
    if {"analyze", "analyse"}.isdisjoint(token.text for token in statement[:position]):
        return
    for step in steps_of(statement[position:]):
        if isinstance(step, Change) and not step.back:
            yield replace(step, column=None)


def _set(statement: Statement, words: list[str]) -> Iterator[Step]:
    rest, scope = statement[1:], ""
    # Both can be the first part of a setting's name as well.
    if words[1:2] in (["local"], ["session"]) and (
        text_at(statement, 2) not in _AFTER_A_NAME and words[2:3] != ["authorization"]
    ):
        rest, scope = statement[2:], words[1]
    for step in _assignment(rest):
        # What is local ends with its transaction; a temporary object does not.
        if scope != "local" or step.kind is Kind.TEMPORARY:
            yield step


_AFTER_A_NAME = (".", "=", "to")


def _assignment(rest: Statement) -> Iterator[Change]:
    if not rest:  # EXECUTE 'SET ' || ...
        yield Change(Kind.SETTING, None)
        yield Change(Kind.ROLE, None)
        return
    first, second = "" if rest[0].quoted else rest[0].text, text_at(rest, 1)
    if second not in _AFTER_A_NAME:
        if first in ("transaction", "constraints"):
            return
        if first == "role":
            yield Change(Kind.ROLE, ("role",), back=second == "none" and not rest[1].quoted)
            return
        if (first, second) == ("session", "authorization"):
            yield Change(Kind.ROLE, ("session_authorization",), back=_is_default(rest[2:]))
            return
        if first in _SPELLINGS:
            values = rest[2 if first in ("time", "characteristics", "xml") else 1 :]
            back = _is_default(values) or (first, values[:1]) == ("time", [_LOCAL])
            yield Change(Kind.SETTING, (_SPELLINGS[first],), back)
            return
    name = ".".join(name_parts(rest)).lower()
    if name not in OF_THE_TRANSACTION:
        yield setting_change(name, back=_is_default(rest[-1:]))
    if name == "search_path" and makes_temporary(token.text for token in rest[2:]):
        yield Change(Kind.TEMPORARY, None)


#: The settings behind what has a grammar of its own.
_SPELLINGS = {
    "time": "timezone",
    "characteristics": "default_transaction",
    "xml": "xmloption",
    "names": "client_encoding",
    "schema": "search_path",
    "seed": "seed",
}
_LOCAL = Token(WORD, "local")


def _is_default(value: Statement) -> bool:
    return value[:1] == [_DEFAULT]


_DEFAULT = Token(WORD, "default")


def _reset(statement: Statement, words: list[str]) -> Iterator[Step]:
    if words[1:] == ["all"]:
        yield Change(Kind.SETTING, ALL, back=True)
    elif words[1:] == ["session", "authorization"]:
        yield Change(Kind.ROLE, ("session_authorization",), back=True)
    elif words[1:] == ["time", "zone"]:
        yield Change(Kind.SETTING, ("timezone",), back=True)
    elif len(statement) > 1:
        yield setting_change(".".join(name_parts(statement[1:])).lower(), back=True)


def _create(statement: Statement, words: list[str]) -> Iterator[Step]:
    if _has_words(statement, "on", "commit", "drop"):
        return
    what = [word for word in words[1:] if word not in ("or", "replace", "local", "global")]
    if what[:1] in (["temp"], ["temporary"]):
        # After TABLE, SEQUENCE or VIEW, and IF NOT EXISTS.
        skipped = {*_MODIFIERS, "create", "table", "sequence", "view", "if", "not", "exists"}
        rest = [*dropwhile(lambda token: token.text in skipped and not token.quoted, statement)]
        yield Change(Kind.TEMPORARY, object_name(rest))
    elif not _ATTACHED.intersection(what[:1]) and _names_temporary_schema(statement):
        yield Change(Kind.TEMPORARY, None)


#: These are parts of a table, and go with it.
_ATTACHED = {"index", "unique", "trigger", "constraint", "rule", "policy", "statistics"}


def _has_words(statement: Statement, *words: str) -> bool:
    texts = [token.text if token.kind is WORD and not token.quoted else "" for token in statement]
    return any(
        tuple(texts[start : start + len(words)]) == words
        for start, text in enumerate(texts)
        if text == words[0]
    )


def _names_temporary_schema(statement: Statement) -> bool:
    """Whether a name begins with it, or ``SCHEMA pg_temp`` says so."""
    return any(
        token.kind is WORD
        and is_temporary_schema(token.text)
        and (text_at(statement, position + 1) == "." or statement[position - 1].text == "schema")
        for position, token in enumerate(statement)
    )


def _drop(statement: Statement, words: list[str]) -> Iterator[Step]:
    if words[1:2] not in (["table"], ["view"], ["sequence"]):
        return
    for named in comma_list(statement[4 if words[2:4] == ["if", "exists"] else 2 :]):
        schema, name = name_parts(named)[:-1], object_name(named)
        # Of another schema it would be another table.
        if name is not None and (not schema or is_temporary_schema(schema[-1])):
            yield Change(Kind.TEMPORARY, name, back=True)


def _discard(statement: Statement, words: list[str]) -> Iterator[Step]:
    what = words[1:2]
    if what in (["temp"], ["temporary"]):
        yield Change(Kind.TEMPORARY, ALL, back=True)
    elif what in (["sequences"], ["sequence"]):
        yield Change(Kind.SEQUENCE, ALL, back=True)
    elif what == ["all"]:
        yield from (Change(kind, ALL, back=True) for kind in Kind if kind not in _FOR_GOOD)


_FOR_GOOD = (Kind.LIBRARY, Kind.UNKNOWN)


def _prepare(statement: Statement, words: list[str]) -> Iterator[Step]:
    if words[1:2] == ["transaction"] and [t.kind for t in statement[2:3]] == [STRING]:
        yield Move(Control.COMMIT)  # settings stay, and nothing else is allowed
    else:
        yield Change(Kind.PREPARED, object_name(statement[1:2]))
        yield from _later(statement)


def _declare(statement: Statement, words: list[str]) -> Iterator[Step]:
    texts = ["" if token.quoted else token.text for token in statement[2:10]]
    if "cursor" in texts and texts[texts.index("cursor") + 1 :][:2] == ["with", "hold"]:
        yield Change(Kind.CURSOR, object_name(statement[1:2]))
    if "cursor" in texts:  # else it is DECLARE of PL/pgSQL
        yield from _later(statement)


def _later(statement: Statement) -> Iterator[Step]:
    """What EXECUTE and FETCH do is done when those run, and again each time that they do."""
    found = [*_nameless(anywhere(statement))]
    yield from found
    if found:
        yield Change(Kind.UNKNOWN, None)


def _nameless(steps: Iterable[Step]) -> Iterator[Step]:
    """What is made, if nobody can tell when and how often, so that nothing gives it back."""
    for step in steps:
        if isinstance(step, Change) and not step.back:
            yield Change(step.kind, None)


def _give_back(kind: Kind, skipped: str = "") -> Callable[[Statement, list[str]], Iterator[Step]]:
    def rule(statement: Statement, words: list[str]) -> Iterator[Step]:
        named = statement[2:] if skipped and words[1:2] == [skipped] else statement[1:]
        if named[:1] in ([Token(WORD, "all")], [Token(OTHER, "*")]):
            yield Change(kind, ALL, back=True)
        elif name := object_name(named[:1]):
            yield Change(kind, name, back=True)

    return rule


def _listen(statement: Statement, words: list[str]) -> Iterator[Step]:
    yield Change(Kind.CHANNEL, object_name(statement[1:2]))


def _load(statement: Statement, words: list[str]) -> Iterator[Step]:
    yield Change(Kind.LIBRARY, None)


def _commit(statement: Statement, words: list[str]) -> Iterator[Step]:
    if words[1:2] != ["prepared"]:
        yield Move(Control.COMMIT)


def _savepoint(statement: Statement, words: list[str]) -> Iterator[Step]:
    yield Move(Control.SAVEPOINT, _savepoint_name(statement))


def _release(statement: Statement, words: list[str]) -> Iterator[Step]:
    yield Move(Control.RELEASE, _savepoint_name(statement))


def _rollback(statement: Statement, words: list[str]) -> Iterator[Step]:
    if "to" in words:
        yield Move(Control.ROLLBACK_TO, _savepoint_name(statement))
    elif words[1:2] != ["prepared"]:
        yield Move(Control.ROLLBACK)


def _savepoint_name(statement: Statement) -> str:
    return statement[-1].text


def _do(statement: Statement, words: list[str]) -> Iterator[Step]:
    """A DO block is code, whatever its quotes are."""
    for token in statement:
        if token.kind is STRING:
            yield from dict.fromkeys(_nameless(_code(token.text)))


def _code(text: str, depth: int = 0) -> Iterator[Step]:
    """The effects that procedural code may have: those of all that could be a statement."""
    found = statements(text)
    for statement in found:
        starts = [0] + [
            position + 1 for position, token in enumerate(statement) if token.text in _BEFORE
        ]
        for start in starts:
            words = key_words(statement[start:])
            if words and words[0] in _HEADS:
                yield from _HEADS[words[0]](statement[start:], words)
        yield from anywhere(statement)
    if depth < _DEEPEST and any(token.text == "execute" for token in chain(*found)):
        for token in chain(*found):
            if token.kind is STRING or token.quoted:
                yield from _code(token.text, depth + 1)


#: What a statement may follow, in PL/pgSQL, besides a semicolon.
_BEFORE = ("begin", "then", "else", "loop")
#: So far are the strings of EXECUTE looked into.
_DEEPEST = 3
_HEADS: dict[str, Callable[[Statement, list[str]], Iterator[Step]]] = {
    "explain": _explain,
    "set": _set,
    "reset": _reset,
    "create": _create,
    "drop": _drop,
    "discard": _discard,
    "prepare": _prepare,
    "deallocate": _give_back(Kind.PREPARED, "prepare"),
    "declare": _declare,
    "close": _give_back(Kind.CURSOR),
    "listen": _listen,
    "unlisten": _give_back(Kind.CHANNEL),
    "load": _load,
    "commit": _commit,
    "end": _commit,
    "rollback": _rollback,
    "abort": _rollback,
    "savepoint": _savepoint,
    "release": _release,
    "do": _do,
}
