"""Which texts can be prepared without changing what they mean.

A prepared statement is analyzed once, and its parameters are no literals. Where that makes a
difference that the server does not report as an error, the text is refused here.
"""

from __future__ import annotations

import re
from itertools import pairwise

from relet.core.sql.statements import (
    OTHER,
    PARAMETER,
    STRING,
    WORD,
    Statement,
    readings,
    split,
    text_at,
)

#: Comments, such as those that tag statements, may come first; nested ones are not looked for.
#: https://www.postgresql.org/docs/current/sql-prepare.html
_PREPARABLE = re.compile(
    r"(?:[\s(]|--[^\r\n]*[\r\n]|/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/)*"
    r"(?:select|insert|update|delete|with|values|merge|table)\b",
    re.IGNORECASE,
)
#: Constants that the server replaces by the present time when it analyzes a statement.
#: https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-SPECIAL-VALUES
_PRESENT = re.compile(r"\b(?:now|today|tomorrow|yesterday)\b", re.IGNORECASE)
#: Types whose constants the server replaces by the number of an object. It only notices changes of
#: tables, so ``regclass`` is not among them.
#: https://www.postgresql.org/docs/current/datatype-oid.html
_BY_NAME = frozenset(
    {
        *("regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole"),
        *("regconfig", "regdictionary", "regcollation", "regnamespace"),
    }
)
#: Views of what the session has open and prepared. An EXECUTE or a Bind is in them.
#: https://www.postgresql.org/docs/current/view-pg-cursors.html
_OF_THE_SESSION = ("pg_cursors", "pg_prepared_statements")
#: Words that end a list of ORDER BY or GROUP BY.
_ENDS = frozenset(
    {
        *("limit", "offset", "fetch", "for", "having", "window", "union", "intersect", "except"),
        *("rows", "range", "groups", "returning"),
    }
)
#: What follows FOR where rows are locked.
_LOCKS = frozenset({"update", "share", "no", "key"})
#: What follows an item of such a list.
_AFTER_ITEM = frozenset({",", ")", "asc", "desc", "nulls", "using", ";", *_ENDS})
#: A placeholder, or what the driver says is none.
_PLACEHOLDER = re.compile(r"%%|%(?:\(([^()%]*)\))?[sbt]|%")
#: What a literal cannot follow without becoming a part of it, and a parameter can.
_GLUED = re.compile(r"[\w$'\"]%(?:\([^()%]*\))?[sbt]")
#: What limits an interval. The server reads a literal as one of these, and a parameter not.
#: https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-INTERVAL-INPUT
_FIELDS = frozenset({"year", "month", "day", "hour", "minute", "second"})


def is_preparable(sql: str) -> bool:
    """Return whether *sql* is a query or changes rows. Other commands take no parameters."""
    return _PREPARABLE.match(sql) is not None


def refusal(sql: str) -> str:
    """Return why the text *sql* must not be prepared, as the end of a sentence; or ""."""
    ways = readings(sql)
    if len(ways) != 1:
        return "whether a backslash in its text escapes a quote depends on the session"
    parts = split(ways[0])
    if len(parts) != 1:
        return "its text is not one statement"
    (statement,) = parts
    if any(token.kind is WORD and token.text in _OF_THE_SESSION for token in statement):
        return "it looks at a view in which it would see itself"
    if any(token.kind is WORD and token.text in _BY_NAME for token in statement) and any(
        token.kind is STRING for token in statement
    ):
        return "its text may have the name of an object as a constant, which a plan would keep"
    if any(token.kind is STRING and _PRESENT.search(token.text) for token in statement):
        return "its text has the present time as a constant, which a plan would keep"
    in_code = sum(token.kind is PARAMETER for token in statement)
    found = [match.group() for match in _PLACEHOLDER.finditer(sql) if match.group() != "%%"]
    if in_code and ("%" in found or len({each[1:2] == "(" for each in found}) > 1):
        return "its placeholders are not all of one kind, or a percent sign is not doubled"
    if in_code != sum(each != "%" for each in found):
        return "its text has a placeholder inside of quotes or a comment"
    if _GLUED.search(sql):
        return "its text has a placeholder right after a word or a quote"
    if any(
        token.text == "interval" and text_at(statement, at + 1) in _FIELDS
        for at, token in enumerate(statement)
    ):
        return "its text has an interval with fields, which the server reads only from a literal"
    if _may_need_its_values(statement):
        return "there may be no plan for all of its values"
    if _has_position(statement):
        return "a parameter is an item of ORDER BY or GROUP BY, where a number is a position"
    return ""


def _may_need_its_values(statement: Statement) -> bool:
    """Return whether the server may be unable to plan it without its values.

    So it is with the WHERE of ON CONFLICT, which has to imply that of an index; and with FULL JOIN,
    and outer joins that lock rows, where the server simplifies a condition with OR.
    """
    words = [token.text for token in statement if token.kind is WORD and not token.quoted]
    if not any(token.kind is PARAMETER for token in statement):
        return False
    if "or" in words and {"left", "right", "full"}.intersection(words):
        locks = any(word == "for" and after in _LOCKS for word, after in pairwise(words))
        if locks or "full" in words:
            return True
    if "conflict" not in words:
        return False
    of_index = False
    for token in statement:
        if token.kind is PARAMETER:
            if of_index:
                return True
        elif token.kind is WORD and not token.quoted:
            # ON CONFLICT (...) WHERE ... DO
            of_index = token.text == "conflict" or (of_index and token.text != "do")
    return False


def _has_position(statement: Statement) -> bool:
    """Return whether a parameter is a whole item of ORDER BY, GROUP BY or DISTINCT ON."""
    #: By depth of parentheses: whether a list is open.
    lists = [False]
    for at, token in enumerate(statement):
        text = token.text
        before = statement[at - 1] if at else None
        if token.kind is OTHER and text == "(":
            lists.append(
                before is not None
                and before.text == "on"
                and at > 1
                and statement[at - 2].text == "distinct"
            )
        elif token.kind is OTHER and text == ")":
            if len(lists) > 1:
                lists.pop()
        elif token.kind is WORD and not token.quoted:
            if text == "by" and before is not None and before.text in ("order", "group"):
                lists[-1] = True
            elif text in _ENDS:
                lists[-1] = False
        elif token.kind is PARAMETER and lists[-1] and before is not None:
            after = statement[at + 1].text if at + 1 < len(statement) else ";"
            if before.text in ("by", ",", "(") and after in _AFTER_ITEM:
                return True
    return False
