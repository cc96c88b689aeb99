"""What PostgreSQL's encodings are in Python.

https://www.postgresql.org/docs/current/multibyte.html
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import cache

from pg8000.converters import PG_PY_ENCODINGS

#: Where pg8000 knows none, or one that takes some characters for others than the server does.
_ENCODINGS = {
    "euc_kr": "cp949",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "shift_jis_2004": "ascii",  # in Python's, a backslash is a yen sign
    "sjis": "cp932",
    "win866": "cp866",
    **{f"iso_8859_{part}": f"iso8859_{part}" for part in (5, 6, 7, 8)},
}


def python_encoding(name: str) -> str:
    """Return what Python calls PostgreSQL's encoding *name*; ASCII, if it has none."""
    name = name.lower()
    try:
        found = _ENCODINGS.get(name) or PG_PY_ENCODINGS.get(name, name)
        return codecs.lookup(found or "ascii").name
    except LookupError:
        return "ascii"


@cache
def codec(name: str) -> tuple[Callable[[str], bytes], Callable[[bytes], str]]:
    """Return what encodes and decodes as PostgreSQL's encoding *name* does.

    Of one that Python does not have, what is not ASCII is an error.
    """
    python = python_encoding(name)
    if python == "utf-8":
        return str.encode, bytes.decode

    def encode(text: str) -> bytes:
        data = text.encode(python)
        # Python makes a backslash of a yen sign, for one: in a literal, it could be an escape.
        if data.decode(python) != text:
            at = next(i for i, letter in enumerate(text) if not _returns(letter, python))
            raise UnicodeEncodeError(
                python, text, at, at + 1, "the server would read another character"
            )
        return data

    return encode, lambda data: data.decode(python)


def _returns(letter: str, python: str) -> bool:
    return letter.encode(python).decode(python) == letter
