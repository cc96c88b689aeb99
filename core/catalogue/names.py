"""Catalogue: the names that have effects, and which of them a statement mentions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from relet.core.sql.commands import analyzed_statement, steps_of_code
from relet.core.sql.definitions import is_temporary_view, part_that_runs
from relet.core.sql.effects import Change, Kind, later, nameless
from relet.core.sql.functions import (
    KINDS,
    RELATION_READERS,
    RUNNERS,
    new_tables,
    queries_run,
    texts_run,
)
from relet.core.sql.lexer import CONTINUED
from relet.core.sql.names import UNKNOWN_NAME, fits, truncated
from relet.core.sql.procedural import Code, parts
from relet.core.sql.statements import (
    OTHER,
    STRING,
    WORD,
    Statement,
    Token,
    closing,
    key_words,
    text_at,
)

Changes = tuple[Change, ...]
#: Schema -> the changes of what has a name there.
BySchema = dict[str, Changes]

#: What a statement does with a table.
SELECT, INSERT, UPDATE, DELETE = "select", "insert", "update", "delete"
TRUNCATE, CASCADE, REWRITE = "truncate", "cascade", "rewrite"
VERBS = (SELECT, INSERT, UPDATE, DELETE, TRUNCATE, CASCADE, REWRITE)

# Without the dollar sign, because a string that begins with one can begin with a name.
_WORDS = re.compile(r"\w+")
_PLAIN = re.compile(r"\w+\Z")
#: The server cuts names that are longer than 63 bytes, between two letters. So a word that begins
#: with a name as long as this may be that name.
_LONG_NAME = 60
#: A letter has up to four bytes.
_MAY_BE_LONG = 16
#: Texts in which a name may be written otherwise: with escapes, or in pieces.
_MAY_HIDE = ('u&"', "u&'", "execute", "\\")
#: Up to so many names, a text is searched for each. It is faster than looking at all its words.
_FEW = 8

#: First words of statements that run the expressions of a table's index, constraint or default.
_REWRITES = ("alter", "vacuum", "analyze", "analyse", "reindex", "cluster", "refresh", "create")
#: First words of statements for which event triggers fire.
#: https://www.postgresql.org/docs/current/event-trigger-matrix.html
_DEFINITIONS = {
    *("create", "alter", "drop", "grant", "revoke", "comment", "refresh", "security"),
    *("import", "reindex"),
}
#: Those that can do so for all tables, and what REINDEX names then.
_OF_ALL = ("vacuum", "analyze", "analyse", "reindex", "cluster")
_ALL = {"schema", "database", "system"}
#: What comes before a relation that is read.
_BEFORE_RELATIONS = {"from", "join", ",", "only", "table", "using", "(", "update", "into", "copy"}
#: What comes before a name that is followed by columns or parameters, and not called.
_BEFORE_COLUMNS = {
    *("into", "table", "on", "copy", "key", "index", "as", "exists", "of", "references", "view"),
    *("with", "recursive", "function", "procedure", "aggregate"),
}
#: No call can follow these. One can follow ON in a JOIN, and KEY in ``json_object()``.
_NOT_BEFORE_CALLS = _BEFORE_COLUMNS - {"on", "key"}
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def is_word(name: str) -> bool:
    """Return whether *name*, in lower case, is found by looking at the words of a text."""
    return _PLAIN.match(name) is not None and len(name.encode(errors="replace")) < _LONG_NAME


def spellings(name: str) -> tuple[str, ...]:
    """Return how *name*, which is no word, may be written in a text."""
    if '"' in name:
        return name, name.replace('"', '""')
    return (name, *(word for word, operators in _OPERATOR_WORDS.items() if name in operators))


#: What stands for an operator -> the operators.
#: https://www.postgresql.org/docs/current/functions-comparison.html
_OPERATOR_WORDS = {
    "!=": ("<>",),
    "in": ("=", "<>"),
    "any": ("=", "<>"),
    "all": ("=", "<>"),
    "between": (">=", "<=", "<", ">"),
    "like": ("~~", "!~~"),
    "ilike": ("~~*", "!~~*"),
    "similar": ("~", "!~"),
    **dict.fromkeys(("nullif", "distinct", "case", "using", "natural"), ("=",)),
}
#: Type -> the first word of its other names.
#: https://www.postgresql.org/docs/current/datatype.html
_TYPE_WORDS = {
    "int2": ("smallint",),
    "int4": ("int", "integer"),
    "int8": ("bigint",),
    "float4": ("real", "float"),
    "float8": ("double", "float"),
    "numeric": ("decimal", "dec"),
    "bool": ("boolean",),
    "bpchar": ("char", "character"),
    "varchar": ("char", "character", "national", "nchar"),
    "varbit": ("bit",),
    "timetz": ("time",),
    "timestamptz": ("timestamp",),
}


class Catalogue:
    """The functions, relations and so on whose use has effects, by their names.

    :param functions: name of a function -> its changes.
    :param attributes: names of functions that can be called as ``row.name``.
    :param runners: name of a function that runs texts -> their positions among its arguments.
    :param relations: what is done with a relation -> its name -> its changes.
    :param types: name of a type -> the changes of casts to it and constraints of it.
    :param operators: operator -> its changes.
    :param definitions: the changes of event triggers, which any definition has.
    :param path: the schemas in which a name without one is looked up; None for all.
    :param planned: those that the planner may run; None for nothing.
    """

    def __init__(
        self,
        functions: Mapping[str, BySchema] = _NOTHING,
        attributes: frozenset[str] = frozenset(),
        runners: Mapping[str, tuple[int, ...]] = _NOTHING,
        relations: Mapping[str, Mapping[str, BySchema]] = _NOTHING,
        types: Mapping[str, Changes] = _NOTHING,
        operators: Mapping[str, Changes] = _NOTHING,
        definitions: Changes = (),
        path: frozenset[str] | None = None,
        planned: Catalogue | None = None,
    ) -> None:
        self.functions, self.attributes, self.runners = functions, attributes, runners
        self.relations, self.operators = relations, operators
        self._text_takers = frozenset((*RUNNERS, *RELATION_READERS, *runners))
        self.types = dict(types)
        for name, changes in types.items():
            for word in _TYPE_WORDS.get(name, ()):
                self.types[word] = tuple(dict.fromkeys((*self.types.get(word, ()), *changes)))
        self.definitions, self.path, self.planned = definitions, path, planned
        names = {*functions, *runners, *self.types}
        for by_name in relations.values():
            names.update(by_name)
        hidden = {name for name in map(str.lower, names) if not is_word(name)}
        self._names = names
        self._words = frozenset(name.lower() for name in names) - hidden
        #: What is looked for as it is.
        self._parts = tuple(part for name in (*hidden, *operators) for part in spellings(name))

    def __bool__(self) -> bool:
        return bool(self._names or self.operators or self.definitions)

    @property
    def weights(self) -> dict[str, int]:
        """The names, in lower case, and how many changes each has. Both only ever grow."""
        found: dict[str, int] = dict.fromkeys(self.runners, 1)
        for by_name in (self.functions, *self.relations.values()):
            for name, by_schema in by_name.items():
                key = name.lower()
                found[key] = found.get(key, 0) + sum(map(len, by_schema.values()))
        for name, changes in (*self.types.items(), *self.operators.items()):
            found[name.lower()] = found.get(name.lower(), 0) + len(changes)
        for head in _DEFINITIONS if self.definitions else ():
            found[head] = found.get(head, 0) + len(self.definitions)
        return found

    def may_concern(self, lowered: str) -> bool:
        """Return whether a text may mention something that has effects.

        :param lowered: the text in lower case.
        """
        if self.definitions and any(head in lowered for head in (*_DEFINITIONS, "into")):
            return True
        if self.relations.get(REWRITE) and any(head in lowered for head in _OF_ALL):
            return True
        return self.is_mentioned(lowered)

    def is_mentioned(self, lowered: str) -> bool:
        """Return whether a text has one of the names in it."""
        words = self._words
        if len(words) <= _FEW:
            if any(word in lowered for word in words):
                return True
        elif not words.isdisjoint(_WORDS.findall(lowered)):
            return True
        if any(part in lowered for part in (*self._parts, *_MAY_HIDE)):
            return True
        return CONTINUED.search(lowered) is not None

    @cached_property
    def anywhere(self) -> Catalogue:
        """Return this catalogue for statements whose search path is not known."""
        return Catalogue(
            self.functions,
            self.attributes,
            self.runners,
            self.relations,
            self.types,
            self.operators,
            self.definitions,
            planned=None if self.planned is None else self.planned.anywhere,
        )

    # Statements.

    def steps_of(self, statement: Statement) -> Changes:
        """Return the changes of *statement*, a whole one, that its own text does not show."""
        words = key_words(statement)
        head = words[0] if words else ""
        found: list[Change] = []
        if self.definitions and (head in _DEFINITIONS or any(new_tables(statement))):
            found.extend(self.definitions)
        if head == "explain":
            if (analyzed := analyzed_statement(statement)) is not None:
                found.extend(self.steps_of(analyzed))
            else:
                found.extend(self._of_plan(statement))
        elif head in ("prepare", "declare"):
            found.extend(later(self.steps_in(statement)))
        elif head == "create" and is_temporary_view(statement):
            found.extend(later((*self.steps_in(statement), *self._of_all_verbs(statement))))
        elif head == "do":
            found.extend(self._of_code(Code.of_block(statement)))
        else:
            part = part_that_runs(statement)
            found.extend(self.steps_in(part))
            if part is not statement and head == "create" and "table" in words[1:4]:
                # The expressions of generated columns and of partition keys are simplified now.
                found.extend(self._of_plan(statement))
            if head in _OF_ALL and _is_of_all(statement, head):
                for by_schema in self.relations.get(REWRITE, _NOTHING).values():
                    found.extend(merged(by_schema.values()))
        return tuple(dict.fromkeys(found))

    def _of_plan(self, statement: Statement) -> Iterator[Change]:
        """Yield the changes of what the planner may run of *statement*."""
        if self.planned is not None:
            for step in self.planned.steps_in(statement):
                yield step._replace(sure=not step.undoes)

    def _of_all_verbs(self, statement: Statement) -> Iterator[Change]:
        """Yield what is done with the relations in *statement* by writing a view of them."""
        for by_name in self.relations.values():
            for position, token in enumerate(statement):
                if token.kind is WORD and (by_schema := by_name.get(token.text)) is not None:
                    yield from self._looked_up(by_schema, _start(statement, position)[1])

    def _of_code(self, code: Code) -> Iterator[Change]:
        for statement in code.statements:
            yield from self.steps_in(statement)

    def steps_in(self, statement: Statement) -> Iterator[Change]:
        """Yield the changes of what *statement*, or a part of code, mentions."""
        texts = {token.text for token in statement}
        if any(len(text) >= _MAY_BE_LONG for text in texts):
            statement = [
                token._replace(text=truncated(token.text)) if token.kind is WORD else token
                for token in statement
            ]
            texts = {token.text for token in statement}
        if self.definitions and not texts.isdisjoint(_DEFINITIONS) and _defines(statement):
            yield from self.definitions
        if not texts.isdisjoint(self._names):
            for position, token in enumerate(statement):
                if token.kind is WORD:
                    yield from self._of_word(statement, position, texts)
        if any(UNKNOWN_NAME in text for text in texts):
            yield from self._of_unknown_names(statement, texts)
        if self.operators:
            yield from self._of_operators(statement, texts)
        if not texts.isdisjoint(self._text_takers):
            yield from self._of_texts(statement)

    def _of_texts(self, statement: Statement) -> Iterator[Change]:
        """Yield the changes of texts that are arguments, and of relations whose names are."""
        for text in texts_run(statement, self.runners):
            if text is None:
                yield Change(Kind.DYNAMIC, None)
            else:
                code = Code(text)
                yield from steps_of_code(code)
                yield from self._of_code(code)
        for text in texts_run(statement):  # what else these may do is not the catalogue's
            if text is not None:
                yield from self._of_code(Code(text))
        for query in queries_run(statement):
            if query is not None:
                yield from self._of_code(Code(query))
            elif self.relations.get(SELECT):
                yield Change(Kind.DYNAMIC, None)

    def _of_word(self, statement: Statement, position: int, texts: set[str]) -> Iterator[Change]:
        name = statement[position].text
        start, schema = _start(statement, position)
        called = statement[position + 1 : position + 2] == [_OPENING] and not (
            text_at(statement, start - 1) in _NOT_BEFORE_CALLS or _is_of_index(statement, start - 1)
        )
        by_schema = self.functions.get(name)
        if by_schema is not None and (called or (schema and name in self.attributes)):
            # With `row.name`, what is before the name is no schema.
            yield from self._looked_up(by_schema, schema if called else "")
        if (changes := self.types.get(name)) is not None:
            yield from changes
        for verb in _verbs(statement, start, position, texts):
            by_name = self.relations.get(verb)
            if by_name is not None and (by_schema := by_name.get(name)) is not None:
                yield from self._looked_up(by_schema, schema)

    def _looked_up(self, by_schema: BySchema, schema: str) -> Iterator[Change]:
        """Yield the changes of a name.

        :param schema: the schema that is written before it, or "".
        """
        if schema and UNKNOWN_NAME not in schema:
            yield from by_schema.get(schema, ())
            return
        for found, changes in by_schema.items():
            if fits(found, schema) if schema else self.path is None or found in self.path:
                yield from changes

    def _of_unknown_names(self, statement: Statement, texts: set[str]) -> Iterator[Change]:
        """Yield what is possible with a name that is not known until the text is put together."""
        for position, token in enumerate(statement):
            if token.kind is not WORD or UNKNOWN_NAME not in token.text:
                continue
            if text_at(statement, position + 1) == ".":
                continue  # a schema
            name = token.text
            start, schema = _start(statement, position)
            before = text_at(statement, start - 1)
            called = statement[position + 1 : position + 2] == [_OPENING]
            if called and before not in _BEFORE_COLUMNS:
                if name == UNKNOWN_NAME:
                    yield Change(Kind.DYNAMIC, None)
                else:
                    yield from self._of_functions_like(name, schema)
                    yield from self._of_types_like(name)
            if self.types and _may_be_type(statement, start, position):
                yield from self._of_types_like(name)
            verbs = _verbs(statement, start, position, texts)
            for verb in verbs:
                if verb == SELECT and (len(verbs) > 1 or before in ("(", ",")):
                    continue  # it is written, or rather a column
                for relation, by_schema in self.relations.get(verb, {}).items():
                    if fits(relation, name):
                        # Without a schema, it may have one in it.
                        for found, changes in by_schema.items():
                            if not schema or fits(found, schema):
                                yield from changes

    def _of_functions_like(self, name: str, schema: str) -> Iterator[Change]:
        for function, kind in KINDS.items():
            if fits(function, name):
                yield Change(kind, None)
        for function, by_schema in self.functions.items():
            if fits(function, name):
                yield from self._looked_up(by_schema, schema)

    def _of_types_like(self, name: str) -> Iterator[Change]:
        for known, changes in self.types.items():
            if fits(known, name):
                yield from changes

    def _of_operators(self, statement: Statement, texts: set[str]) -> Iterator[Change]:
        symbols = "".join(token.text if token.kind is OTHER else " " for token in statement)
        for operator, changes in self.operators.items():
            if any(spelling in symbols or spelling in texts for spelling in spellings(operator)):
                yield from changes


_OPENING = Token(OTHER, "(")
#: The tokens before the last part of a name: database, schema, and a dot after each.
_LONGEST = 4


def _defines(statement: Statement) -> bool:
    """Return whether event triggers may fire for a part of *statement*."""
    return any(not _DEFINITIONS.isdisjoint(key_words(part)[:1]) for part in parts(statement))


def _is_of_index(statement: Statement, position: int) -> bool:
    """Return whether the word at *position* is the first ON of CREATE INDEX."""
    return (
        text_at(statement, position) == "on"
        and statement[0].text == "create"
        and text_at(statement, 1) in ("index", "unique")
        and not any(token.text == "on" for token in statement[:position])
    )


def _start(statement: Statement, position: int) -> tuple[int, str]:
    """Return where the name that ends at *position* begins, and the schema in it, or ""."""
    start, schema = position, ""
    while start >= 2 and position - start < _LONGEST and text_at(statement, start - 1) == ".":
        schema = schema or statement[start - 2].text
        start -= 2
    return start, schema


def _verbs(
    statement: Statement, start: int, end: int, texts: set[str]
) -> tuple[str, ...] | list[str]:
    """Return what is done with the relation whose name is from *start* to *end*."""
    at = start - 1
    if text_at(statement, at) == "(" and text_at(statement, at - 1) == "only":
        at -= 1
    if text_at(statement, at) == "only":
        at -= 1
    if text_at(statement, at) == "binary" and text_at(statement, at - 1) == "copy":
        at -= 1
    before, earlier = text_at(statement, at), text_at(statement, at - 1)
    found: list[str] = []
    if before == "into" and earlier == "insert":
        found.append(INSERT)
        if "conflict" in texts:
            found.append(UPDATE)
        if "returning" in texts:
            found.append(SELECT)
    elif before == "into" and earlier == "merge":
        found += [verb for verb in (INSERT, UPDATE, DELETE) if verb in texts]
        found.append(SELECT)
    elif before == "update" and earlier not in ("for", "key", "on"):
        found += [UPDATE, SELECT]
    elif before == "from" and earlier == "delete":
        found += [DELETE, SELECT]
    elif before == "copy":
        found.append(INSERT if "from" in texts else SELECT)
    elif "truncate" in texts and text_at(statement, end + 1) != "(":
        found.append(TRUNCATE)
        if "cascade" in texts:
            found.append(CASCADE)
    elif before in _BEFORE_RELATIONS and text_at(statement, end + 1) != "(":
        found.append(SELECT)
    if before != "references" and not texts.isdisjoint(_REWRITES):
        found.append(REWRITE)
    return found


def _may_be_type(statement: Statement, start: int, end: int) -> bool:
    """Return whether the name from *start* to *end* may be a type, to which values are cast."""
    before, following = text_at(statement, start - 1), statement[end + 1 : end + 2]
    return (
        before in ("::", "type")
        or (before == "as" and following in _AFTER_CAST)
        or bool(following and following[0].kind is STRING)
        or statement[0].text == "alter"
    )


_AFTER_CAST = [[Token(OTHER, ")")], [Token(OTHER, "[")]]


def _is_of_all(statement: Statement, head: str) -> bool:
    """Return whether a statement that begins with one of `_OF_ALL` names no table."""
    position = 1
    if text_at(statement, position) == "(":
        position = closing(statement, position) + 1
    if head == "reindex":
        return text_at(statement, position) in _ALL
    while text_at(statement, position) in ("full", "freeze", "verbose", "analyze", "analyse"):
        position += 1
    return position >= len(statement)


def merged(groups: Iterable[Iterable[Change]]) -> Changes:
    """Return all changes, each kind of them once, as at an unknown time."""
    found: dict[tuple[Kind, bool, bool], Change] = {}
    for group in groups:
        for change in nameless(group):
            found.setdefault((change.kind, change.undoes, change.renames), change)
    return tuple(found.values())
