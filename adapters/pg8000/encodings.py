"""PostgreSQL's encodings in Python.

https://www.postgresql.org/docs/current/multibyte.html
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import cache

from pg8000.converters import PG_PY_ENCODINGS

#: Encodings that pg8000 does not know, or maps to one that differs from the server's.
_ENCODINGS = {
    "euc_kr": "cp949",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "shift_jis_2004": "ascii",  # in Python's codec, a backslash is a yen sign
    "sjis": "cp932",
    "win866": "cp866",
    **{f"iso_8859_{part}": f"iso8859_{part}" for part in (5, 6, 7, 8)},
}


def python_encoding(name: str) -> str:
    """Return Python's name of PostgreSQL's encoding *name*; ASCII if Python lacks it."""
    name = name.lower()
    try:
        found = _ENCODINGS.get(name) or PG_PY_ENCODINGS.get(name, name)
        return codecs.lookup(found or "ascii").name
    except LookupError:
        return "ascii"


@cache
def codec(name: str) -> tuple[Callable[[str], bytes], Callable[[bytes], str]]:
    """Return the functions that encode and decode text in PostgreSQL's encoding *name*.

    If Python lacks the encoding, characters other than ASCII raise an error.
    """
    python = python_encoding(name)
    if python == "utf-8":
        return str.encode, bytes.decode

    def encode(text: str) -> bytes:
        data = text.encode(python)
        # Python encodes a yen sign, for example, as a backslash, which could escape a quote.
        if data.decode(python) != text:
            at = next(i for i, letter in enumerate(text) if not _returns(letter, python))
            raise UnicodeEncodeError(
                python, text, at, at + 1, "the server would read another character"
            )
        return data

    return encode, lambda data: data.decode(python)


def _returns(letter: str, python: str) -> bool:
    return letter.encode(python).decode(python) == letter
