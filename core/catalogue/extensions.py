"""Extensions: functions in C that leave session state. Their source is not in the database."""

from __future__ import annotations

from relet.core.sql.effects import Kind

#: Function of an extension -> the kind of session state that it leaves.
KINDS: dict[str, Kind] = {
    # https://www.postgresql.org/docs/current/dblink.html: connections that stay open.
    "dblink_connect": Kind.EXTENSION,
    "dblink_connect_u": Kind.EXTENSION,
    # https://www.postgresql.org/docs/current/pgtrgm.html: sets pg_trgm.similarity_threshold.
    "set_limit": Kind.SETTING,
    # https://github.com/postgrespro/pg_variables: variables of the session.
    "pgv_set": Kind.EXTENSION,
    "pgv_insert": Kind.EXTENSION,
    "pgv_update": Kind.EXTENSION,
    "pgv_delete": Kind.EXTENSION,
    "pgv_remove": Kind.EXTENSION,
    "pgv_free": Kind.EXTENSION,
}
#: Function of an extension that runs texts as SQL -> their positions among its arguments.
RUNNERS: dict[str, tuple[int, ...]] = {
    # https://www.postgresql.org/docs/current/tablefunc.html
    "crosstab": (0, 1),
    "crosstab2": (0,),
    "crosstab3": (0,),
    "crosstab4": (0,),
    "crosstab_hash": (0, 1),
}
#: Library and symbol of such a function -> the name by which it is known here. It may have another
#: one, as the manual of tablefunc suggests.
SYMBOLS = {
    "dblink dblink_connect": "dblink_connect",
    "pg_trgm set_limit": "set_limit",
    "tablefunc crosstab": "crosstab2",
    "tablefunc crosstab_hash": "crosstab_hash",
}
#: The names of all of them, and those that begin with one of the prefixes.
NAMES = (*KINDS, *RUNNERS)
PREFIXES = ("pgv_set_", "pgv_insert_")


def kind_of(name: str) -> Kind | None:
    """Return the kind of session state that the function *name* leaves whatever its arguments."""
    return KINDS.get(name) or (Kind.EXTENSION if name.startswith(PREFIXES) else None)
