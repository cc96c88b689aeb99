"""SQL text as statements, and helpers to examine their tokens."""

from __future__ import annotations

from itertools import takewhile

from .lexer import OTHER, PARAMETER, STRING, WORD, Token, readings, tokens

__all__ = [
    "OTHER",
    "PARAMETER",
    "STRING",
    "WORD",
    "Statement",
    "Token",
    "closing",
    "comma_list",
    "key_words",
    "readings",
    "split",
    "statements",
    "text_at",
    "tokens",
]

Statement = list[Token]


def statements(sql: str) -> list[Statement]:
    """Return the statements of *sql*, each as a list of tokens. Empty statements are left out."""
    return split(tokens(sql))


def split(every: list[Token]) -> list[Statement]:
    """Return the statements made of the tokens *every*. Empty statements are left out."""
    if _SEMICOLON not in every:
        return [every] if every else []
    found: list[Statement] = []
    statement: Statement = []
    depth, body = 0, False
    for token in every:
        kind, text, quoted = token
        if kind is OTHER:
            if text == "(":
                depth += 1
            elif text == ")":
                depth -= 1
            elif text == ";" and depth <= 0 and not body:
                found.append(statement)
                statement, depth = [], 0
                continue
        elif text in _EDGES_OF_BODIES and kind is WORD and not quoted and statement:
            if text == "atomic":
                body = body or (depth <= 0 and _begins_body(statement))
            elif statement[-1] in (_SEMICOLON, _ATOMIC):
                body = False  # inside a body, no statement begins with END
        statement.append(token)
    found.append(statement)
    return [statement for statement in found if statement]


_SEMICOLON, _ATOMIC, _BEGIN = Token(OTHER, ";"), Token(WORD, "atomic"), Token(WORD, "begin")
_EDGES_OF_BODIES = ("atomic", "end")


def _begins_body(statement: Statement) -> bool:
    """Return whether an ATOMIC here begins the body ``BEGIN ATOMIC ... END``, with semicolons.

    https://www.postgresql.org/docs/current/sql-createfunction.html
    """
    words = [token.text for token in statement[:4] if token.text not in ("or", "replace")]
    return (
        statement[-1] == _BEGIN
        and words[0] == "create"
        and words[1:2] in (["function"], ["procedure"])
    )


# Helpers for the classifier.


def text_at(statement: Statement, position: int) -> str:
    """Return the text of the token at *position*, or "" if it is a string or does not exist."""
    if not 0 <= position < len(statement) or statement[position].kind is STRING:
        return ""
    return statement[position].text


def closing(statement: Statement, opening: int) -> int:
    """Return the position of the parenthesis that closes the one at *opening*."""
    depth = 0
    for position in range(opening, len(statement)):
        token = statement[position]
        if token.kind is OTHER:
            depth += (token.text == "(") - (token.text == ")")
            if not depth:
                return position
    return len(statement)


def key_words(statement: Statement, start: int = 0) -> list[str]:
    """Return the words that a statement begins with, at *start*. A quoted word becomes "".

    Opening parentheses before them are skipped.
    """
    while start < len(statement) and statement[start].text == "(":
        start += 1
    leading = takewhile(lambda token: token.kind is WORD, statement[start : start + 8])
    return ["" if token.quoted else token.text for token in leading]


def comma_list(statement: Statement) -> list[Statement]:
    """Return the parts of *statement* between its commas, ignoring those in parentheses."""
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
