"""Packing: reports as the text that is in the table.

Compressed by the process that reports, which costs it less than it would cost the server.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

#: Bytes of a report that is read, at most, whoever wrote it.
_LARGEST = 8_000_000
#: How JSON writes a letter of two halves, or one of them.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def pack(report: Mapping[str, Any]) -> str:
    """Return *report*, which `json.dumps` takes, as text. It is ASCII."""
    text = json.dumps(report, separators=(",", ":"))
    return b64encode(zlib.compress(text.encode("ascii"), 1)).decode("ascii")


def unpack(text: str) -> dict[str, Any]:
    """Return what was packed; nothing for no text.

    :raises ValueError: *text* is something else.
    """
    if not text:
        return {}
    try:
        found = _load(zlib.decompressobj().decompress(b64decode(text), _LARGEST).decode("ascii"))
    except (ValueError, zlib.error, RecursionError) as error:
        raise ValueError("it is no report") from error
    if not isinstance(found, dict):
        raise ValueError("it is no report")
    return found


def _load(text: str) -> Any:
    # What is no JSON, such as NaN, becomes nothing.
    found = json.loads(text, parse_constant=lambda name: None)
    if _SURROGATE.search(text) is None:
        return found
    # Half a letter, such as in the name of a file that is not UTF-8, cannot be shown.
    letters = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
    return json.loads(letters, parse_constant=lambda name: None)
