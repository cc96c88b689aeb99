"""Fingerprints: SQL text without its values, to show in messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from zlib import crc32

from .lexer import end_of_comment, letters

_ELLIPSIS = "..."
#: The patterns are ASCII, and to PostgreSQL all beyond that are letters.
_FIRST, _PART_OF_NAME = letters("A-Za-z_"), letters(r"\w$")
_PART_OF_TAG, _PART_OF_NUMBER = letters(r"\w"), letters(r"\w.")
#: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS
#: A value that is not closed extends to the end, so nothing is read twice.
_VALUE = re.compile(
    rf"""
      (?P<gap> [\ \t\r\n\f\v]+ | --[^\r\n]* )
    | (?P<comment> /\* )
    | (?P<value>
        [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\\?\Z)
        | (?:[bBxXnN]|[uU]&)?'(?P<text>[^']*(?:''[^']*)*)(?:'|\Z)
        | \$(?P<tag>(?:{_FIRST}{_PART_OF_TAG}*)?)\$ .*? (?:\$(?P=tag)\$|\Z)
        | \.?\d{_PART_OF_NUMBER}* (?: (?<=[eE])[-+]\d+ )? )
    | (?P<name> "[^"]*"(?:(?:\.|,\ )"[^"]*")* | {_FIRST}{_PART_OF_NAME}* )
    | (?P<open> " )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
#: A string may end here or go on, depending on standard_conforming_strings.
_UNCLEAR = re.compile(r"\\(?:'|\Z)")
#: The sign of a value. It stands where an operand must follow.
_SIGN = re.compile(
    r"""(?: (?<=[(,\[=<>*/]) | (?<=[(,\[=<>*/]\ )
      | (?<=\b(?:IN|ON|OR|BY)\ ) | (?<=\bAND\ ) | (?<=\b(?:THEN|ELSE|WHEN)\ )
      | (?<=\b(?:LIMIT|WHERE)\ ) | (?<=\bSELECT\ ) | (?<=\bBETWEEN\ ) ) [-+]\ ?(?=\?)""",
    re.VERBOSE | re.IGNORECASE,
)
#: A value or a placeholder in a list, perhaps with its type.
_ITEM = r"""(?:(?:DATE|TIME|TIMESTAMP|INTERVAL)\ )? (?:\$?\?|%s|%\(\w+\)s)
  (?:::(?:[\w.]|"[^"]*")+(?:\[\])*)*"""
#: A list that was cut has no end.
_LIST = re.compile(
    rf"([(\[])\s*({_ITEM})\s*(?:,\s*{_ITEM}\s*)+(?:[)\]]|,?\s*\Z)", re.VERBOSE | re.IGNORECASE
)
_CLOSING = {"(": ")", "[": "]"}


#: One statement of a text. A semicolon in a quoted name does not end it.
_STATEMENT = re.compile(r'(?:[^";]+|"[^"]*")+')
#: The statements that set a parameter: itself, or for a role, a database, a function.
_SETTING = re.compile(
    r"""\ ?(?: SET
      | ALTER\ (?: SYSTEM | DATABASE | ROLE | USER | FUNCTION | PROCEDURE | ROUTINE )
      | CREATE\ (?:OR\ REPLACE\ )? (?: FUNCTION | PROCEDURE ) )\b""",
    re.VERBOSE | re.IGNORECASE,
)
#: The SET of such a statement, up to its value, which may be a plain word.
_ASSIGNED = re.compile(
    r"""(?P<set> \bSET\b (?: (?!\bSET\b) [^"=(),] | "[^"]*" )*?
      (?: =\ ? | \bTO\b\ ? | \bTIME\ ZONE\b\ ? ) ) (?=\S) | "[^"]*" """,
    re.VERBOSE | re.IGNORECASE,
)


def fingerprint(sql: str, length: int = 100) -> str:
    """Return *sql* on one line, with ``?`` for its values, in at most *length* characters.

    Statements that differ only in their values have the same fingerprint, which contains no secrets
    and no personal data. If it is too long, lists of columns are cut first; the verb, the table and
    ``FOR UPDATE`` stay.
    """
    # The rest would be cut off anyway: even with long values, this is enough text.
    text = one_line(_without_values(sql[: 300 * length]))
    return text if len(text) <= length else _shortened(text, length)


def one_line(text: str) -> str:
    """Return *text* without line breaks, and without anything that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in text)


def unparsed(sql: str) -> str:
    """Return what is shown of *sql*, which the server could not parse.

    Perhaps a value with a quote in it was put into the text. Then nobody can tell where it ends.
    """
    verb = sql.lstrip()[:6].upper()
    return f"{verb} (syntax error)" if verb in _VERBS else "(syntax error)"


_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")


def _without_values(sql: str) -> str:
    """Return *sql* with ``?`` for its values. Its quoted names are all closed.

    Only in names are there line breaks left.
    """
    text = "".join(_pieces(sql)).strip()
    if "-" in text or "+" in text:
        text = _SIGN.sub("", text)
    text = _LIST.sub(_shortened_list, text)
    return _STATEMENT.sub(_without_settings, text)


def _shortened_list(found: re.Match[str]) -> str:
    opening, item = found[1], found[2]
    return f"{opening}{item}, {_ELLIPSIS}{_CLOSING[opening]}"


def _without_settings(statement: re.Match[str]) -> str:
    """Return *statement* up to the first value that it sets. The rest may be values, too."""
    text = statement[0]
    if _SETTING.match(text):
        for found in _ASSIGNED.finditer(text):
            if found["set"] is not None:
                return f"{text[: found.end()]}?"
    return text


#: In texts beyond this length, long lists are replaced first. Of what is left, so much is read: if
#: values make it long, or names.
_LONG, _LONG_NAMES = 4_000, 60_000
#: Long lists of placeholders, and of equal rows of them, as Django writes them.
_LONG_LIST = re.compile(r"%s(?:, ?%s){2,}")
_PLAIN = r"""[^()'"$/]{0,400}"""
_LONG_ROWS = re.compile(rf"(\({_PLAIN}(?:\({_PLAIN}\){_PLAIN}){{0,40}}\))(?:, ?\1){{2,}}")
#: A list after IN of one value, or of one row of values.
_ONE = re.compile(
    rf"""\b(IN)\s*\(\s*({_ITEM}|\({_ITEM}(?:,\ ?(?:{_ITEM}|\.\.\.))*\))\s*\)""",
    re.VERBOSE | re.IGNORECASE,
)
_ONE_ARRAY = re.compile(rf"\b(ARRAY)\s*\[\s*({_ITEM})\s*\]", re.VERBOSE | re.IGNORECASE)
#: Code that writes the text writes these names, too.
_PLACEHOLDER = re.compile(r"%\([\w ]+\)s")
#: Separates the cases that ``bulk_update()`` writes. A case with none of `_UNSAFE` can be left out
#: before it is known which parts are values.
_WHEN = " WHEN "
_UNSAFE = re.compile(r"['$/\\\r\n]|--")
#: Calls in a row have arguments, and these no more calls.
_ROWS = re.compile(r"(\([^()]*(?:\([^()]*\)[^()]*)*\))(?:, ?\1)+")
_NAME = r'(?: (?:U&)? (?:"[^"]*")+ (?:\ UESCAPE\ \?)? | [^\ "();,]+ )'
#: Names that programs make: of savepoints, cursors and prepared statements.
_NAMED = re.compile(
    rf"""\A (\ ?
      (?: SAVEPOINT | RELEASE(?:\ SAVEPOINT)? | (?:ROLLBACK|ABORT)(?:\ (?:WORK|TRANSACTION))?\ TO
        (?:\ SAVEPOINT)? | PREPARE(?!\ TRANSACTION) | DEALLOCATE(?:\ PREPARE)? | CLOSE
      | (?:EXPLAIN\ ?(?:\([^()]*\)\ ?|(?:ANALYZE|VERBOSE)\ )*)? (?: DECLARE | EXECUTE
        | CREATE\ (?: (?!\bAS\b) [^"] | "[^"]*" )* AS\ EXECUTE ) ) (?:\ |(?=")) ) {_NAME}""",
    re.VERBOSE | re.IGNORECASE,
)
#: What follows the direction is the cursor.
_FETCHED = re.compile(
    r"""\A (\ ? (?:FETCH|MOVE)
      (?:\ (?: NEXT | PRIOR | FIRST | LAST | ALL | FORWARD | BACKWARD | ABSOLUTE | RELATIVE
        | [-+]?\ ?\? | %s ) (?!\S) )*
      (?:\ (?:FROM|IN)\b)? \ ? ) \S.*""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_CURRENT = re.compile(rf'(\bWHERE\ CURRENT\ OF (?:\ |(?="))) {_NAME}', re.VERBOSE | re.IGNORECASE)


def normalized(sql: str, length: int = 2_000) -> str:
    """Return the text of *sql* under which its calls are counted, in at most *length* characters.

    It is a `fingerprint` in which lists of any length, rows of any number, and names of savepoints,
    cursors and prepared statements make no difference either. If it is too long, it is shortened as
    that is, and ends with a hash of the whole, so that different statements stay different.
    """
    if "%(" in sql:
        sql = _PLACEHOLDER.sub("%s", sql)
    if len(sql) > _LONG:
        sql = _LONG_ROWS.sub(rf"\1, {_ELLIPSIS}", _LONG_LIST.sub(rf"%s, {_ELLIPSIS}", sql))
        sql = _without_equal_cases(sql)
    text = _counted_as(sql[:_LONG])
    if len(text) > length and len(sql) > _LONG:
        text = _counted_as(sql[:_LONG_NAMES])
    if len(text) <= length:
        return text
    # It is the same for a server's text. It begins with a letter because a number is a value.
    mark = f" #x{crc32(text.replace('%s', '?').encode(errors='replace')):08x}"
    return _shortened(text, length - len(mark)) + mark


def _counted_as(sql: str) -> str:
    text = _without_values(sql)
    text = _ONE.sub(rf"\1 (\2, {_ELLIPSIS})", text)
    if "[" in text:
        text = _ONE_ARRAY.sub(rf"\1[\2, {_ELLIPSIS}]", text)
    text = _without_equal_cases(_ROWS.sub(rf"\1, {_ELLIPSIS}", text))
    return one_line(_STATEMENT.sub(_without_names, text))


def _without_equal_cases(text: str) -> str:
    """Return *text* with one of the equal cases in a row of each ``CASE``."""
    parts = text.split(_WHEN)
    if len(parts) < 3:
        return text
    kept, case, repeated = parts[:2], parts[1], False
    for part in parts[2:]:
        # The last one is followed by what comes after all of them.
        after = part[len(case) :] if part.startswith(case) else None
        safe = repeated or (after is not None and _is_safe_to_drop(case))
        if after is None or not safe or after[:1] not in ("", " "):
            case, repeated = part, False
            kept.append(part)
        elif after:
            case, repeated = f"{case} {_ELLIPSIS}{after}", False
            kept[-1] = case
        else:
            repeated = True
    return _WHEN.join(kept)


def _is_safe_to_drop(case: str) -> bool:
    return case.count('"') % 2 == 0 and not _UNSAFE.search(case)


def _without_names(statement: re.Match[str]) -> str:
    text = _FETCHED.sub(r"\1?", _NAMED.sub(r"\1?", statement[0]))
    return _CURRENT.sub(r"\1?", text)


def _pieces(sql: str) -> Iterator[str]:
    end, spaced = 0, False
    while (match := _VALUE.search(sql, end)) is not None:
        if before := sql[end : match.start()]:
            yield before
            spaced = False
        end = match.end()
        if match["open"] is not None:  # a name that is not closed, or was cut
            yield _ELLIPSIS
            return
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
