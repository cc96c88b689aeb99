"""Fingerprints: SQL text without its values, to show in messages."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lexer import end_of_comment

_ELLIPSIS = "..."
#: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS
#: A value that is not closed extends to the end, so nothing is read twice.
_VALUE = re.compile(
    r"""
      (?P<gap> \s+ | --[^\r\n]* )
    | (?P<comment> /\* )
    | (?P<value>
        [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\\?\Z)
        | (?:[bBxXnN]|[uU]&)?'(?P<text>[^']*(?:''[^']*)*)(?:'|\Z)
        | \$(?P<tag>\w*)\$ .*? (?:\$(?P=tag)\$|\Z)
        | \d[\w.]* (?: (?<=[eE])[-+]\d+ )? )
    | (?P<name> "[^"]*" | [^\W\d][\w$]* )
    """,
    re.VERBOSE | re.DOTALL,
)
#: A string may end here or go on, depending on standard_conforming_strings.
_UNCLEAR = re.compile(r"\\(?:'|\Z)")
_LIST = re.compile(r"(\(\s*(?:\?|%s)\s*)(?:,\s*(?:\?|%s)\s*)+\)")


#: The value in a SET may be a plain word. The SET of an UPDATE does not begin the statement.
_ASSIGNED = re.compile(
    r"""((?:\A|;\s*) SET \s+ (?:(?:SESSION|LOCAL)\s+)?
      (?: TIME\s+ZONE\s | (?:[\w.$]|"[^"]*")+ \s* (?:=|\bTO\b) ) \s*) [^\s;][^;]*""",
    re.VERBOSE | re.IGNORECASE,
)


def fingerprint(sql: str, length: int = 100) -> str:
    """Return *sql* on one line, with ``?`` for its values, in at most *length* characters.

    Statements that differ only in their values have the same fingerprint, which contains no secrets
    and no personal data. If it is too long, lists of columns are cut first; the verb, the table and
    ``FOR UPDATE`` stay.
    """
    # The rest would be cut off anyway: even with long values, this is enough text.
    text = "".join(_pieces(sql[: 300 * length])).strip()
    text = _LIST.sub(rf"\1, {_ELLIPSIS})", text)
    text = _ASSIGNED.sub(r"\1?", text)
    return text if len(text) <= length else _shortened(text, length)


#: Texts beyond this length are cut, once long lists in them were replaced.
_LONG = 4_000
#: Long lists of placeholders, and of equal rows of them, as Django writes them.
_LONG_LIST = re.compile(r"%s(?:, ?%s){2,}")
_LONG_ROWS = re.compile(r"(\([^()']{0,400}\))(?:, ?\1){2,}")
_ONE = re.compile(r"\bIN\s*\((\?|%s)\)", re.IGNORECASE)
_ROWS = re.compile(r"(\([^()]*\))(?:, ?\1)+")
_NAME = r'("(?:[^"]|"")*"|[^\s"();,]+)'
#: Names that programs make: of savepoints, cursors and prepared statements.
_NAMED = re.compile(
    rf"""((?:\A|;\s*)
      (?: SAVEPOINT | RELEASE(?:\s+SAVEPOINT)? | ROLLBACK(?:\s+(?:WORK|TRANSACTION))?\s+TO
        (?:\s+SAVEPOINT)? | PREPARE(?!\s+TRANSACTION) | EXECUTE | DEALLOCATE(?:\s+PREPARE)?
      | DECLARE | CLOSE | (?:FETCH|MOVE)\b[^;]*?\b(?:FROM|IN) )\s+) {_NAME}""",
    re.VERBOSE | re.IGNORECASE,
)


def normalized(sql: str, length: int = 2_000) -> str:
    """Return the text of *sql* under which its calls are counted, in at most *length* characters.

    It is a `fingerprint` in which lists of any length, rows of any number, and names of savepoints,
    cursors and prepared statements make no difference either.
    """
    if len(sql) > _LONG:
        sql = _LONG_ROWS.sub(rf"\1, {_ELLIPSIS}", _LONG_LIST.sub(rf"%s, {_ELLIPSIS}", sql))
    text = fingerprint(sql[:_LONG], length)
    text = _ROWS.sub(rf"\1, {_ELLIPSIS}", _ONE.sub(rf"IN (\1, {_ELLIPSIS})", text))
    return _NAMED.sub(r"\1?", text)


def _pieces(sql: str) -> Iterator[str]:
    end, spaced = 0, False
    while (match := _VALUE.search(sql, end)) is not None:
        if before := sql[end : match.start()]:
            yield before
            spaced = False
        end = match.end()
        if match["gap"] is None and match["comment"] is None:
            yield "?" if match["value"] is not None else match.group()
            spaced = False
            if _UNCLEAR.search(match["text"] or ""):
                yield _ELLIPSIS
                return
            continue
        if match["comment"] is not None:
            end = end_of_comment(sql, end)
        if not spaced:
            yield " "
            spaced = True
    yield sql[end:]


# Shortening. The text is split into clauses outside parentheses, and some clauses are emptied.

_PART = re.compile(r'"[^"]*"?|[\w$]+|\s+|.', re.DOTALL)
_CLAUSES = frozenset(
    {
        *("with", "select", "insert", "update", "delete", "merge", "from", "using", "set"),
        *("values", "where", "group", "having", "window", "order", "limit", "offset", "fetch"),
        *("returning", "union", "intersect", "except", "for"),
    }
)
#: The order in which clauses are emptied.
_EXPENDABLE = (
    ("select", "returning"),
    ("values",),
    ("insert",),
    ("set",),
    ("with",),
    ("group", "having", "window", "order", "limit", "offset", "fetch"),
    ("where",),
    ("from", "using"),
)
#: The part of a clause that stays if the clause names a table.
_TABLE = re.compile(r'\w+\s+(?:INTO\s+|ONLY\s+)?(?:[\w.$]|"[^"]*")+', re.IGNORECASE)
_LOCKS = ("update", "no", "share", "key")


def _shortened(text: str, length: int) -> str:
    clauses, lock = _clauses(text)
    room = length - len(lock)
    if sum(word != "" for word, _ in clauses) > 1 or lock:
        for expendable in _EXPENDABLE:
            clauses = [
                (word, _emptied(word, clause) if word in expendable else clause)
                for word, clause in clauses
            ]
            shorter = "".join(clause for _, clause in clauses).rstrip()
            if len(shorter) + bool(lock) <= room:
                return f"{shorter} {lock}".rstrip()
        text = shorter
    if not lock or room <= len(_ELLIPSIS):
        return text[: length - len(_ELLIPSIS)] + _ELLIPSIS
    return f"{text[: room - len(_ELLIPSIS) - 1]}{_ELLIPSIS} {lock}"


def _clauses(text: str) -> tuple[list[tuple[str, str]], str]:
    """Return the clauses of *text*, each after its first key word, and the lock clause."""
    parts = _PART.findall(text)
    clauses: list[tuple[str, list[str]]] = [("", [])]
    depth, lock = 0, len(parts)
    for position, part in enumerate(parts):
        depth += (part == "(") - (part == ")")
        word = part.lower()
        if depth <= 0 and word in _CLAUSES:
            following = "".join(parts[position + 1 : position + 3]).strip().lower()
            if word == "for" and following in _LOCKS:
                lock = position
                break
            clauses.append((word, []))
        clauses[-1][1].append(part)
    return [(word, "".join(clause)) for word, clause in clauses], "".join(parts[lock:])


def _emptied(word: str, clause: str) -> str:
    """Return *clause* emptied to its key word and table, if that is shorter."""
    table = _TABLE.match(clause) if word in ("from", "using", "insert") else None
    kept = clause[: len(word)] if table is None else table[0]
    shorter = f"{kept} {_ELLIPSIS} "
    return shorter if len(shorter) < len(clause) else clause
