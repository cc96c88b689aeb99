"""Server means: how long statements took on the server, by pg_stat_statements.

https://www.postgresql.org/docs/current/pgstatstatements.html
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from relet.backends.pools import PoolHandle
from relet.core.sql.fingerprint import normalized

from .asking import ask

#: Where the extension is. Its schema need not be on the search path.
_SCHEMA = """
SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'pg_stat_statements'
"""
#: Of other roles, only a member of pg_read_all_stats sees the texts. The times are in ms.
_SQL = """
SELECT left(query, 20000), calls::float8, total_exec_time::float8 FROM {}.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query IS NOT NULL
"""
#: The server has `$1` where the client's text has a placeholder, or a value.
_PARAMETER = re.compile(r"(?<![\w$])\$\d+|%s|%\(\w+\)s|\b(?:null|true|false)\b", re.IGNORECASE)
#: PostgreSQL 18 leaves that of a list in which only the values differ.
_LIST = re.compile(r"\s*/\*, \.\.\. \*/")
#: A driver that puts values into the text writes lists as arrays,
_ARRAY = re.compile(r"\bARRAY\[\?(?:, ?(?:\?|\.\.\.))*\]")
#: and adds types.
_TYPED = re.compile(r'\?(?:::[\w".]+(?:\[\])*)+')


def comparable(sql: str) -> str:
    """Return *sql* as it is the same for the client and for pg_stat_statements."""
    # Types first: with one in it, a list is not shortened.
    text = normalized(_untyped(_PARAMETER.sub("?", _LIST.sub("", sql))))
    return _untyped(text).removesuffix(";").rstrip()


def _untyped(text: str) -> str:
    return _TYPED.sub("?", _ARRAY.sub("?", text))


def server_means(handles: Iterable[PoolHandle]) -> tuple[dict[str, float], list[str]]:
    """Return the mean times by `comparable` text, in seconds, and why some are not known."""
    calls: defaultdict[str, float] = defaultdict(float)
    total: defaultdict[str, float] = defaultdict(float)
    problems = []
    for handle in handles:
        found, problem = ask(handle, _SCHEMA)
        if problem is None and not found:
            problem = f"DATABASES[{handle.alias!r}]: pg_stat_statements is not installed"
        if problem is None:
            found, problem = ask(handle, _SQL.format(found[0][0]))
        if problem is not None:
            problems.append(problem)
            continue
        for query, count, milliseconds in found:
            text = comparable(query)
            calls[text] += float(count)
            total[text] += float(milliseconds) / 1000
    return {text: total[text] / count for text, count in calls.items() if count}, problems
