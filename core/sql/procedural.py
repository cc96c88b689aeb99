"""Procedural code: the effects that a DO block or the body of a function may have.

Which of its statements run, in which order and how often, is unknown. So its state has no names,
and nothing is certain to be undone.

https://www.postgresql.org/docs/current/sql-do.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from .dynamic import Executed, Unreadable
from .effects import ALL, AnyStep, Change, Kind, later, nameless
from .functions import RUNNERS, steps_anywhere, texts_run
from .names import UNKNOWN_NAME, fits, is_temporary_schema
from .statements import OTHER, STRING, WORD, Statement, Token, key_words, readings, split, text_at

#: First word of a statement -> yields its effects, except those of the functions that it calls.
Heads = Mapping[str, Callable[[Statement, list[str]], Iterator[AnyStep]]]

#: PL/pgSQL words after which a statement may begin, as after a semicolon.
_BEFORE = ("begin", "then", "else", "loop")
_DECLARE, _BEGIN, _INTO = Token(WORD, "declare"), Token(WORD, "begin"), Token(WORD, "into")
_END = Token(WORD, "end")
#: A command never has one of these as its second token. Its first word is a variable or a column
#: then, as in ``load := 1`` and ``CASE WHEN a THEN load ELSE b END``.
_AFTER_A_VALUE = {
    *(
        Token(OTHER, text)
        for text in (":=", "=", "[", ".", "::", "+", "/", "|", "<", ">", ",", ")")
    ),
    *(Token(WORD, text) for text in ("when", "else", "end")),
}
#: The maximum nesting depth of EXECUTE strings that are read.
_DEEPEST = 3
#: Code and its texts are read up to `_MOST` times the code's length in total, which counts as
#: `_SHORTEST` characters at least. Each text counts as `_LEAST` characters at least.
_MOST, _LEAST = 20, 40
_SHORTEST = 1000
#: Nor does one without this name what has.
_STATEMENT = re.compile(r"[a-z_][\s(\"'/;-]", re.IGNORECASE)
#: A string without any of these has no effects.
_EFFECTIVE = re.compile(
    r"set|create|alter|drop|prepare|deallocate|declare|close|listen|load|discard|do|lock|nextval"
    r"|into|temp|execute|u&|_to_xml|ts_|backup|replication_",
    re.IGNORECASE,
)
_UNKNOWN = Change(Kind.UNKNOWN, None)


def _missing(*kinds: Kind) -> tuple[Change, ...]:
    return tuple(Change(kind, None, undoes=True, sure=False) for kind in kinds)


#: First word -> its effects if EXECUTE adds the rest, as in ``'CREATE ' || what``.
_UNFINISHED: dict[str, tuple[Change, ...]] = {
    "alter": (Change(Kind.TEMPORARY, ALL, undoes=True, renames=True),),
    "close": _missing(Kind.CURSOR),
    "create": (Change(Kind.TEMPORARY, None),),
    "deallocate": _missing(Kind.PREPARED),
    "declare": (Change(Kind.CURSOR, None),),
    "discard": _missing(*Kind),
    "drop": _missing(Kind.TEMPORARY),
    "reset": _missing(Kind.SETTING, Kind.ROLE),
    "unlisten": _missing(Kind.CHANNEL),
}


class Code:
    """Procedural code, as statements: its own, and those of the blocks and texts that it runs.

    :param text: its source.
    :param procedural: whether it is PL/pgSQL, whose EXECUTE runs texts.
    :param strings_run: whether any string in it may be run as SQL, as in other languages.
    :param parameters: the names of its parameters, and the numbers of their types; see `Executed`.

    :ivar texts: the texts that it may run.
    :ivar is_readable: whether these are known.
    :ivar is_whole: whether all of them were read. They are not if they are too long or too deep.
    """

    def __init__(
        self,
        text: str,
        *,
        procedural: bool = False,
        strings_run: bool = False,
        parameters: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._begin()
        self._pending.append(_Text(text, 0, procedural, strings_run))
        self._read(parameters)

    @classmethod
    def of_block(cls, block: Statement) -> Code:
        """Return the code of the statement DO *block*."""
        code = cls.__new__(cls)
        code._begin()
        code._add_block(block, 0)
        code._read({})
        return code

    def _begin(self) -> None:
        self.statements: list[Statement] = []
        self.texts: list[str] = []
        self.is_readable = self.is_whole = True
        self._pending: list[_Text] = []
        self._seen: set[tuple[str, bool, bool]] = set()

    def steps(self, heads: Heads) -> Iterator[Change]:
        """Yield the effects of the statements, but for those of what they call and write."""
        if not self.is_readable:
            yield Change(Kind.DYNAMIC, None)
        yield from dict.fromkeys(
            step for statement in self.statements for step in _effects(statement, heads)
        )
        if not self.is_whole:
            yield _UNKNOWN

    def _read(self, parameters: Mapping[str, str]) -> None:
        left = _MOST * max(sum(len(text.sql) for text in self._pending), _SHORTEST)
        while self._pending:
            text = self._pending.pop()
            if text.depth > _DEEPEST or left < 0:
                self.is_whole = False
                return
            ways = readings(text.sql)
            left -= max(len(text.sql), _LEAST) * len(ways)
            if text.depth:
                self.texts.append(text.sql)
            for way in ways:
                self._add_texts(text, way, split(way), parameters)
            parameters = {}

    def _add_texts(
        self, text: _Text, way: list[Token], found: list[Statement], parameters: Mapping[str, str]
    ) -> None:
        """Add the statements *found* in *text*, and the texts that they run."""
        self.statements += _with_names_quoted(found) if text.procedural else found
        words = {word for _, word, _ in way}
        deeper = text.depth + 1
        strings_run = text.strings_run
        if "execute" in words and not strings_run:
            try:
                if not text.procedural:
                    raise Unreadable
                for sql in Executed(found, parameters, len(text.sql)).texts():
                    self._add(sql, deeper)
            except Unreadable:
                self.is_readable &= not text.procedural
                strings_run = True
        if strings_run:
            for token in way:
                if token.kind is STRING or token.quoted:
                    self._add_string(token.text, deeper, text.strings_run)
        runs_texts = not RUNNERS.keys().isdisjoint(words)
        for statement in found:
            if UNKNOWN_NAME in statement[0].text and statement[0].kind is WORD:
                self.is_readable = False  # its command is not in the source
            if "do" in words:
                for part in parts(statement):
                    if key_words(part)[:1] == ["do"]:
                        self._add_block(part, deeper)
            for known in texts_run(statement) if runs_texts else ():
                if known is None:
                    self.is_readable = False
                else:
                    self._add(known, deeper)

    def _add(
        self, sql: str, depth: int, *, procedural: bool = False, strings_run: bool = False
    ) -> None:
        if (key := (sql, procedural, strings_run)) not in self._seen:
            self._seen.add(key)
            self._pending.append(_Text(sql, depth, procedural, strings_run))

    def _add_string(self, sql: str, depth: int, strings_run: bool) -> None:
        """Add *sql*, a string that may be run, or be a part of what is run."""
        if _STATEMENT.search(sql) or _EFFECTIVE.search(sql):
            self._add(sql, depth, strings_run=strings_run)

    def _add_block(self, block: Statement, depth: int) -> None:
        # In other languages, any string may be run.
        procedural = _language(block) == "plpgsql"
        for token in block:
            if token.kind is STRING:
                self._add(token.text, depth, procedural=procedural, strings_run=not procedural)


class _Text(NamedTuple):
    """A text to read; see `Code`.

    :param depth: how many texts it is in.
    """

    sql: str
    depth: int
    procedural: bool
    strings_run: bool


def parts(statement: Statement) -> Iterator[Statement]:
    """Yield every part of *statement* that could be a statement."""
    starts = [0]
    starts += [at + 1 for at, token in enumerate(statement) if token.text in _BEFORE]
    for start, stop in zip(starts, [*starts[1:], len(statement)], strict=True):
        part = statement[start:stop]
        if _is_value(part):
            part[0] = _quoted(part[0])
        yield part


def _with_names_quoted(found: list[Statement]) -> Iterator[Statement]:
    """Yield *found*, PL/pgSQL, with names of variables quoted where they could be key words.

    Those are the names that are declared, and those after INTO, which makes no table here.
    """
    declares = False
    for statement in found:
        names = {0} if declares and statement[0] not in (_DECLARE, _BEGIN) else set()
        if _INTO in statement:
            names.update(at + 1 for at, token in enumerate(statement[:-1]) if token == _INTO)
        if declares or _DECLARE in statement:
            declares = _ends_in_declarations(statement, declares)
        if names:
            statement = [
                _quoted(token) if at in names else token for at, token in enumerate(statement)
            ]
        yield statement


def _ends_in_declarations(statement: Statement, declares: bool) -> bool:
    """Return whether the statement after *statement* is a declaration.

    :param declares: whether *statement* may be one.
    """
    last_end = max((at for at, token in enumerate(statement) if token == _END), default=-1)
    for at, token in enumerate(statement):
        if token == _DECLARE:
            before = text_at(statement, at - 1)
            if before in ("then", "else"):
                # It may be a column, as in ``CASE WHEN a THEN declare - 1 END``.
                declares |= last_end < at
            elif not at or before in _BEFORE or _follows_label(statement, at):
                declares = True
        elif token == _BEGIN and (not at or statement[at - 1] == _DECLARE):
            declares = False
    return declares


def _follows_label(statement: Statement, at: int) -> bool:
    """Return whether a label is before *at*, as in ``<<a>> DECLARE``, and no comparison."""
    around = [text_at(statement, at + offset) for offset in (-5, -4, -2, -1)]
    return around == ["<", "<", ">", ">"] and (at == 5 or text_at(statement, at - 6) in _BEFORE)


def _is_value(part: Statement) -> bool:
    """Return whether *part* begins with a variable or a column, whatever that is called."""
    return len(part) > 1 and part[1] in _AFTER_A_VALUE


def _quoted(token: Token) -> Token:
    """Return *token*; a word becomes a quoted one, which is never a key word."""
    return token._replace(quoted=True) if token.kind is WORD else token


def _effects(statement: Statement, heads: Heads) -> Iterator[Change]:
    """Yield the effects of every part of *statement* that could be a statement."""
    runs_later = False
    for part in parts(statement):
        words = key_words(part)
        head = words[0] if words else ""
        if head in heads and head != "do":
            yield from nameless(heads[head](part, words))
        if len(part) == 1:
            yield from _UNFINISHED.get(head, ())
        # The rest of its query may be in another part.
        runs_later |= head == "prepare" or (head == "declare" and "cursor" in words)
        if head == "create" and _is_perhaps_temporary(part):
            yield Change(Kind.DYNAMIC, None)  # and not TEMPORARY, which may be refused
    yield from (later if runs_later else nameless)(steps_anywhere(statement))
    if any(is_temporary_schema(token.text) for token in statement):
        yield Change(Kind.TEMPORARY, None)


def _is_perhaps_temporary(statement: Statement) -> bool:
    """Return whether CREATE makes something in a schema that is not known, so may be pg_temp."""
    position = 1
    while text_at(statement, position) in _BEFORE_A_NAME:
        position += 1
    schema = text_at(statement, position)
    return (
        UNKNOWN_NAME in schema
        and text_at(statement, position + 1) == "."
        and fits("pg_temp", schema)
    )


_BEFORE_A_NAME = {
    *("or", "replace", "unlogged", "table", "view", "materialized", "recursive", "sequence"),
    *("function", "procedure", "type", "domain", "if", "not", "exists"),
}


def _language(block: Statement) -> str:
    for position, token in enumerate(block[:-1]):
        if token.kind is WORD and token.text == "language":
            return block[position + 1].text.lower()
    return "plpgsql"
