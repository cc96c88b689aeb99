"""Application names: what ``pg_stat_activity`` shows of this process and its transactions.

https://www.postgresql.org/docs/current/runtime-config-logging.html#GUC-APPLICATION-NAME
"""

from __future__ import annotations

import os
import re
import socket
from functools import cache

#: The server cuts longer names: ``NAMEDATALEN`` - 1 bytes.
LONGEST = 63
#: What a cut leaves of a host, so that a tag has room for its route.
_HOST_IN_TAG = 24
_CUT = "~"
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def process_name() -> str:
    """Return the name of this process's sessions, such as ``relet web-1:4711``."""
    pid = f":{os.getpid()}"
    host = _cut(_host(), LONGEST - len("relet ") - len(pid))
    return f"relet {host}{pid}"


def transaction_name(route: str) -> str:
    """Return the name of a session during a transaction, such as ``web-1:4711 /orders/<pk>/``.

    :param route: any text; what is not printable ASCII becomes a question mark.
    """
    # Ends of names tell containers apart, so the middle goes.
    host = _host().partition(".")[0]
    if len(host) > _HOST_IN_TAG:
        half = (_HOST_IN_TAG - len(_CUT)) // 2
        host = f"{host[:half]}{_CUT}{host[-half - 1 :]}"
    # Cut first: a route can be of any length.
    return _cut(f"{host}:{os.getpid()} {_printable(route[: LONGEST + 1])}".rstrip(), LONGEST)


def names_application(options: object) -> bool:
    """Return whether *options*, command-line options of a server process, set the name."""
    # The server takes `-` for `_` in `--name=value`.
    return "application_name" in str(options or "").replace("-", "_").lower()


@cache
def _host() -> str:
    return _printable(socket.gethostname()) or "localhost"


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT
