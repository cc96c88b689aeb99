"""The classifier: SQL text in, its effects on the session out.

It may be wrong in one direction only. An effect that is not there costs a connection
that is kept until the end of the request; one that is overlooked reaches a stranger. So
where a text leaves it open (is this branch taken, does this call succeed?) it says that
state is made, and that none is given back. What it says is tested against the server's
own views, see tests/backends/test_classifier_oracle.py.

State that is made inside of functions cannot be seen in the text that calls them.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, dropwhile, pairwise, takewhile

from .effects import ALL, Change, Control, Effects, Kind, Move, Name, Parameter, quote
from .sql import OTHER, PARAMETER, STRING, WORD, Statement, Token, statements

Step = Change | Move

#: Most SQL begins with one of these, and has an effect only if it has one of `_TRIGGERS`.
_QUERY = re.compile(
    r"[\s(]*(?:select|insert|update|delete|with|values|merge|table)\b", re.IGNORECASE
)
_TRIGGERS = (
    # Of functions; of SELECT INTO; of a view that can be written to; of a second statement;
    # of names that can hide any of these.
    *("set_config", "pg_advisory_", "pg_try_advisory_", "nextval", "setval", "currval"),
    *("lastval", "temp", "pg_settings", ";", 'u&"'),
)


def classify(sql: str) -> Effects | None:
    """Return what running *sql* does to its session; None if it does nothing."""
    lowered = sql.lower()
    triggers = [trigger for trigger in _TRIGGERS if trigger in lowered]
    if not triggers and _QUERY.match(sql):
        return None
    found = statements(sql)
    if triggers and "%" in sql:
        _number_placeholders(sql, found)
    steps = [step for statement in found for step in _steps(statement)]
    reads = bool(triggers) and any(_calls(statement, _READERS) for statement in found)
    return Effects(tuple(steps), len(found) == 1, reads) if steps or reads else None


class Memo(dict[str, "Effects | None"]):
    """Answers of `classify` by text: for a text seen before, one dictionary look-up.

    :param texts: how many are kept at most.
    :param characters: the longest text that is kept. Longer ones are bulk statements,
        which take the server a thousand times as long as `classify`.
    """

    def __init__(self, texts: int = 10_000, characters: int = 4_000) -> None:
        super().__init__()
        self.texts, self.characters = texts, characters

    def __missing__(self, sql: str) -> Effects | None:
        effects = classify(sql)
        if len(sql) <= self.characters:
            if len(self) >= self.texts:
                # SQL with values in its text: no order of eviction would be of help.
                self.clear()
            self[sql] = effects
        return effects


EFFECTS = Memo()


#: As psycopg finds them: in strings and comments, too.
_PLACEHOLDER = re.compile(r"%%|%\([^)]+\)[sbt]|%([sbt])")


def _number_placeholders(sql: str, found: list[Statement]) -> None:
    """Write each ``%s`` as ``$1``, ``$2``, ...; or as ``$?``, where drivers count differently."""
    places = [
        (statement, position)
        for statement in found
        for position, token in enumerate(statement)
        if token[0] is PARAMETER and token.text in ("%s", "%b", "%t")
    ]
    agreed = len(places) == sum(map(bool, _PLACEHOLDER.findall(sql)))
    for number, (statement, position) in enumerate(places, 1):
        statement[position] = Token(PARAMETER, f"${number}" if agreed else "$?")


def _parameter(token: Token) -> Parameter | None:
    if token.text.startswith("%("):
        return Parameter(token.text[2:-2])
    return Parameter(int(token.text[1:]) - 1) if token.text[1:].isdecimal() else None


def _steps(statement: Statement) -> Iterator[Step]:
    words = _key_words(statement)
    head = words[0] if words else ""
    if head in _HEADS:
        yield from _HEADS[head](statement, words)
    if head not in _WITH_QUERIES_OF_THEIR_OWN and not (head == "create" and _is_definition(words)):
        yield from _anywhere(statement)


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


def _key_words(statement: Statement) -> list[str]:
    """The words that a statement begins with; "" stands for one that is quoted.

    A parenthesis around a query is passed over.
    """
    start = 0
    while start < len(statement) and statement[start].text == "(":
        start += 1
    leading = takewhile(lambda token: token.kind is WORD, statement[start : start + 8])
    return ["" if token.quoted else token.text for token in leading]


def _explain(statement: Statement, words: list[str]) -> Iterator[Step]:
    """EXPLAIN ANALYZE runs it, and returns the plan."""
    position = 1
    if _text_at(statement, position) == "(":
        position = _closing(statement, position) + 1
    while _text_at(statement, position) in ("analyze", "analyse", "verbose"):
        position += 1
    if {"analyze", "analyse"}.isdisjoint(token.text for token in statement[:position]):
        return
    for step in _steps(statement[position:]):
        if isinstance(step, Change) and not step.back:
            yield replace(step, column=None)


def _closing(statement: Statement, opening: int) -> int:
    """The position of the parenthesis that closes the one at *opening*."""
    depth = 0
    for position in range(opening, len(statement)):
        token = statement[position]
        if token.kind is OTHER:
            depth += (token.text == "(") - (token.text == ")")
            if not depth:
                return position
    return len(statement)


# Statements, by their first word.


def _set(statement: Statement, words: list[str]) -> Iterator[Step]:
    rest, scope = statement[1:], ""
    # Both can be the first part of a setting's name as well.
    if words[1:2] in (["local"], ["session"]) and (
        _text_at(statement, 2) not in _AFTER_A_NAME and words[2:3] != ["authorization"]
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
    first, second = "" if rest[0].quoted else rest[0].text, _text_at(rest, 1)
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
    name = ".".join(_parts(rest)).lower()
    if name not in _OF_THE_TRANSACTION:
        yield _setting(name, back=_is_default(rest[-1:]))
    if name == "search_path" and _makes_temporary(token.text for token in rest[2:]):
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

#: These end with it. There are others called alike that do not (``transaction_timeout``).
_OF_THE_TRANSACTION = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")


def _makes_temporary(search_path: Iterable[str]) -> bool:
    """Whether CREATE TABLE makes temporary ones, with that search path."""
    schemas = (schema.strip(' "') for schema in "".join(search_path).split(","))
    first = next((schema for schema in schemas if schema != "$user"), "")
    return _is_temporary_schema(first.lower())


def _parts(statement: Statement) -> list[str]:
    """The parts of the name that *statement* begins with: of ``a.b.c``, three."""
    end = 1
    while _text_at(statement, end) == ".":
        end += 2
    return [token.text for token in statement[:end:2]]


def _is_default(value: Statement) -> bool:
    return value[:1] == [_DEFAULT]


_DEFAULT = Token(WORD, "default")


def _setting(name: str, back: bool) -> Change:
    kind = Kind.ROLE if name in ("role", "session_authorization") else Kind.SETTING
    return Change(kind, (name,), back)


def _reset(statement: Statement, words: list[str]) -> Iterator[Step]:
    if words[1:] == ["all"]:
        yield Change(Kind.SETTING, ALL, back=True)
    elif words[1:] == ["session", "authorization"]:
        yield Change(Kind.ROLE, ("session_authorization",), back=True)
    elif words[1:] == ["time", "zone"]:
        yield Change(Kind.SETTING, ("timezone",), back=True)
    elif len(statement) > 1:
        yield _setting(".".join(_parts(statement[1:])).lower(), back=True)


def _create(statement: Statement, words: list[str]) -> Iterator[Step]:
    if _has_words(statement, "on", "commit", "drop"):
        return
    what = [word for word in words[1:] if word not in ("or", "replace", "local", "global")]
    if what[:1] in (["temp"], ["temporary"]):
        # After TABLE, SEQUENCE or VIEW, and IF NOT EXISTS.
        skipped = {*_MODIFIERS, "create", "table", "sequence", "view", "if", "not", "exists"}
        rest = [*dropwhile(lambda token: token.text in skipped and not token.quoted, statement)]
        yield Change(Kind.TEMPORARY, _object_name(rest))
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
        and _is_temporary_schema(token.text)
        and (_text_at(statement, position + 1) == "." or statement[position - 1].text == "schema")
        for position, token in enumerate(statement)
    )


def _is_temporary_schema(name: str) -> bool:
    return name == "pg_temp" or name.startswith("pg_temp_")


def _object_name(statement: Statement) -> Name | None:
    """The last part of the name that *statement* begins with."""
    if not statement or statement[0].kind is not WORD:
        return None
    name = _parts(statement)[-1]
    return None if name == "*" else (name,)  # it would be ALL


def _drop(statement: Statement, words: list[str]) -> Iterator[Step]:
    if words[1:2] not in (["table"], ["view"], ["sequence"]):
        return
    for named in _list(statement[4 if words[2:4] == ["if", "exists"] else 2 :]):
        schema, name = _parts(named)[:-1], _object_name(named)
        # Of another schema it would be another table.
        if name is not None and (not schema or _is_temporary_schema(schema[-1])):
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
        yield Change(Kind.PREPARED, _object_name(statement[1:2]))
        yield from _later(statement)


def _declare(statement: Statement, words: list[str]) -> Iterator[Step]:
    texts = ["" if token.quoted else token.text for token in statement[2:10]]
    if "cursor" in texts and texts[texts.index("cursor") + 1 :][:2] == ["with", "hold"]:
        yield Change(Kind.CURSOR, _object_name(statement[1:2]))
    if "cursor" in texts:  # else it is DECLARE of PL/pgSQL
        yield from _later(statement)


def _later(statement: Statement) -> Iterator[Step]:
    """What EXECUTE and FETCH do is done when those run, and again each time that they do."""
    found = [*_nameless(_anywhere(statement))]
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
        elif name := _object_name(named[:1]):
            yield Change(kind, name, back=True)

    return rule


def _listen(statement: Statement, words: list[str]) -> Iterator[Step]:
    yield Change(Kind.CHANNEL, _object_name(statement[1:2]))


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
            words = _key_words(statement[start:])
            if words and words[0] in _HEADS:
                yield from _HEADS[words[0]](statement[start:], words)
        yield from _anywhere(statement)
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


# Inside of any statement.


def _anywhere(statement: Statement) -> Iterator[Step]:
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
    return _text_at(named, 2 * len(_parts(named)) - 1) in _AFTER_INSERT


def _new_table(named: Statement) -> Iterator[Step]:
    texts = ["" if token.quoted else token.text for token in named[:4]]
    skipped = len(
        [*takewhile(("local", "global", "temp", "temporary", "table").__contains__, texts)]
    )
    rest = named[skipped:]
    if not {"temp", "temporary"}.isdisjoint(texts[:skipped]) or (
        rest and _is_temporary_schema(rest[0].text)
    ):
        yield Change(Kind.TEMPORARY, _object_name(rest))


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
_READERS = {"currval", "lastval"}


def _calls(statement: Statement, functions: set[str]) -> list[tuple[int, str]]:
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
    calls = _calls(statement, _FUNCTIONS)
    columns = _columns(statement) if calls else {}
    sequences = False
    for position, function in calls:
        arguments = _arguments(statement, position + 1)
        if function == "set_config":
            yield from _set_config(arguments)
        elif function in ("nextval", "setval"):
            sequences = sequences or not _is_column_default(statement, position)
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


def _is_column_default(statement: Statement, call: int) -> bool:
    """Whether it is called later, for rows that are inserted."""
    before = call - 3 if _text_at(statement, call - 1) == "." else call - 1
    # ALTER TABLE ... ADD COLUMN ... DEFAULT calls it for each row that there is.
    return _text_at(statement, before) == "default" and (
        statement[0].text == "create" or _text_at(statement, before - 1) == "set"
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
        while _text_at(statement, position + 1) == ".":  # the schema
            position += 2
        if _text_at(statement, position + 1) != "(":
            return {}
        found[position] = column
        position = _closing(statement, position + 1) + 1
        if _text_at(statement, position) == "as":
            position += 2
        if _text_at(statement, position) not in ("", ","):
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


def _text_at(statement: Statement, position: int) -> str:
    """The text of what is there, if that is no string."""
    if not 0 <= position < len(statement) or statement[position].kind is STRING:
        return ""
    return statement[position].text


def _arguments(statement: Statement, opening: int) -> list[Statement]:
    """The arguments of the call whose parenthesis is at *opening*."""
    return _list(statement[opening + 1 : _closing(statement, opening)])


def _list(statement: Statement) -> list[Statement]:
    """What is between commas."""
    found: list[Statement] = [[]]
    depth = 0
    for token in statement:
        if token.kind is OTHER:
            depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
            if token.text == "," and not depth:
                found.append([])
                continue
        found[-1].append(token)
    return found


def _set_config(arguments: list[Statement]) -> Iterator[Step]:
    if len(arguments) != 3:  # EXECUTE 'SELECT set_config(' || ...
        arguments = [[], [], []]
    first, value, local = arguments
    name = first[0].text.lower() if len(first) == 1 and first[0].kind is STRING else None
    if not _is_true(local) and name not in _OF_THE_TRANSACTION:
        is_parameter = bool(local) and local[0].kind is PARAMETER and local[1:] in _BOOLEAN
        unless = _parameter(local[0]) if is_parameter else None
        if name is None:
            yield Change(Kind.ROLE, None, unless=unless)
            yield Change(Kind.SETTING, None, unless=unless)
        else:
            yield replace(_setting(name, back=False), unless=unless)
    if name == "search_path" and _makes_temporary(token.text for token in value):
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
                token, _text_at(argument, position - 1), _text_at(argument, position + 1)
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
