"""Dynamic SQL: what PL/pgSQL's EXECUTE runs, as far as its source shows.

Most dynamic SQL has its command in the source, and only names and values are put into it:
``format('INSERT INTO %I VALUES (%L)', ...)``. Such a text can be judged, with a stand-in for each
name and value, because `quote_ident` and `quote_literal` let neither become anything else.

A variable may have several values, and may have been appended to or not. Then there are several
texts, and each of them is judged.

https://www.postgresql.org/docs/current/plpgsql-statements.html#PLPGSQL-STATEMENTS-EXECUTING-DYN
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from math import prod

from .names import UNKNOWN_NAME
from .quoting import quote_identifier, quote_literal
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

#: The texts that an expression may be; None stands for NULL.
Texts = list[str | None]

#: Stands for a number until it is known what is before and after it.
_NUMBER = "\ufffc"
_NAME_PART = rf"[\w$\"{UNKNOWN_NAME}{_NUMBER}]"
_LONE_NUMBER = re.compile(rf"(?<!{_NAME_PART}){_NUMBER}(?!{_NAME_PART})")
_VALUE = f"'{UNKNOWN_NAME}'"
#: Functions whose result can be nothing but a name or a value.
_QUOTING = ("quote_ident", "quote_literal", "quote_nullable")
#: A name that quote_ident() leaves as it is, unless it is a key word.
_UNQUOTED = re.compile(rf"[a-z_{UNKNOWN_NAME}{_NUMBER}][a-z0-9_{UNKNOWN_NAME}{_NUMBER}]*\Z")
#: Function of a text -> the same in Python.
_CASES = {"lower": str.lower, "upper": str.upper}
_TRIMS = {"trim": str.strip, "btrim": str.strip, "ltrim": str.lstrip, "rtrim": str.rstrip}
#: A template of to_char() that yields nothing but digits, letters and separators.
_SAFE_TEMPLATE = re.compile(r"[\w .,:/+-]*\Z")
#: Types whose values can be nothing but a name or a number.
_SAFE_TYPES = {
    **dict.fromkeys(("regclass", "regproc", "regtype", "regrole", "regnamespace"), UNKNOWN_NAME),
    "regprocedure": f"{UNKNOWN_NAME}({UNKNOWN_NAME})",  # with the types of its parameters
    **dict.fromkeys(("int", "integer", "bigint", "smallint", "int4", "int8", "numeric"), _NUMBER),
    **dict.fromkeys(("boolean", "bool", "date", "oid", "uuid"), _NUMBER),
}
#: The same by the numbers of the types, which every server has in pg_type.
#: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
_SAFE_NUMBERS = {
    **dict.fromkeys(("16", "20", "21", "23", "26", "1082", "1700", "2950"), _NUMBER),
    **dict.fromkeys(("24", "2205", "2206", "4089", "4096"), UNKNOWN_NAME),
    "2202": _SAFE_TYPES["regprocedure"],
}
_TEXT_TYPES = ("text", "varchar", "name", "unknown")
#: Variables of a trigger, which have names.
#: https://www.postgresql.org/docs/current/plpgsql-trigger.html
_OF_TRIGGERS = {"tg_table_name", "tg_table_schema", "tg_relname", "tg_op", "tg_name", "tg_relid"}
_FORMAT = re.compile(r"%(?:(%)|(?:(\d+)\$)?-?(\*|\d+)?([sIL]))")
#: The maximum number of variables that are followed in one body, of calls in each other, of texts
#: that one expression may be, and of names in a list.
_MOST_VARIABLES = 50
_DEEPEST = 20
_MOST_TEXTS = 64
_MOST_TARGETS = 100
#: The maximum length of a type in a declaration, and of what a query selects, in tokens.
_LONGEST_TYPE, _LONGEST_QUERY = 12, 200
#: The texts of one expression have up to `_ROOM` times the length of the source, which counts as
#: `_SHORTEST` characters at least.
_ROOM, _SHORTEST = 16, 1000

#: A text may have fewer effects with one of these than without it.
_LESSENS = re.compile(r"\b(?:local|commit|drop|transaction|true|explain)\b|xact", re.IGNORECASE)
#: A command that the server does not run, because its end is missing.
_INCOMPLETE = re.compile(
    r"\s*(?:(?:alter|close|create|deallocate|declare|drop|index|listen|load|local|or|prepare"
    r"|replace|reset|sequence|session|set|table|temp|temporary|unique|unlisten|unlogged|view)"
    r"(?:\s+|\Z))*\Z",
    re.IGNORECASE,
)
#: A value that has no part in what a command does.
_PLAIN_VALUE = re.compile(r"(?:null|default|[\d.]*|'[^']*')\Z", re.IGNORECASE)

_ASSIGN = (Token(OTHER, ":="), Token(OTHER, "="))
_ASSIGNS = [[token] for token in _ASSIGN]
#: What may follow the type in a declaration.
_AFTER_TYPE = [[], *_ASSIGNS, [Token(WORD, "not")], [Token(WORD, "default")]]
_BAR = Token(OTHER, "|")
_EXECUTE = Token(WORD, "execute")
#: What follows the privilege EXECUTE, and the action of a trigger. Variables may be called
#: function and procedure, too.
_ON = [Token(WORD, "on")]
_OF_TRIGGER = [[Token(WORD, "function")], [Token(WORD, "procedure")]]
_CREATE = Token(WORD, "create")
_SELECT, _FROM, _LOOP = Token(WORD, "select"), Token(WORD, "from"), Token(WORD, "loop")
_IN_SELECT = [Token(WORD, "in"), _SELECT]
_ORDER, _DOT = Token(WORD, "order"), Token(OTHER, ".")
#: The result of a query is not only that of its first expression with one of these.
_COMBINES = {"union", "intersect", "except"}
_CASE, _END = Token(WORD, "case"), Token(WORD, "end")
_OF_CASE = ("case", "when", "then", "else", "end")
#: Words after which a statement may begin, and a variable may be assigned to.
_BEFORE = ("declare", "begin", "then", "else", "loop", ">")
#: Words after which a variable gets a value that is not in the source.
_TARGETS = ("into", "strict", "for", "foreach")


class Unreadable(Exception):
    """The source does not show what an EXECUTE runs."""


class Executed:
    """The texts that the EXECUTE statements of one body run.

    :param statements: the body.
    :param parameters: the names of the function's parameters, and the numbers of their types if
        they are known.
    :param length: the number of characters of the body.
    """

    def __init__(
        self, statements: list[Statement], parameters: Mapping[str, str], length: int
    ) -> None:
        self._statements, self._parameters = statements, parameters
        self._room = _ROOM * max(length, _SHORTEST)
        self._depth = 0
        self._known: dict[str, Texts] = {}
        #: Variables that are being followed, and those that led to nothing.
        self._following: set[str] = set()
        self._unknown: set[str] = set()
        #: Whether a query is read, in which the name of a variable may be that of a column.
        self._in_query = False

    def texts(self) -> list[str]:
        """Return the texts.

        :raises Unreadable: one of them is unknown.
        """
        found: dict[str, None] = {}
        for statement in self._statements:
            for expression in _expressions(statement):
                texts = [text for text in self._texts(expression) if text]
                self._room -= sum(map(len, texts))
                found.update(dict.fromkeys(map(_settled, texts)))
        return [text for text in found if not _INCOMPLETE.match(text)]

    def _texts(self, expression: Statement) -> Texts:
        """Return the texts that *expression* may be, with stand-ins for names and values."""
        if self._depth > _DEEPEST:
            raise Unreadable
        self._depth += 1
        found = self._joined(self._piece(term) for term in _terms(expression))
        self._depth -= 1
        return found

    def _joined(self, pieces: Iterable[Texts]) -> Texts:
        """Return what *pieces* may be, one after the other. NULL makes all of it NULL."""
        found: Texts = [""]
        constant: list[str] = []  # joined at once, because each addition copies
        for piece in pieces:
            if len(piece) == 1 and piece[0] is not None:
                constant.append(piece[0])
            else:
                found = self._product(self._product(found, ["".join(constant)]), piece)
                constant.clear()
        if constant:
            found = self._product(found, ["".join(constant)])
        return found

    def _product(self, first: Texts, second: Texts) -> Texts:
        if first == [""]:
            return self._within(second)
        if len(first) * len(second) > _MOST_TEXTS:
            raise Unreadable
        return self._within(
            None if one is None or other is None else one + other
            for one in first
            for other in second
        )

    def _within(self, texts: Iterable[str | None]) -> Texts:
        """Return *texts*, each once, if they are not too many and not too long."""
        found = list(dict.fromkeys(texts))
        if len(found) > _MOST_TEXTS or sum(map(len, filter(None, found))) > self._room:
            raise Unreadable
        return found

    def _piece(self, term: Statement) -> Texts:
        """Return the texts that *term* may be."""
        term = _without_parentheses(term)
        if len(term) > 2 and (term[0], term[-1]) == (_CASE, _END):
            return self._of_case(term)
        if len(term) > 2 and term[-2].text == "::":
            kind = term[-1].text
            if kind in _TEXT_TYPES:
                return self._texts(term[:-2])
            if kind in _SAFE_TYPES:
                return [_SAFE_TYPES[kind]]
            raise Unreadable
        if len(term) == 1:
            return self._of_token(term[0])
        while len(term) > 3 and term[1].text == "." and term[0].text == "pg_catalog":
            term = term[2:]
        called = term[0].text if term and term[0].kind is WORD else ""
        if text_at(term, 1) == "(" and closing(term, 1) == len(term) - 1:
            return self._of_call(called, comma_list(term[2:-1]))
        raise Unreadable

    def _of_case(self, term: Statement) -> Texts:
        """Return what CASE may be: the result of each branch."""
        found: Texts = []
        depth, begin, last, is_total = 0, 0, "", False
        for position, (kind, text, quoted) in enumerate(term):
            if kind is OTHER:
                depth += (text in ("(", "[")) - (text in (")", "]"))
            elif kind is WORD and not quoted and text in _OF_CASE:
                if depth == 1 and text != "case":
                    if last in ("then", "else"):
                        found += self._texts(term[begin:position])
                    is_total |= text == "else"
                    begin, last = position + 1, text
                depth += (text == "case") - (text == "end")
        return self._within(found if is_total else [*found, None])

    def _of_call(self, function: str, arguments: list[Statement]) -> Texts:
        if function in _QUOTING:
            return [self._quoted(arguments[0], name=function == "quote_ident")]
        if function == "to_char" and len(arguments) == 2:
            if all(text and _SAFE_TEMPLATE.match(text) for text in self._texts(arguments[1])):
                return [UNKNOWN_NAME]
        elif function == "format":
            return self._formatted(arguments)
        elif function == "concat":
            return self._joined(map(self._without_null, arguments))
        elif function == "concat_ws":
            return self._separated(*map(self._texts, arguments))
        elif function == "replace" and len(arguments) == 3:
            return self._replaced(*map(self._texts, arguments))
        elif function == "string_agg" and len(arguments) == 2:
            return self._aggregated(*arguments)
        elif function == "coalesce":
            return self._first_of(arguments)
        elif function in _CASES:
            change = _CASES[function]
            return self._within(text and change(text) for text in self._texts(arguments[0]))
        elif function in _TRIMS:
            trim = _TRIMS[function]
            (letters,) = self._texts(arguments[1]) if len(arguments) == 2 else (" ",)
            texts = self._texts(arguments[0])
            if (letters or "").strip() and any(map(_has_stand_in, texts)):
                raise Unreadable  # without its quotes, a value may be anything
            return self._within(text and trim(text, letters) for text in texts)
        raise Unreadable

    def _separated(self, separator: Texts, *pieces: Texts) -> Texts:
        """Return what concat_ws() of *pieces* may be. It leaves out those that are NULL."""
        if any(None in piece for piece in pieces):
            raise Unreadable
        return self._joined([part for piece in pieces for part in (separator, piece)][1:])

    def _replaced(self, texts: Texts, old: Texts, new: Texts) -> Texts:
        if not all(old) or any(map(_has_stand_in, (*texts, *old))):
            raise Unreadable  # a name may have in it what is replaced
        return self._within(
            None if text is None or one is None else text.replace(each or "", one)
            for text in texts
            for each in old
            for one in new
        )

    def _aggregated(self, value: Statement, separator: Statement) -> Texts:
        """Return what string_agg() may be: nothing, one value, or many, of which two will do."""
        if _ORDER in separator:
            separator = separator[: separator.index(_ORDER)]
        values, between = self._texts(value), self._texts(separator)
        if len(values) > 1 or not (values[0] and between[0]) or len(between) > 1:
            raise Unreadable
        return self._within([None, values[0], f"{values[0]}{between[0]}{values[0]}"])

    def _first_of(self, arguments: list[Statement]) -> Texts:
        """Return what COALESCE of *arguments* may be."""
        found: Texts = []
        for argument in arguments:
            texts = self._texts(argument)
            if None not in texts:
                found = [text for text in found if text is not None]
            if found and set(found) <= {_VALUE, _NUMBER}:
                # Another value changes nothing.
                texts = [text for text in texts if text and not _PLAIN_VALUE.match(text)]
            found += texts
        return self._within(found)

    def _quoted(self, argument: Statement, *, name: bool) -> str:
        """Return *argument* as a name or a value; a stand-in if it is not known.

        A value may be run, as that of DO.
        """
        depth, following, in_query = self._depth, set(self._following), self._in_query
        try:
            texts = [text for text in self._texts(argument) if text is not None]
        except Unreadable:
            texts = []
            self._depth, self._following, self._in_query = depth, following, in_query
        if len(texts) != 1:
            return UNKNOWN_NAME if name else _VALUE
        (text,) = texts
        if not name:
            return _VALUE if text in _STAND_INS else quote_literal(text)
        return text if _UNQUOTED.match(text) else quote_identifier(text)

    def _without_null(self, argument: Statement) -> Texts:
        return self._within(text or "" for text in self._texts(argument))

    def _of_token(self, token: Token) -> Texts:
        if token.kind is STRING:
            return [token.text]
        if token.kind is WORD and not token.quoted:
            if token.text in _OF_TRIGGERS and not self._in_query:
                return [UNKNOWN_NAME]
            if token.text == "null":
                return [None]
        if token.kind is OTHER and token.text[:1].isdigit():
            return [token.text]
        if token.kind in (WORD, PARAMETER):
            return self._of_variable(token.text)
        raise Unreadable

    def _formatted(self, arguments: list[Statement]) -> Texts:
        if any(text_at(argument, 0) == "variadic" for argument in arguments):
            raise Unreadable
        found: Texts = []
        for template in self._texts(arguments[0]):
            found += [None] if template is None else self._filled(template, arguments)
        return self._within(found)

    def _filled(self, template: str, arguments: list[Statement]) -> Texts:
        pieces: list[Texts] = []
        end, place = 0, 0
        for match in _FORMAT.finditer(template):
            pieces.append([template[end : match.start()]])
            end = match.end()
            percent, number, width, form = match.groups()
            if percent:
                pieces.append(["%"])
                continue
            if width == "*":
                raise Unreadable
            place = int(number) if number and len(number) < _MOST_TARGETS else place + 1
            if not 0 < place < len(arguments):
                raise Unreadable
            if form == "s":
                pieces.append(self._without_null(arguments[place]))
            else:
                pieces.append([self._quoted(arguments[place], name=form == "I")])
        pieces.append([template[end:]])
        return self._joined(pieces)

    # Variables.

    @cached_property
    def _stand_ins(self) -> dict[str, list[str]]:
        """The stand-ins for values of each variable and parameter; "" if they may be any text."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for name, number in self._parameters.items():
            found[name][_SAFE_NUMBERS.get(number, "")] = None
        for statement in self._statements:
            for name, stand_in in _declarations(statement):
                found[name][stand_in] = None
        return {name: list(stand_ins) for name, stand_ins in found.items()}

    def _of_variable(self, name: str) -> Texts:
        if self._in_query:
            raise Unreadable
        stand_ins = self._stand_ins.get(name)
        if stand_ins and all(stand_ins):
            return [*stand_ins]  # whatever is assigned
        if name in self._known:
            return self._known[name]
        if name in self._parameters or name in self._unknown or name in self._following:
            raise Unreadable
        if len(self._known) + len(self._unknown) >= _MOST_VARIABLES:
            raise Unreadable
        self._following.add(name)
        self._unknown.add(name)  # until it is known
        values = [value for statement in self._statements for value in _assigned(statement, name)]
        first: Texts = []
        pieces: list[Texts] = []
        for value, of_query in values:
            if of_query:
                self._in_query = True
                first += [*self._texts(value), None]
                self._in_query = False
            elif _appends(value, name):
                pieces.append(self._texts(value[3:]))
            else:
                first += self._texts(value) if value else [None]
        if not first:
            raise Unreadable
        found = self._within(self._grown(first, pieces) if pieces else first)
        self._following.discard(name)
        self._unknown.discard(name)
        self._known[name] = found
        return found

    @property
    def _has_loop(self) -> bool:
        return any(token.text == "loop" for each in self._statements for token in each)

    def _grown(self, first: Texts, pieces: list[Texts]) -> Texts:
        """Return what *first* may be once *pieces* were appended to it, each or not."""
        added = [text for texts in pieces for text in texts if text]
        # In a loop they may be appended in another order, too.
        before = [*first, *added] if self._has_loop else first
        ends = {text[-1] for text in before if text}
        for piece in pieces:
            if any(_makes_word(end, text[0]) for text in piece if text for end in ends):
                raise Unreadable
            ends |= {text[-1] for text in piece if text}
        few = len(pieces) < _MOST_TEXTS.bit_length()  # each at least doubles the number of texts
        if few and len(first) * prod(len(piece) + 1 for piece in pieces) <= _MOST_TEXTS:
            found = first
            for piece in pieces:
                found = self._within([*found, *self._product(found, piece)])
            return found
        if any(map(_LESSENS.search, added)):
            raise Unreadable
        return self._product(first, self._joined(pieces))


def _settled(text: str) -> str:
    """Return *text* with a number for each stand-in, or a name if it is a part of one."""
    if _NUMBER in text:
        text = _LONE_NUMBER.sub("0", text).replace(_NUMBER, UNKNOWN_NAME)
    return text


def _makes_word(end: str, start: str) -> bool:
    """Return whether the letters *end* and *start* make a word that shows in neither text.

    A name that is not known stays one when another follows.
    """
    if end in _STAND_INS and start in _STAND_INS:
        return False
    return all(letter.isalnum() or letter in "_$" or ord(letter) > 127 for letter in (end, start))


_STAND_INS = (UNKNOWN_NAME, _NUMBER)


def _has_stand_in(text: str | None) -> bool:
    return text is not None and (UNKNOWN_NAME in text or _NUMBER in text)


def _declarations(statement: Statement) -> Iterator[tuple[str, str]]:
    """Yield the variables that *statement* may declare, and the stand-ins for their values."""
    before = "declare"
    for position, (kind, text, _) in enumerate(statement):
        if kind is WORD and before == "declare":
            yield text, _of_type(statement[position + 1 : position + _LONGEST_TYPE])
        elif before == "for" and _is_range(statement[position + 1 : position + _MOST_TARGETS]):
            yield text, _NUMBER
        before = text


def _of_type(declared: Statement) -> str:
    """Return the stand-in for values of the type in a declaration, or ""."""
    if text_at(declared, 0) == "constant":
        declared = declared[1:]
    if [text_at(declared, 0), text_at(declared, 1)] == ["pg_catalog", "."]:
        declared = declared[2:]
    end = closing(declared, 1) + 1 if text_at(declared, 1) == "(" else 1
    if not declared or declared[0].quoted or declared[end : end + 1] not in _AFTER_TYPE:
        return ""
    return _SAFE_TYPES.get(text_at(declared, 0), "")


def _is_range(following: Statement) -> bool:
    """Return whether ``IN 1..2 LOOP`` follows, whose variable is a number."""
    if text_at(following, 0) != "in":
        return False
    for token, after in pairwise(following):
        if token == _LOOP:
            break
        if token == _DOT and after.kind is OTHER and after.text[:1] == ".":
            return True
    return False


def _assigned(statement: Statement, name: str) -> Iterator[tuple[Statement, bool]]:
    """Yield the expressions that *statement* assigns to *name*; an empty one stands for NULL.

    Each comes with whether it is that of a query.

    :raises Unreadable: it assigns something that is not in the source.
    """
    texts: set[str] | None = None
    found = False
    for position, token in enumerate(statement):
        if token.kind is not WORD or token.text != name:
            continue
        before = text_at(statement, position - 1)
        if texts is None:
            texts = {text for _, text, _ in statement}
        if before in ("into", "strict", "for") and not found:
            yield _queried(statement, position), True
            found = True
            continue
        if before in (*_TARGETS, ".") or (
            before == "," and ("into" in texts or _is_target(statement, position))
        ):
            raise Unreadable
        # CALL with INOUT, GET STACKED DIAGNOSTICS, and another name of it.
        if not texts.isdisjoint(("call", "diagnostics", "alias")):
            raise Unreadable
        is_assigned = statement[position + 1 : position + 2] in _ASSIGNS
        if position and before not in (_BEFORE if is_assigned else ("declare",)):
            continue
        if found:
            raise Unreadable  # PL/pgSQL has one assignment in a statement
        found = True
        rest = statement[position + 1 :]
        yield rest[1:] if is_assigned else _declared(rest), False


def _queried(statement: Statement, position: int) -> Statement:
    """Return the expression of the query whose only target is the variable at *position*.

    :raises Unreadable: it is no such query.
    """
    if text_at(statement, position + 1) in (",", ".", "[") or not _COMBINES.isdisjoint(
        text for _, text, _ in statement
    ):
        raise Unreadable
    if text_at(statement, position - 1) == "for":
        if statement[position + 1 : position + 3] != _IN_SELECT:
            raise Unreadable
        return _until_from(statement[position + 3 : position + 3 + _LONGEST_QUERY])
    into = position - 1 - (text_at(statement, position - 1) == "strict")
    if not into or text_at(statement, into) != "into":
        raise Unreadable
    start, depth = into - 1, 0
    while start > into - _LONGEST_QUERY and (depth or statement[start] != _SELECT):
        if start <= 0:
            raise Unreadable
        kind, text, _ = statement[start]
        if kind is OTHER:
            depth += (text in (")", "]")) - (text in ("(", "["))
        start -= 1
    if statement[start] != _SELECT:
        raise Unreadable
    if start + 1 == into:
        return _until_from(statement[position + 1 : position + 1 + _LONGEST_QUERY])
    return statement[start + 1 : into]


def _until_from(expression: Statement) -> Statement:
    depth = 0
    for position, token in enumerate(expression):
        if token.kind is OTHER:
            depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
        elif not depth and token in (_FROM, _LOOP):
            return expression[:position]
    if len(expression) == _LONGEST_QUERY:
        raise Unreadable
    return expression


def _declared(rest: Statement) -> Statement:
    """Return the value in a declaration: [CONSTANT] type [NOT NULL] [:= | = | DEFAULT] value."""
    for at, part in enumerate(rest[:12]):
        if part in _ASSIGN or part == Token(WORD, "default"):
            return rest[at + 1 :]
    return []


def _is_target(statement: Statement, position: int) -> bool:
    """Return whether the name at *position* is in a list of names after FOR."""
    start = position
    for _ in range(_MOST_TARGETS):
        if text_at(statement, start - 1) not in (",", "."):
            return text_at(statement, start - 1) in _TARGETS
        start -= 2
    raise Unreadable


def _appends(value: Statement, name: str) -> bool:
    """Return whether *value* is ``name || ...``."""
    return len(value) > 3 and value[0].text == name and value[1:3] == [_BAR, _BAR]


def _expressions(statement: Statement) -> Iterator[Statement]:
    """Yield the expression of each EXECUTE in *statement*."""
    if _EXECUTE not in statement:
        return
    trigger = _trigger(statement)
    for position, token in enumerate(statement):
        if token != _EXECUTE or text_at(statement, position - 1) == ".":
            continue
        following = statement[position + 1 : position + 2]
        if following == _ON or (following in _OF_TRIGGER and position > trigger):
            continue
        end, depth = position + 1, 0
        while end < len(statement) and statement[end] != _EXECUTE:
            kind, text, quoted = statement[end]
            if kind is OTHER:
                depth += (text in ("(", "[")) - (text in (")", "]"))
            elif not depth and kind is WORD and not quoted and text in ("into", "using", "loop"):
                break
            end += 1
        yield statement[position + 1 : end]


def _trigger(statement: Statement) -> int:
    """Return the position of CREATE TRIGGER, or one beyond *statement*."""
    if _CREATE in statement:
        for position, token in enumerate(statement):
            if token == _CREATE and "trigger" in key_words(statement, position):
                return position
    return len(statement)


def _without_parentheses(expression: Statement) -> Statement:
    for _ in range(_DEEPEST):
        if text_at(expression, 0) != "(" or closing(expression, 0) != len(expression) - 1:
            break
        expression = expression[1:-1]
    return expression


def _terms(expression: Statement) -> Iterator[Statement]:
    """Yield what is joined with ``||`` in *expression*."""
    expression = _without_parentheses(expression)
    depth, begin, position = 0, 0, 0
    while position < len(expression):
        token = expression[position]
        if token.kind is OTHER:
            depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
            if not depth and expression[position : position + 2] == [_BAR, _BAR]:
                yield expression[begin:position]
                begin = position = position + 2
                continue
        position += 1
    if begin >= len(expression):
        raise Unreadable
    yield expression[begin:]
