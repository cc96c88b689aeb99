"""Packing: reports as the text that is in the table.

Compressed by the process that reports, which costs it less than it would cost the server.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

#: Bytes of a report that is read, at most, whoever wrote it.
_LARGEST = 8_000_000


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
        found = json.loads(zlib.decompressobj().decompress(b64decode(text), _LARGEST))
    except (ValueError, zlib.error) as error:
        raise ValueError("it is no report") from error
    if not isinstance(found, dict):
        raise ValueError("it is no report")
    return found
