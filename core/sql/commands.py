"""Commands: the effects of statements, by their first word. A part of the classifier.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .assignments import OF_THE_TRANSACTION, Assignment, setting_change
from .definitions import MODIFIERS, is_temporary_view, part_that_runs
from .effects import ALL, AnyStep, Change, Control, Kind, Move, Name, Open, Parameter, later
from .functions import parameter, steps_anywhere, texts_run
from .names import UNKNOWN_NAME, is_temporary_schema, name_parts, object_name, truncated
from .procedural import Code
from .statements import (
    OTHER,
    PARAMETER,
    STRING,
    WORD,
    Statement,
    Token,
    closing,
    comma_list,
    key_words,
    text_at,
)

#: Takes a statement and the key words that it begins with, and yields its effects.
Rule = Callable[[Statement, list[str]], Iterator[AnyStep]]


def steps_of(statement: Statement) -> Iterator[AnyStep]:
    """Yield the effects of *statement*."""
    words = key_words(statement)
    head = words[0] if words else ""
    if head in _HEADS:
        yield from _HEADS[head](statement, words)
    if head not in _WITH_QUERIES_OF_THEIR_OWN:
        steps = _steps_of_query(part_that_runs(statement))
        yield from later(steps) if head == "create" and is_temporary_view(statement) else steps


def _steps_of_query(statement: Statement) -> Iterator[AnyStep]:
    """Yield the effects of what *statement* calls and writes, and of texts that it runs."""
    yield from steps_anywhere(statement)
    for text in texts_run(statement):
        yield from steps_of_text(text)


def steps_of_text(text: str | None) -> tuple[Change, ...]:
    """Return the effects of *text*, which a function runs as SQL; None for an unknown text."""
    if text is None:
        return (Change(Kind.DYNAMIC, None),)
    # Not `steps_of`: texts in texts would have no bound.
    return tuple(steps_of_code(Code(text)))


#: Their rules handle the query inside them.
_WITH_QUERIES_OF_THEIR_OWN = ("explain", "prepare", "declare")


def _explain(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    """Yield the effects of EXPLAIN ANALYZE, which runs its statement and returns the plan."""
    for step in steps_of(analyzed_statement(statement) or []):
        if isinstance(step, Open):
            yield step.doubted()
        elif isinstance(step, Change):
            yield step._replace(sure=not step.undoes, column=None)


def analyzed_statement(statement: Statement) -> Statement | None:
    """Return what EXPLAIN runs; None if it only plans it."""
    position = 1
    if text_at(statement, position) == "(":
        position = closing(statement, position) + 1
    while text_at(statement, position) in ("analyze", "analyse", "verbose"):
        position += 1
    if {"analyze", "analyse"}.isdisjoint(token.text for token in statement[:position]):
        return None
    if text_at(statement, position) == "explain":
        return None  # the server refuses it
    return statement[position:]


def _set(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    # Either word can also be the first part of a setting's name.
    if words[1:2] in (["local"], ["session"]) and (
        text_at(statement, 2) not in _AFTER_A_NAME and words[2:3] != ["authorization"]
    ):
        yield from _assignment(statement[2:], local=words[1] == "local")
    else:
        yield from _assignment(statement[1:], local=False)


_AFTER_A_NAME = (".", "=", "to")


def _assignment(rest: Statement, *, local: bool) -> Iterator[AnyStep]:
    if not rest:  # EXECUTE 'SET ' || ...
        yield from Assignment(None, None, local).steps()
        return
    first, second = "" if rest[0].quoted else rest[0].text, text_at(rest, 1)
    name, value = "", rest[1:]
    if second not in _AFTER_A_NAME:
        if first in ("transaction", "constraints"):
            return
        if first == "role" or (first, second) == ("session", "authorization"):
            if not local:
                yield _role(first, rest)
            return
        if first in _SPELLINGS:
            name = _SPELLINGS[first]
            value = rest[2 if first in ("time", "characteristics", "xml") else 1 :]
            if (first, value[:1]) == ("time", [_LOCAL]):
                value = [_DEFAULT]
    if not name:
        parts = name_parts(rest)
        name, value = ".".join(parts).lower(), rest[2 * len(parts) :]
    if (name == "search_path" or UNKNOWN_NAME in name) and value[:1] != [_DEFAULT]:
        yield from Assignment((name,), _path(value), local).steps()
    elif name == "seed" or (not local and name not in OF_THE_TRANSACTION):
        yield setting_change(name, undoes=value[:1] == [_DEFAULT])


def _role(first: str, rest: Statement) -> Change:
    if first == "role":
        none = text_at(rest, 1) == "none" and not rest[1].quoted
        return Change(Kind.ROLE, ("role",), undoes=none)
    return Change(Kind.ROLE, ("session_authorization",), undoes=rest[2:3] == [_DEFAULT])


def _path(value: Statement) -> Name | None:
    """Return the names in a search path, in order, or None if one is unknown."""
    pieces: list[str | Parameter] = []
    for token in value:
        piece = parameter(token) if token.kind is PARAMETER else token.text
        if piece is None:
            return None
        pieces.append(piece)
    return tuple(pieces)


#: First word of a SET with its own grammar -> the setting that it sets.
_SPELLINGS = {
    "time": "timezone",
    "characteristics": "default_transaction",
    "xml": "xmloption",
    "names": "client_encoding",
    "schema": "search_path",
    "seed": "seed",
}
_LOCAL, _DEFAULT = Token(WORD, "local"), Token(WORD, "default")


def _reset(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    if words[1:] == ["all"]:
        yield Change(Kind.SETTING, ALL, undoes=True)
    elif words[1:] == ["session", "authorization"]:
        yield Change(Kind.ROLE, ("session_authorization",), undoes=True)
    elif words[1:] == ["time", "zone"]:
        yield Change(Kind.SETTING, ("timezone",), undoes=True)
    elif len(statement) > 1:
        yield setting_change(".".join(name_parts(statement[1:])).lower(), undoes=True)


def _create(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    if _has_words(statement, "on", "commit", "drop"):
        return
    what = [word for word in words[1:] if word not in ("or", "replace", "local", "global")]
    if what[:1] in (["temp"], ["temporary"]):
        position = 0
        while text_at(statement, position) in _BEFORE_A_NAME and not statement[position].quoted:
            position += 1
        yield Change(Kind.TEMPORARY, object_name(statement, position))
    elif what[:1] == ["statistics"]:
        # Check its own name only. Statistics on a temporary table are dropped with the table.
        position = 2
        while text_at(statement, position) in ("if", "not", "exists"):
            position += 1
        if any(map(is_temporary_schema, name_parts(statement, position)[:-1])):
            yield Change(Kind.TEMPORARY, None)
    elif not _ATTACHED.intersection(what[:1]) and _names_temporary_schema(statement):
        yield Change(Kind.TEMPORARY, None)
        if _CALLED.intersection(what[:1]):
            # Its calls may leave what ROLLBACK does not undo, and it is not in the catalogue.
            yield Change(Kind.UNKNOWN, None)


_BEFORE_A_NAME = {*MODIFIERS, "create", "table", "sequence", "view", "if", "not", "exists"}
#: These belong to a table and are dropped with it.
_ATTACHED = {"index", "unique", "trigger", "constraint", "rule", "policy"}
#: What statements call.
_CALLED = {"function", "procedure", "aggregate", "operator", "cast"}


def _has_words(statement: Statement, *words: str) -> bool:
    texts = [token.text if token.kind is WORD and not token.quoted else "" for token in statement]
    return any(
        tuple(texts[start : start + len(words)]) == words
        for start, text in enumerate(texts)
        if text == words[0]
    )


def _names_temporary_schema(statement: Statement) -> bool:
    """Return whether a name begins with ``pg_temp``, or ``SCHEMA pg_temp`` occurs."""
    return any(
        token.kind is WORD
        and is_temporary_schema(token.text)
        and (text_at(statement, position + 1) == "." or statement[position - 1].text == "schema")
        for position, token in enumerate(statement)
    )


def _drop(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    if words[1:2] not in (["table"], ["view"], ["sequence"]):
        return
    for named in comma_list(statement[4 if words[2:4] == ["if", "exists"] else 2 :]):
        schema, name = name_parts(named)[:-1], object_name(named)
        # A table of that name in another schema is another table.
        if name is not None and (not schema or is_temporary_schema(schema[-1])):
            yield Change(Kind.TEMPORARY, name, undoes=True)


def _alter(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    """Yield a change of names if a temporary table may have been renamed."""
    if _has_words(statement, "rename", "to") or _has_words(statement, "set", "schema"):
        yield Change(Kind.TEMPORARY, ALL, undoes=True, renames=True)


def _discard(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    what = words[1:2]
    if what in (["temp"], ["temporary"]):
        yield Change(Kind.TEMPORARY, ALL, undoes=True)
    elif what in (["sequences"], ["sequence"]):
        yield Change(Kind.SEQUENCE, ALL, undoes=True)
    elif what == ["all"]:
        yield from (Change(kind, ALL, undoes=True) for kind in Kind if kind not in _FOR_GOOD)


_FOR_GOOD = (Kind.SEED, Kind.LIBRARY, Kind.EXTENSION, Kind.DYNAMIC, Kind.UNKNOWN)


def _prepare(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    if words[1:2] == ["transaction"] and [t.kind for t in statement[2:3]] == [STRING]:
        yield Move(Control.COMMIT)  # settings stay; other session state is not allowed
    else:
        yield Change(Kind.PREPARED, object_name(statement[1:2]))
        yield from later(_steps_of_query(statement))


def _declare(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    position = 2
    while text_at(statement, position) in _OF_CURSORS:
        position += 1
    if text_at(statement, position) == "cursor":  # otherwise it is PL/pgSQL's DECLARE
        if [token.text for token in statement[position + 1 : position + 3]] == ["with", "hold"]:
            yield Change(Kind.CURSOR, object_name(statement, 1))
        yield from later(_steps_of_query(statement))


#: Options before CURSOR, which may come in any order and be repeated.
_OF_CURSORS = ("asensitive", "binary", "insensitive", "no", "scroll")


def _give_back(
    kind: Kind, skipped: str = ""
) -> Callable[[Statement, list[str]], Iterator[AnyStep]]:
    def rule(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
        named = statement[2:] if skipped and words[1:2] == [skipped] else statement[1:]
        if named[:1] in ([Token(WORD, "all")], [Token(OTHER, "*")]):
            yield Change(kind, ALL, undoes=True)
        elif name := object_name(named[:1]):
            yield Change(kind, name, undoes=True)

    return rule


def _fetch(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    # A cursor of the baseline is at another row then.
    yield Change(Kind.CURSOR, None, undoes=True, sure=False)


def _listen(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    yield Change(Kind.CHANNEL, object_name(statement[1:2]))


def _load(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    yield Change(Kind.LIBRARY, None)


def _commit(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    if words[1:2] != ["prepared"]:
        yield Move(Control.COMMIT)


def _savepoint(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    yield Move(Control.SAVEPOINT, _savepoint_name(statement))


def _release(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    yield Move(Control.RELEASE, _savepoint_name(statement))


def _rollback(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    if "to" in words:
        yield Move(Control.ROLLBACK_TO, _savepoint_name(statement))
    elif words[1:2] != ["prepared"]:
        yield Move(Control.ROLLBACK)


def _savepoint_name(statement: Statement) -> str:
    # Otherwise two texts for one savepoint would differ.
    return truncated(statement[-1].text)


def _do(statement: Statement, words: list[str]) -> Iterator[AnyStep]:
    yield from steps_of_code(Code.of_block(statement))


def steps_of_code(code: Code) -> Iterator[Change]:
    """Yield the effects of *code*, but for those of what it calls and writes."""
    return code.steps(_HEADS)


_HEADS: dict[str, Rule] = {
    "explain": _explain,
    "set": _set,
    "reset": _reset,
    "alter": _alter,
    "create": _create,
    "drop": _drop,
    "discard": _discard,
    "prepare": _prepare,
    "deallocate": _give_back(Kind.PREPARED, "prepare"),
    "declare": _declare,
    "close": _give_back(Kind.CURSOR),
    "fetch": _fetch,
    "move": _fetch,
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
