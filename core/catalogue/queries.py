"""Queries: the SQL that reads a database's definitions, and the rows that it returns.

Each part of an answer is one text, in which records and fields are set apart by separators: a
driver takes a hundred times as long for a row as Python does to split a text. All names have
their schema, because the session's ``search_path`` can be anything.

https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from relet.core.sql.functions import KINDS
from relet.core.sql.quoting import quote_literal

from . import extensions

#: Objects below this number are PostgreSQL's own.
#: https://www.postgresql.org/docs/current/system-catalog-initial-data.html
_FIRST_OID = 16384
#: The version in which functions in SQL can have a body that is no string.
_WITH_SQL_BODIES = 140000

#: The system catalogues whose rows say what there is, and which rows count. Other definitions, such
#: as operators and partitions, change one of these, too, or come with a function.
_WATCHED = {
    "pg_proc": f"oid >= {_FIRST_OID}",
    "pg_trigger": "NOT tgisinternal",
    "pg_rewrite": f"oid >= {_FIRST_OID}",
    "pg_constraint": f"oid >= {_FIRST_OID} AND contype IN ('c', 'f')",
    "pg_attrdef": "true",
    "pg_type": f"oid >= {_FIRST_OID} AND typdefaultbin IS NOT NULL",
    "pg_policy": "true",
    "pg_event_trigger": "true",
    # Names: those of tables that have nothing else, change nothing.
    "pg_class": (
        f"oid >= {_FIRST_OID} AND relpersistence <> 't'"
        " AND (relhastriggers OR relhasrules OR relrowsecurity OR relkind = 'p')"
    ),
}
#: Of each, how many rows there are and which transactions have written them: a definition that
#: changes is written anew. It is one row, and takes the server a millisecond or two.
SIGNATURE = (
    "SELECT pg_catalog.current_setting('server_version_num'),"
    " pg_catalog.current_setting('transaction_isolation'), pg_catalog.concat_ws(' ', "
    + ", ".join(
        "(SELECT pg_catalog.concat_ws(':', pg_catalog.count(*), "
        f"pg_catalog.sum(xmin::text::int8)) FROM pg_catalog.{name} WHERE {which})"
        for name, which in _WATCHED.items()
    )
    + ")"
)


class Signature(NamedTuple):
    """What `SIGNATURE` says.

    :param version: the server's ``server_version_num``.
    :param isolation: the level of the transaction.
    :param text: equal to that of before if nothing has changed.
    """

    version: int
    isolation: str
    text: str

    @property
    def present(self) -> frozenset[str]:
        """The system catalogues that have a row that counts."""
        parts = zip(_WATCHED, self.text.split(" "), strict=True)
        return frozenset(name for name, part in parts if part != "0")


def read_signature(rows: Iterable[Sequence[Any]]) -> Signature:
    """Return what the row of `SIGNATURE` says."""
    ((version, isolation, text),) = map(_decoded, rows)
    return Signature(int(version), isolation, text)


class Separators:
    """What ends a field and a record. No definition has them in it, because they are random."""

    def __init__(self) -> None:
        self.fields = f"\x1f{os.urandom(4).hex()}\x1f"
        self.between = f"\x1e{os.urandom(4).hex()}\x1e"

    def records(self, values: Sequence[str], source: str) -> str:
        """Return SQL for the records of *source*, each made of *values*, in one text."""
        shown = f" || {quote_literal(self.fields)} || ".join(
            f"coalesce(({value})::text, '')" for value in values
        )
        return f"SELECT pg_catalog.string_agg({shown}, {quote_literal(self.between)}) {source}"

    def split(self, text: str, count: int = -1) -> list[list[str]]:
        """Return the fields of each record in *text*.

        :param count: how many of them to split off. The last one may be long.
        """
        if not text:
            return []
        return [record.split(self.fields, count) for record in text.split(self.between)]


def _query(parts: Iterable[tuple[str, str]]) -> str:
    return "\nUNION ALL ".join(f"SELECT '{name}', ({sql})" for name, sql in parts)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(quote_literal, names))


class Routine(NamedTuple):
    """A function, procedure or aggregate.

    :param kind: ``f``, ``p``, ``a`` or ``w``, as in ``pg_proc.prokind``.
    :param returns: ``trigger``, ``event_trigger`` or the name of another type.
    :param parameters: the names of its parameters, with spaces between.
    :param of_row: whether it takes one row, so that ``row.name`` calls it.
    """

    oid: str
    schema: str
    name: str
    language: str
    kind: str
    returns: str
    parameters: str
    of_row: bool
    source: str

    @property
    def title(self) -> str:
        return f"{self.schema}.{self.name}"


class Sources(NamedTuple):
    """What is judged: the routines, and expressions that call functions of PostgreSQL's.

    :param path: the schemas in which names without a schema are looked up.
    :param expressions: the catalogue and the number of what has the expression, and the name of
        the function that it calls.
    """

    routines: tuple[Routine, ...]
    path: tuple[str, ...]
    expressions: tuple[tuple[str, str, str], ...]
    #: The views, rules and event triggers that are there at all.
    relations: int


#: Where expressions are kept that are no text: catalogue -> the column, or columns; and the
#: catalogue that has a row if there is one. Expressions of indexes call no function of PostgreSQL's
#: that has effects, because those must be immutable.
_EXPRESSIONS = {
    "pg_rewrite": ("ev_action::text", "pg_rewrite"),
    "pg_attrdef": ("adbin::text", "pg_attrdef"),
    "pg_type": ("typdefaultbin::text", "pg_type"),
    "pg_constraint": ("conbin::text", "pg_constraint"),
    "pg_trigger": ("tgqual::text", "pg_trigger"),
    "pg_policy": ("pg_catalog.concat(polqual::text, polwithcheck::text)", "pg_policy"),
    "pg_index": ("pg_catalog.concat(indexprs::text, indpred::text)", "pg_proc"),
    "pg_proc": ("proargdefaults::text", "pg_proc"),
}


def sources_query(signature: Signature, separators: Separators) -> str:
    """Return the SQL whose rows `read_sources` takes; nothing if there is nothing to read.

    What is not there is not asked for: to plan the whole of it takes the server longer than to read
    what a database without functions has.
    """
    present = signature.present
    parts = []
    if "pg_proc" in present:
        parts.append(("routines", _routines(signature.version, separators)))
    kept = {
        catalogue: columns
        for catalogue, (columns, counted) in _EXPRESSIONS.items()
        if counted in present
    }
    if kept:
        parts.append(("expressions", _expressions(kept, separators)))
    if "pg_rewrite" in present:
        count = (
            "SELECT ((SELECT pg_catalog.count(*) FROM pg_catalog.pg_rewrite"
            f" WHERE oid >= {_FIRST_OID} AND ev_type <> '1'))::text"
        )
        parts.append(("relations", count))
    if not parts:
        return ""
    path = (
        "SELECT pg_catalog.array_to_string(pg_catalog.current_schemas(true), "
        f"{quote_literal(separators.fields)})"
    )
    return _query([("path", path), *parts])


def _routines(version: int, separators: Separators) -> str:
    source = "p.prosrc"
    if version >= _WITH_SQL_BODIES:
        source = (
            "CASE WHEN p.prosqlbody IS NULL THEN p.prosrc"
            " ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END"
        )
    of_row = (
        "p.pronargs = 1 AND EXISTS (SELECT FROM pg_catalog.pg_type t"
        " WHERE t.oid = p.proargtypes[0] AND t.typtype = 'c')"
    )
    listed = f"p.proname IN ({_quoted(extensions.NAMES)})" + "".join(
        f" OR pg_catalog.starts_with(p.proname, {quote_literal(prefix)})"
        for prefix in extensions.PREFIXES
    )
    return separators.records(
        (
            *("p.oid", "n.nspname", "p.proname", "l.lanname", "p.prokind"),
            "pg_catalog.format_type(p.prorettype, NULL)",
            "pg_catalog.array_to_string(p.proargnames, ' ')",
            of_row,
            source,
        ),
        "FROM pg_catalog.pg_proc p"
        " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        " JOIN pg_catalog.pg_language l ON l.oid = p.prolang"
        f" WHERE p.oid >= {_FIRST_OID} AND n.nspname !~ '^pg_temp_'"
        f" AND (l.lanname NOT IN ('c', 'internal') OR p.prokind = 'a' OR {listed})",
    )


def _expressions(columns: Mapping[str, str], separators: Separators) -> str:
    # A regular expression of numbers, because a tree of a query has them, and not the names.
    called = (
        "(SELECT ':funcid (' || pg_catalog.string_agg(oid::text, '|') || ') '"
        " FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace"
        f" AND proname IN ({_quoted(KINDS)}))"
    )
    trees = " UNION ALL ".join(
        f"SELECT '{catalogue}' AS catalogue, {'indexrelid' if catalogue == 'pg_index' else 'oid'}"
        f" AS oid, {tree} AS tree FROM pg_catalog.{catalogue} WHERE"
        f" {'indexrelid' if catalogue == 'pg_index' else 'oid'} >= {_FIRST_OID}"
        for catalogue, tree in columns.items()
    )
    return separators.records(
        ("e.catalogue", "e.oid", "p.proname"),
        f"FROM {called} AS c (pattern), ({trees}) e,"
        " pg_catalog.regexp_matches(e.tree, c.pattern, 'g') AS m (found),"
        " pg_catalog.pg_proc p"
        " WHERE e.tree ~ c.pattern AND p.oid = m.found[1]::pg_catalog.oid",
    )


def read_sources(rows: Iterable[Sequence[Any]], separators: Separators) -> Sources:
    """Return what the rows of `sources_query` say."""
    found = dict(map(_decoded, rows))
    routines = [
        Routine(oid, schema, name, language, kind, returns, names, of_row[:1] == "t", source)
        for oid, schema, name, language, kind, returns, names, of_row, source in separators.split(
            found.get("routines", ""), 8
        )
    ]
    return Sources(
        tuple(routines),
        tuple(found.get("path", "").split(separators.fields)),
        tuple((a, b, c) for a, b, c in separators.split(found.get("expressions", ""))),
        int(found.get("relations") or 0),
    )


class Relations(NamedTuple):
    """The relations, and what belongs to them. Each field has the records of one query."""

    relations: list[list[str]]
    triggers: list[list[str]]
    inherits: list[list[str]]
    keys: list[list[str]]
    uses: list[list[str]]
    rules: list[list[str]]
    objects: list[list[str]]
    event_triggers: list[list[str]]


_LIVE = "n.nspname !~ '^pg_(temp|toast)' AND n.nspname <> 'information_schema'"


def relations_query(separators: Separators) -> str:
    """Return the SQL whose rows `read_relations` takes."""
    records = separators.records
    return _query(
        (
            (
                "relations",
                records(
                    ("c.oid", "n.nspname", "c.relname", "c.relkind", "c.relrowsecurity"),
                    "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
                    f" ON n.oid = c.relnamespace WHERE c.oid >= {_FIRST_OID}"
                    f" AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_LIVE}",
                ),
            ),
            (
                "triggers",
                records(
                    ("tgrelid", "tgname", "tgfoid", "tgtype", "tgdeferrable", "oid"),
                    "FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'",
                ),
            ),
            (
                "inherits",
                records(("inhparent", "inhrelid"), "FROM pg_catalog.pg_inherits"),
            ),
            (
                "keys",
                records(
                    ("confrelid", "conrelid", "confdeltype", "confupdtype"),
                    "FROM pg_catalog.pg_constraint WHERE contype = 'f'",
                ),
            ),
            (
                "uses",
                records(
                    (
                        "d.classid::pg_catalog.regclass",
                        "d.objid",
                        "d.refclassid::pg_catalog.regclass",
                        "d.refobjid",
                    ),
                    f"FROM pg_catalog.pg_depend d WHERE d.refobjid >= {_FIRST_OID} AND ("
                    "d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass,"
                    " 'pg_catalog.pg_operator'::pg_catalog.regclass) OR"
                    " (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
                    " AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass) OR"
                    " (d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass"
                    " AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
                    " AND d.objsubid > 0))",
                ),
            ),
            (
                "rules",
                records(
                    (
                        *("oid", "ev_class", "rulename", "ev_type"),
                        "CASE WHEN ev_type <> '1' THEN pg_catalog.pg_get_ruledef(oid) END",
                    ),
                    f"FROM pg_catalog.pg_rewrite WHERE oid >= {_FIRST_OID} AND ev_enabled <> 'D'",
                ),
            ),
            (
                "objects",
                records(
                    ("o.catalogue", "o.oid", "o.owner", "o.name"),
                    "FROM ("
                    "SELECT 'pg_attrdef' AS catalogue, oid, adrelid AS owner, '' AS name"
                    " FROM pg_catalog.pg_attrdef"
                    " UNION ALL SELECT 'pg_constraint', oid,"
                    " CASE conrelid WHEN 0 THEN contypid ELSE conrelid END, conname"
                    " FROM pg_catalog.pg_constraint WHERE contype = 'c'"
                    " UNION ALL SELECT 'pg_policy', oid, polrelid, polname"
                    " FROM pg_catalog.pg_policy"
                    " UNION ALL SELECT 'pg_class', i.indexrelid, i.indrelid, c.relname"
                    " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c"
                    " ON c.oid = i.indexrelid"
                    " WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL"
                    " UNION ALL SELECT 'pg_operator', oid, 0, oprname"
                    f" FROM pg_catalog.pg_operator WHERE oid >= {_FIRST_OID}"
                    " UNION ALL SELECT 'pg_cast', oid, t.owner, ''"
                    " FROM pg_catalog.pg_cast,"
                    " LATERAL (VALUES (castsource), (casttarget)) AS t (owner)"
                    " UNION ALL SELECT 'pg_type', oid, 0, typname FROM pg_catalog.pg_type"
                    f" WHERE oid >= {_FIRST_OID} AND typtype IN ('d', 'e', 'r')"
                    " UNION ALL SELECT 'pg_type', oid, 0, typname FROM pg_catalog.pg_type"
                    " WHERE oid IN (SELECT castsource FROM pg_catalog.pg_cast"
                    f" WHERE oid >= {_FIRST_OID} UNION SELECT casttarget"
                    f" FROM pg_catalog.pg_cast WHERE oid >= {_FIRST_OID})"
                    f") o WHERE o.oid >= {_FIRST_OID} OR o.catalogue = 'pg_type'",
                ),
            ),
            (
                "event_triggers",
                records(
                    ("evtname", "evtevent", "evtfoid"),
                    "FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'",
                ),
            ),
        )
    )


def read_relations(rows: Iterable[Sequence[Any]], separators: Separators) -> Relations:
    """Return what the rows of `relations_query` say."""
    return Relations(**{what: separators.split(text) for what, text in map(_decoded, rows)})


def _decoded(row: Sequence[Any]) -> list[str]:
    """Return *row* as text. With the client encoding SQL_ASCII, drivers return bytes."""
    return [
        value.decode(errors="replace") if isinstance(value, bytes) else value or "" for value in row
    ]
