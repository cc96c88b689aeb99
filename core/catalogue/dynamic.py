"""Dynamic SQL: what PL/pgSQL's EXECUTE runs, as far as its source shows.

Most dynamic SQL has its command in the source, and only names and values are put into it:
``format('INSERT INTO %I VALUES (%L)', ...)``. Such a text can be judged, with a stand-in for each
name and value, because `quote_ident` and `quote_literal` let neither become anything else.

https://www.postgresql.org/docs/current/plpgsql-statements.html#PLPGSQL-STATEMENTS-EXECUTING-DYN
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from relet.core.sql.statements import (
    OTHER,
    STRING,
    WORD,
    Statement,
    Token,
    closing,
    comma_list,
    text_at,
)

from .names import UNKNOWN_NAME

#: Functions whose result can be nothing but a name or a value.
_QUOTING = {
    "quote_ident": UNKNOWN_NAME,
    "quote_literal": "''",
    "quote_nullable": "''",
    "to_char": UNKNOWN_NAME,
}
#: Types whose values can be nothing but a name or a number.
_SAFE_TYPES = {
    **dict.fromkeys(("regclass", "regproc", "regprocedure", "regtype", "regrole"), UNKNOWN_NAME),
    "regnamespace": UNKNOWN_NAME,
    **dict.fromkeys(("int", "integer", "bigint", "smallint", "int4", "int8", "numeric"), "0"),
    **dict.fromkeys(("boolean", "bool", "date", "oid", "uuid"), "0"),
}
#: Variables of a trigger, which have names.
#: https://www.postgresql.org/docs/current/plpgsql-trigger.html
_OF_TRIGGERS = {"tg_table_name", "tg_table_schema", "tg_relname", "tg_op", "tg_name", "tg_relid"}
_FORMAT = re.compile(r"%(?:%|(?:\d+\$)?-?(?:\d+|\*)?([sIL]))")
#: The maximum number of variables that are followed in one body, and of calls in each other.
_MOST_VARIABLES = 20
_DEEPEST = 20

_ASSIGN = (Token(OTHER, ":="), Token(OTHER, "="))
_BAR = Token(OTHER, "|")


class Unreadable(Exception):
    """The source does not show what an EXECUTE runs."""


class Executed:
    """The texts that the EXECUTE statements of one body run.

    :param statements: the body.
    :param parameters: the names of the function's parameters, whose values are unknown.
    """

    def __init__(self, statements: list[Statement], parameters: frozenset[str]) -> None:
        self._statements, self._parameters = statements, parameters
        self._followed = self._depth = 0

    def texts(self) -> list[str]:
        """Return the texts.

        :raises Unreadable: one of them is unknown.
        """
        found: list[str] = []
        for statement in self._statements:
            for expression in _expressions(statement):
                found += self._texts(expression, frozenset())
        return found

    def _texts(self, expression: Statement, following: frozenset[str]) -> list[str]:
        """Return the texts that *expression*, a whole command, may be."""
        expression = _without_parentheses(expression)
        if len(expression) == 1 and expression[0].kind is WORD:
            name = expression[0].text
            found = []
            for value in self._values(name, following):
                if _appends(value, name):
                    # What is added goes on with the command, so it cannot begin one.
                    rest = self._joined(value[3:], following | {name})
                    if not rest[:1].isspace() and rest[:1] not in (UNKNOWN_NAME, "'", ",", ")"):
                        raise Unreadable
                    found.append(rest)
                else:
                    found += self._texts(value, following | {name})
            return found
        text = self._joined(expression, following)
        if not re.match(r"\s*[a-zA-Z]+(?:\s|;|\Z|\()", text):
            raise Unreadable  # its command is not in the source
        return [text]

    def _joined(self, expression: Statement, following: frozenset[str]) -> str:
        if self._depth > _DEEPEST:
            raise Unreadable
        self._depth += 1
        text = "".join(self._piece(term, following) for term in _terms(expression))
        self._depth -= 1
        return text

    def _piece(self, term: Statement, following: frozenset[str]) -> str:
        """Return the text of *term*, with stand-ins for names and values."""
        term = _without_parentheses(term)
        if len(term) > 2 and term[-2].text == "::":
            kind = term[-1].text
            if kind in ("text", "varchar", "name", "unknown"):
                return self._joined(term[:-2], following)
            if kind in _SAFE_TYPES:
                return _SAFE_TYPES[kind]
            raise Unreadable
        if len(term) == 1:
            return self._of_token(term[0], following)
        while len(term) > 3 and term[1].text == "." and term[0].text == "pg_catalog":
            term = term[2:]
        called = term[0].text if term and term[0].kind is WORD else ""
        if text_at(term, 1) == "(" and closing(term, 1) == len(term) - 1:
            arguments = comma_list(term[2:-1])
            if called in _QUOTING:
                return _QUOTING[called]
            if called == "format":
                return self._formatted(arguments, following)
            if called == "concat":
                return "".join(self._joined(argument, following) for argument in arguments)
            if called in ("coalesce", "lower", "upper", "trim", "btrim", "rtrim", "ltrim"):
                return self._joined(arguments[0], following)
        raise Unreadable

    def _of_token(self, token: Token, following: frozenset[str]) -> str:
        if token.kind is STRING:
            return token.text
        if token.kind is WORD and token.text in _OF_TRIGGERS:
            return UNKNOWN_NAME
        if token.kind is OTHER and token.text[:1].isdigit():
            return token.text
        if token.kind is WORD:
            values = self._values(token.text, following)
            pieces = [
                self._joined(
                    value[3:] if _appends(value, token.text) else value, following | {token.text}
                )
                for value in values
            ]
            return " ".join(pieces) if len(pieces) > 1 else pieces[0]
        raise Unreadable

    def _formatted(self, arguments: list[Statement], following: frozenset[str]) -> str:
        template = self._joined(arguments[0], following)
        if any(len(argument) and argument[0].text == "variadic" for argument in arguments):
            raise Unreadable
        taken = iter(arguments[1:])

        def stand_in(match: re.Match[str]) -> str:
            form = match[1]
            if form is None:
                return "%"
            if "$" in match[0] or "*" in match[0]:
                if form == "s":
                    # By number: every argument has to be a name or a value.
                    return " ".join(self._joined(one, following) for one in arguments[1:])
                return UNKNOWN_NAME if form == "I" else "''"
            argument = next(taken, None)
            if form == "s":
                if argument is None:
                    raise Unreadable
                return self._joined(argument, following)
            return UNKNOWN_NAME if form == "I" else "''"

        return _FORMAT.sub(stand_in, template)

    def _values(self, name: str, following: frozenset[str]) -> list[Statement]:
        """Return the expressions that are assigned to the variable *name*."""
        if name in self._parameters or name in following or self._followed >= _MOST_VARIABLES:
            raise Unreadable
        self._followed += 1
        found: list[Statement] = []
        for statement in self._statements:
            found += _assigned(statement, name)
        if not found:
            raise Unreadable
        return found


def _assigned(statement: Statement, name: str) -> Iterator[Statement]:
    """Yield the expressions that *statement* assigns to *name*.

    :raises Unreadable: it assigns something that is not in the source.
    """
    for position, token in enumerate(statement):
        if token.kind is not WORD or token.text != name:
            continue
        before = text_at(statement, position - 1)
        if before in ("into", "strict", "for", "foreach", ".") or (
            before == "," and any(part.text == "into" for part in statement)
        ):
            raise Unreadable
        if not (position == 0 or before in ("declare", "begin", "then", "else", "loop", ">")):
            continue
        rest = statement[position + 1 :]
        if rest[:1] and rest[0] in _ASSIGN:
            yield rest[1:]
            continue
        # A declaration: name [CONSTANT] type [NOT NULL] [:= | = | DEFAULT] value.
        for at, part in enumerate(rest[:12]):
            if part in _ASSIGN or part == Token(WORD, "default"):
                yield rest[at + 1 :]
                break


def _appends(value: Statement, name: str) -> bool:
    """Return whether *value* is ``name || ...``."""
    return len(value) > 3 and value[0].text == name and value[1:3] == [_BAR, _BAR]


def _expressions(statement: Statement) -> Iterator[Statement]:
    """Yield the expression of each EXECUTE in *statement*."""
    for position, token in enumerate(statement):
        if token != _EXECUTE or text_at(statement, position - 1) == ".":
            continue
        if text_at(statement, position + 1) in ("function", "procedure", "on"):
            continue
        end, depth = position + 1, 0
        while end < len(statement):
            kind, text, quoted = statement[end]
            if kind is OTHER:
                depth += (text in ("(", "[")) - (text in (")", "]"))
            elif kind is WORD and not quoted and not depth and text in ("into", "using", "loop"):
                break
            end += 1
        yield statement[position + 1 : end]


_EXECUTE = Token(WORD, "execute")


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
