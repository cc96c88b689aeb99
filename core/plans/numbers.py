"""The types that the server's lexer gives to numbers.

A parameter of that type means what a literal would mean.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS-NUMERIC
"""

from __future__ import annotations

#: The object identifiers of the types.
INT4, INT8, FLOAT8, NUMERIC = 23, 20, 701, 1700

_FIRST_OF_INT4, _FIRST_OF_INT8 = 2**31, 2**63


def literal_type(text: bytes) -> int:
    """Return the type of the number *text*, as it would be written into a statement.

    A minus becomes part of it before it gets its type.
    """
    digits = text.lstrip(b"-")
    if not digits.isdigit():
        return NUMERIC
    if len(digits) < 10:
        return INT4
    if len(digits) > 19:
        return NUMERIC
    number = int(text)
    if -_FIRST_OF_INT4 <= number < _FIRST_OF_INT4:
        return INT4
    return INT8 if -_FIRST_OF_INT8 <= number < _FIRST_OF_INT8 else NUMERIC
